"""Items page by page, by what they say, and by when they were added: as Gorse clients ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, case, select

from recsys.storage.entities.item_rows import PRESENT, SHOWN, StoredItem, stored_item
from recsys.storage.schema.tables import item_categories, items


def items_from(connection: Connection, start: str | None, limit: int) -> list[StoredItem]:
    """The first `limit` items by id, from `start` on."""
    statement = select(*SHOWN).where(PRESENT).order_by(items.c.item_id).limit(limit)
    if start is not None:
        statement = statement.where(items.c.item_id >= start)
    return [stored_item(row) for row in connection.execute(statement)]


def titled(connection: Connection, words: Sequence[str], limit: int) -> list[StoredItem]:
    """The items whose titles hold any of `words`, those that hold most of them first."""
    if not words:
        return []
    held = [case((items.c.title.icontains(word, autoescape=True), 1), else_=0) for word in words]
    number = sum(held[1:], start=held[0])
    statement = select(*SHOWN).where(PRESENT, number > 0)
    statement = statement.order_by(number.desc(), items.c.item_id).limit(limit)
    return [stored_item(row) for row in connection.execute(statement)]


def latest_in(connection: Connection, categories: Sequence[str], limit: int) -> list[StoredItem]:
    """The items in all of `categories` that were added last, newest first; of those that may be shown."""
    statement = select(*SHOWN).where(items.c.available)
    for name in categories:
        inside = select(item_categories.c.item_id).where(item_categories.c.category == name)
        statement = statement.where(items.c.item_id.in_(inside))
    statement = statement.order_by(items.c.created_at_us.desc(), items.c.item_id).limit(limit)
    return [stored_item(row) for row in connection.execute(statement)]


def set_added(connection: Connection, times_us: Mapping[str, int]) -> None:
    """Say when items were added that are stored already, in µs since 1970."""
    for item_id, time_us in times_us.items():
        at_us = time_us or 1  # 0 stands for an item that was deleted
        connection.execute(
            items.update().where(items.c.item_id == item_id).values(created_at_us=at_us)
        )
