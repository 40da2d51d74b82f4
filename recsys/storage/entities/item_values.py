"""The catalogue read whole, and what has changed in it since, for those who keep columns of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, select

from recsys.storage.entities.item_rows import PRESENT, StoredItem
from recsys.storage.schema.tables import items

PART = 10_000  # items of a read
# Fields that an expression may name; the others are properties.
FIELDS = ("item_id", "title", "categories", "price", "image", "available", "created_at")


class ItemValues(NamedTuple):
    """One item: its fields and properties by name."""

    item_id: str
    created_at_us: int
    updated_at_us: int
    values: dict[str, Any]  # without created_at


def all_values(connection: Connection) -> Iterator[ItemValues]:
    """Every item with metadata, by id.

    Read in parts: what changes meanwhile may be in it or not.
    """
    columns = ("title", "categories", "price", "image", "available", "properties")
    times = (items.c.created_at_us, items.c.updated_at_us)
    statement = select(items.c.item_id, *times, *(items.c[name] for name in columns)).where(PRESENT)
    statement = statement.order_by(items.c.item_id).limit(PART)
    rows = connection.execute(statement).all()
    while rows:
        for item_id, created, updated, title, categories, price, image, available, text in rows:
            values = orjson.loads(text) if text != "{}" else {}
            values["item_id"], values["title"], values["price"] = item_id, title, price
            values["image"], values["available"] = image, bool(available)
            values["categories"] = orjson.loads(categories)
            yield ItemValues(item_id, created, updated, values)
        rows = connection.execute(statement.where(items.c.item_id > rows[-1].item_id)).all()


def values_of(item: StoredItem) -> ItemValues:
    """What `all_values` gives of an item."""
    fields = {name: getattr(item, name) for name in FIELDS if name != "created_at"}
    return ItemValues(
        item.item_id, item.created_at_us, item.updated_at_us, {**item.properties, **fields}
    )


def updates_since(connection: Connection, since_us: int) -> dict[str, int]:
    """When each item that was updated at `since_us` or later was updated last."""
    statement = select(items.c.item_id, items.c.updated_at_us)
    statement = statement.where(items.c.updated_at_us >= since_us, PRESENT)
    return dict(connection.execute(statement).all())
