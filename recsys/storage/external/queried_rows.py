"""Rows of a SELECT of the operator's beside the events, such as `events.items_query`: batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from recsys.config import Settings
from recsys.errors import ConfigError
from recsys.ingest.raw_rows import Row
from recsys.storage.external.external_database import ExternalDatabase
from recsys.storage.external.operator_sql import check_query, escaped

BATCH = 2_000  # rows compared and stored together


@dataclass(frozen=True)
class CopyResult:
    """How many rows a copy read, changed and left out."""

    read: int
    changed: int  # new or different, and stored
    rejected: int
    problem: str | None = None  # of the first row rejected


@dataclass(frozen=True)
class QueriedRows:
    """What a query gives."""

    columns: list[str]
    batches: Iterator[list[Row]]  # BATCH rows each, by column


@contextmanager
def queried_rows(settings: Settings, name: str, id_column: str) -> Iterator[QueriedRows]:
    """The rows of `events.<name>`, which must have the column `id_column`.

    Raises ConfigError where the query is refused, SourceUnavailableError.
    """
    query: str = getattr(settings.events, name)
    check_query(name, query)
    url = settings.events.url.get_secret_value() or settings.database.url.get_secret_value()
    source = ExternalDatabase(url, settings.events.timeout_seconds)
    try:
        with source.connect() as connection:
            yield QueriedRows(
                _columns(connection, name, query, id_column), _read(connection, query)
            )
    finally:
        source.close()


def _read(connection: Connection, query: str) -> Iterator[list[Row]]:
    streamed = connection.execution_options(stream_results=True)
    result = streamed.execute(text(escaped(query)))
    for rows in result.mappings().partitions(BATCH):
        yield [dict(row) for row in rows]


def _columns(connection: Connection, name: str, query: str, id_column: str) -> list[str]:
    key = f"events.{name}"
    try:
        nothing = text(f"SELECT * FROM ({escaped(query)}) AS q LIMIT 0")  # noqa: S608
        names = list(connection.execute(nothing).keys())
    except DBAPIError as error:
        said = str(error.orig).strip().splitlines()[0][:200]
        raise ConfigError(key, query, f"the database refuses it: {said}") from None
    if id_column not in names:
        expected = (
            f"expected a column named {id_column} ({id_column.removesuffix('_id')} AS {id_column})"
        )
        raise ConfigError(key, query, expected)
    return names
