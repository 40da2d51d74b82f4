"""Gorse's users and items as rows: from its clients, and from its exports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from recsys.ingest.gorse_exports import GorseRows
from recsys.ingest.gorse_objects import GorseItem
from recsys.ingest.row_owners import OwnerColumns
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import attribute_rows, item_pages, item_rows, rejected_rows


def put_gorse_items(connection: Connection, given: Sequence[GorseItem], now_us: int) -> None:
    """Store items as they were given, and when each was added where it says so."""
    item_rows.put_items(connection, [one.item for one in given], now_us)
    added = {one.item.item_id: one.added_us for one in given if one.added_us is not None}
    item_pages.set_added(connection, added)


def import_gorse_catalogue(
    database: Database, chunks: Iterable[GorseRows], source: str, now_us: int
) -> dict[str, int]:
    """Store the users and items of an export; rows of it, by what became of them. Bad ones go to the
    quarantine.
    """
    counts: Counter[str] = Counter()
    for chunk in chunks:
        if not (chunk.users or chunk.items or chunk.rejections):
            continue
        with database.begin() as connection:
            put = attribute_rows.put_attributes(connection, chunk.users, "update", now_us)
            put_gorse_items(connection, chunk.items, now_us)
            counts["users and items rejected"] += rejected_rows.add_rejections(
                connection, source, chunk.rejections, now_us, OwnerColumns()
            )
        counts["users stored"] += len(chunk.users) - len(put.left_out)
        counts["users left out: erased, or too much is known of them"] += len(put.left_out)
        counts["items stored"] += len(chunk.items)
    return {words: rows for words, rows in counts.items() if rows}
