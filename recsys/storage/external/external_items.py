"""Copy the item metadata of `events.items_query`: rows that differ from what is stored are stored."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from recsys.config import Settings
from recsys.errors import ConfigError, InputError
from recsys.ingest.item_body import Item
from recsys.ingest.item_files import item_of
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows
from recsys.storage.external.external_database import ExternalDatabase
from recsys.storage.external.operator_sql import check_query, escaped

KEY = "events.items_query"
BATCH = 2_000  # rows compared and stored together
COLUMNS = ("item_id", "title", "categories", "price", "image", "available")


@dataclass(frozen=True)
class CopyResult:
    """How many rows a copy read, changed and rejected."""

    read: int
    changed: int  # new or different, and stored
    rejected: int
    problem: str | None = None  # of the first row rejected


def copy_items(settings: Settings, database: Database, now_us: int) -> CopyResult:
    """Read `events.items_query` whole and store what is new or different.

    Items that are gone from there stay: say `available` in the query. A query without it says nothing
    of availability, so that what an operator switched off stays off; so with every other column.
    Columns other than COLUMNS become properties. Raises ConfigError where the query is refused, SourceUnavailableError.
    """
    query = settings.events.items_query
    check_query("items_query", query)
    url = settings.events.url.get_secret_value() or settings.database.url.get_secret_value()
    source = ExternalDatabase(url, settings.events.timeout_seconds)
    read = changed = rejected = 0
    problem = None
    with source.connect() as connection:
        columns = _columns(connection, query)
        streamed = connection.execution_options(stream_results=True)
        result = streamed.execute(text(escaped(query)))
        for rows in result.mappings().partitions(BATCH):
            items: list[Item] = []
            for row in rows:
                try:
                    items.append(item_of(dict(row), columns))
                except InputError as error:
                    rejected += 1
                    problem = problem or str(error)
            read += len(rows)
            changed += _store(database, items, now_us)
    source.close()
    return CopyResult(read, changed, rejected, problem)


def _columns(connection: Connection, query: str) -> dict[str, str]:
    """Meaning -> column of the query. Raises ConfigError."""
    try:
        nothing = text(f"SELECT * FROM ({escaped(query)}) AS q LIMIT 0")  # noqa: S608
        names = list(connection.execute(nothing).keys())
    except DBAPIError as error:
        said = str(error.orig).strip().splitlines()[0][:200]
        raise ConfigError(KEY, query, f"the database refuses it: {said}") from None
    if "item_id" not in names:
        raise ConfigError(KEY, query, "expected a column named item_id (item AS item_id)")
    return {name.removesuffix("_id"): name for name in COLUMNS if name in names}


def _store(database: Database, given: list[Item], now_us: int) -> int:
    with database.connect() as connection:
        other = item_rows.differing(connection, given)
    if other:
        with database.begin() as connection:
            item_rows.put_items(connection, other, now_us)
    return len(other)
