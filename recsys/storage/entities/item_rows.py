"""Items as rows, and the followers of those that the champion does not know."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, or_, select

from recsys.ingest.item_body import Item
from recsys.storage.engine.database import upsert
from recsys.storage.entities.stamps import bump
from recsys.storage.schema.tables import followers, item_categories, items

CHUNK = 500  # ids a statement
INSERT_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item as it is shown."""

    item_id: str
    title: str | None
    categories: list[str]
    price: float | None
    image: str | None
    available: bool
    properties: dict[str, Any]
    created_at_us: int
    updated_at_us: int


def put_items(connection: Connection, given: Sequence[Item], now_us: int) -> int:
    """Store `given` whole, over what was there; how many are new."""
    unique = {item.item_id: item for item in given}  # the last of an id counts
    if not unique:
        return 0
    known = _existing(connection, list(unique))
    statement = upsert(connection, items)
    kept = ("title", "categories", "price", "image", "available", "properties", "updated_at_us")
    statement = statement.on_conflict_do_update(
        index_elements=["item_id"], set_={name: statement.excluded[name] for name in kept}
    )
    connection.execute(statement, [_row(item, now_us) for item in unique.values()])
    _put_categories(connection, unique)
    bump(connection, "items")
    return len(unique) - len(known)


def update_item(connection: Connection, item_id: str, changes: dict[str, Any], now_us: int) -> bool:
    """Change some columns of an item; False where there is no such item."""
    values: dict[str, Any] = {**changes, "updated_at_us": now_us}
    categories = values.get("categories")
    if categories is not None:
        values["categories"] = json.dumps(list(categories), ensure_ascii=False)
    statement = items.update().where(items.c.item_id == item_id).values(values)
    if connection.execute(statement).rowcount == 0:
        return False
    if categories is not None:
        connection.execute(delete(item_categories).where(item_categories.c.item_id == item_id))
        _insert_categories(connection, [(name, item_id) for name in categories])
    bump(connection, "items")
    return True


def delete_item(connection: Connection, item_id: str) -> bool:
    """Remove an item's metadata; its events stay. False where there is no such item."""
    gone = connection.execute(delete(items).where(items.c.item_id == item_id)).rowcount > 0
    if gone:
        bump(connection, "items")
    return gone


_BY_ID = select(items).where(items.c.item_id.in_(bindparam("ids", expanding=True)))


def get_items(connection: Connection, item_ids: Collection[str]) -> dict[str, StoredItem]:
    """Items by id; ids without metadata are absent."""
    found = {}
    for chunk in _chunks(list(item_ids)):
        for row in connection.execute(_BY_ID, {"ids": chunk}):
            found[row.item_id] = stored_item(row)
    return found


def list_items(
    connection: Connection,
    query: str | None,
    category: str | None,
    limit: int,
    after: str | None = None,
) -> list[StoredItem]:
    """A page of items by id; `query` is looked for in titles and ids, without regard to case."""
    statement = select(items).order_by(items.c.item_id).limit(limit)
    if after is not None:
        statement = statement.where(items.c.item_id > after)
    if category is not None:
        statement = statement.join(
            item_categories, item_categories.c.item_id == items.c.item_id
        ).where(item_categories.c.category == category)
    if query:
        pattern = "%" + query.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        statement = statement.where(
            or_(
                items.c.title.ilike(pattern, escape="\\"),
                items.c.item_id.ilike(pattern, escape="\\"),
            )
        )
    return [stored_item(row) for row in connection.execute(statement)]


def items_in(connection: Connection, categories: Collection[str]) -> set[str]:
    """Ids of the items in any of `categories`."""
    statement = select(item_categories.c.item_id).where(
        item_categories.c.category.in_(list(categories))
    )
    return set(connection.execute(statement).scalars())


def first_categories(connection: Connection) -> dict[str, str]:
    """The category of each item that has one; of several, the first by name."""
    first = func.min(item_categories.c.category)
    statement = select(item_categories.c.item_id, first).group_by(item_categories.c.item_id)
    return dict(connection.execute(statement).all())


FIELDS = ("item_id", "title", "price", "image", "available")


def departments(connection: Connection, limit: int) -> list[str]:
    """What items name as their first category, in alphabetical order; of `limit` distinct lists."""
    lists = select(items.c.categories).distinct().limit(limit)
    named = (json.loads(row) for row in connection.execute(lists).scalars())
    return sorted({names[0] for names in named if names})


def field_values(connection: Connection, name: str) -> Iterator[tuple[str, Any]]:
    """(item id, value) of every item: of one of FIELDS, of `category` as a list, or of a property."""
    if name in FIELDS:
        statement = select(items.c.item_id, items.c[name])
        for item_id, value in connection.execute(statement):
            yield item_id, bool(value) if name == "available" else value
    elif name == "category":
        for item_id, text in connection.execute(select(items.c.item_id, items.c.categories)):
            yield item_id, json.loads(text)
    else:
        for item_id, text in connection.execute(select(items.c.item_id, items.c.properties)):
            yield item_id, json.loads(text).get(name)


_UNAVAILABLE = select(items.c.item_id).where(~items.c.available)


def unavailable_items(connection: Connection) -> set[str]:
    """Ids of the items taken out of every answer."""
    return set(connection.execute(_UNAVAILABLE).scalars())


def latest_items(connection: Connection, limit: int) -> list[str]:
    """Ids of the items added last, newest first."""
    statement = (
        select(items.c.item_id)
        .where(items.c.available)
        .order_by(items.c.created_at_us.desc(), items.c.item_id)
        .limit(limit)
    )
    return list(connection.execute(statement).scalars())


def _existing(connection: Connection, item_ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for chunk in _chunks(item_ids):
        statement = select(items.c.item_id).where(items.c.item_id.in_(chunk))
        found.update(connection.execute(statement).scalars())
    return found


def _put_categories(connection: Connection, given: dict[str, Item]) -> None:
    for chunk in _chunks(list(given)):
        connection.execute(delete(item_categories).where(item_categories.c.item_id.in_(chunk)))
    pairs = [(name, item.item_id) for item in given.values() for name in item.categories]
    _insert_categories(connection, pairs)


def _insert_categories(connection: Connection, pairs: Iterable[tuple[str, str]]) -> None:
    rows = [{"category": name, "item_id": item_id} for name, item_id in dict.fromkeys(pairs)]
    if rows:
        connection.execute(item_categories.insert(), rows)


def _row(item: Item, now_us: int) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "title": item.title,
        "categories": json.dumps(list(item.categories), ensure_ascii=False),
        "price": item.price,
        "image": item.image,
        "available": item.available,
        "properties": item.properties or "{}",
        "created_at_us": now_us,
        "updated_at_us": now_us,
    }


def stored_item(row: Any) -> StoredItem:
    """A row of `items` as it is shown."""
    return StoredItem(
        item_id=row.item_id,
        title=row.title,
        categories=json.loads(row.categories),
        price=row.price,
        image=row.image,
        available=bool(row.available),
        properties=json.loads(row.properties),
        created_at_us=row.created_at_us,
        updated_at_us=row.updated_at_us,
    )


def _chunks(item_ids: Sequence[str]) -> Iterable[list[str]]:
    for at in range(0, len(item_ids), CHUNK):
        yield list(item_ids[at : at + CHUNK])


def replace_followers(connection: Connection, steps: Iterable[tuple[str, str, float]]) -> int:
    """Put `steps` (item id, next item id, share) in place of all there are; how many."""
    rows = [{"item_id": a, "next_item_id": b, "share": share} for a, b, share in steps]
    gone = connection.execute(delete(followers)).rowcount
    for at in range(0, len(rows), INSERT_ROWS):
        connection.execute(followers.insert(), rows[at : at + INSERT_ROWS])
    if gone or rows:
        bump(connection, "followers")
    return len(rows)


def all_followers(connection: Connection) -> dict[str, list[tuple[str, float]]]:
    """(next item id, share) by item id, the largest share first."""
    statement = select(followers).order_by(
        followers.c.item_id, followers.c.share.desc(), followers.c.next_item_id
    )
    found: dict[str, list[tuple[str, float]]] = {}
    for row in connection.execute(statement):
        found.setdefault(row.item_id, []).append((row.next_item_id, row.share))
    return found
