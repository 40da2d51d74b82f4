"""Copy the item metadata of `events.items_query`: rows that differ from what is stored are stored."""

from __future__ import annotations

from recsys.config import Settings
from recsys.errors import InputError
from recsys.ingest.item_body import Item
from recsys.ingest.item_files import item_of
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows
from recsys.storage.external.queried_rows import CopyResult, queried_rows

COLUMNS = ("item_id", "title", "categories", "price", "image", "available")


def copy_items(settings: Settings, database: Database, now_us: int) -> CopyResult:
    """Read `events.items_query` whole and store what is new or different.

    Items that are gone from there stay: say `available` in the query. A query without it says nothing
    of availability, so that what an operator switched off stays off; so with every other column.
    Columns other than COLUMNS become properties. Raises ConfigError where the query is refused,
    SourceUnavailableError.
    """
    read = changed = rejected = 0
    problem = None
    with queried_rows(settings, "items_query", "item_id") as queried:
        columns = {name.removesuffix("_id"): name for name in COLUMNS if name in queried.columns}
        for rows in queried.batches:
            items: list[Item] = []
            for row in rows:
                try:
                    items.append(item_of(row, columns))
                except InputError as error:
                    rejected += 1
                    problem = problem or str(error)
            read += len(rows)
            changed += _store(database, items, now_us)
    return CopyResult(read, changed, rejected, problem)


def _store(database: Database, given: list[Item], now_us: int) -> int:
    with database.connect() as connection:
        other = item_rows.differing(connection, given)
    if other:
        with database.begin() as connection:
            item_rows.put_items(connection, other, now_us)
    return len(other)
