"""Items as rows, and the followers of those that the champion does not know."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import orjson
from sqlalchemy import ARRAY, Connection, Text, any_, bindparam, delete, func, or_, select

from recsys.errors import unknown
from recsys.ingest.item_body import Item, with_properties
from recsys.storage.engine.database import upsert
from recsys.storage.engine.short_selects import CompiledSelect
from recsys.storage.entities.stamps import bump
from recsys.storage.schema.tables import followers, item_categories, items

CHUNK = 500  # ids a statement
DELETED_US = 0  # the creation time of a deleted item, whose row keeps it out of answers
PRESENT = items.c.created_at_us != DELETED_US
INSERT_ROWS = 5_000
MAX_NAMES = 1_000  # known categories among which the nearest to an unknown one are looked for


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


SHOWN = [items.c[field.name] for field in fields(StoredItem)]


def has_items(connection: Connection) -> bool:
    """Whether there is a catalogue: an item that may be shown, of which more is known than its id."""
    described = or_(
        items.c.title.is_not(None),
        items.c.price.is_not(None),
        items.c.image.is_not(None),
        items.c.categories != "[]",
        items.c.properties != "{}",
    )
    statement = select(items.c.item_id).where(items.c.available, described).limit(1)
    return connection.execute(statement).first() is not None


def outside(connection: Connection, item_ids: Sequence[str]) -> set[str]:
    """Those of `item_ids` that the catalogue lacks; none where there is no catalogue."""
    if not has_items(connection):
        return set()
    found = set(item_ids)
    for at in range(0, len(item_ids), CHUNK):
        part = items.c.item_id.in_(item_ids[at : at + CHUNK])
        found.difference_update(connection.execute(select(items.c.item_id).where(part)).scalars())
    return found


def put_items(connection: Connection, given: Iterable[Item], now_us: int) -> int:
    """Store what is given of each item; what is not given stays. How many items are new.

    Of several rows of an id each adds to those before it. Raises InputError where an item's
    properties become too large.
    """
    by_id: dict[str, list[Item]] = {}
    for item in given:
        by_id.setdefault(item.item_id, []).append(item)
    if not by_id:
        return 0
    known = _stored(connection, list(by_id), lock=True)
    rows: dict[frozenset[str], list[dict[str, Any]]] = {}
    categories: dict[str, list[str]] = {}
    for item_id, parts in by_id.items():
        row = known.get(item_id)
        named = frozenset().union(*(item.given for item in parts)) - {"item_id"}
        if row is None or row["created_at_us"] == DELETED_US:  # what is given again is new
            known.pop(item_id, None)
            row = _new_row(item_id, now_us)
            named = frozenset(row) - {"item_id", "updated_at_us"}
        for item in parts:
            row = _with(row, item)
        rows.setdefault(named, []).append({**row, "updated_at_us": now_us})
        if "categories" in named:
            categories[item_id] = json.loads(row["categories"])
    for named, chosen in rows.items():
        statement = upsert(connection, items)
        changed = {name: statement.excluded[name] for name in (*sorted(named), "updated_at_us")}
        statement = statement.on_conflict_do_update(index_elements=["item_id"], set_=changed)
        connection.execute(statement, chosen)
    _put_categories(connection, categories)
    bump(connection, "items")
    return len(by_id) - len(known)


def add_unknown(connection: Connection, given: Iterable[Item], now_us: int) -> int:
    """Store those of `given` (each id once) of which there is no row, deleted ones included; how many.

    Nothing that is stored changes. Whoever calls says that items changed (`bump`), last of all: who
    holds that row must not wait for an item.
    """
    wanted = {item.item_id: item for item in given}
    known = _stored(connection, list(wanted)) if wanted else {}
    rows = [
        {**_with(_new_row(item_id, now_us), item), "updated_at_us": now_us}
        for item_id, item in sorted(wanted.items())
        if item_id not in known
    ]
    if not rows:
        return 0
    statement = upsert(connection, items).on_conflict_do_nothing(index_elements=["item_id"])
    fresh = set(connection.execute(statement.returning(items.c.item_id), rows).scalars())
    named = {row["item_id"]: json.loads(row["categories"]) for row in rows}
    _put_categories(connection, {name: named[name] for name in sorted(fresh)})
    return len(fresh)


def differing(connection: Connection, given: Iterable[Item]) -> list[Item]:
    """Those of `given` that are new or say something else than what is stored."""
    candidates = list(given)
    known = _stored(connection, list({item.item_id for item in candidates}))
    return [
        item
        for item in candidates
        if (row := known.get(item.item_id)) is None
        or row["created_at_us"] == DELETED_US
        or _with(row, item) != row
    ]


def delete_item(connection: Connection, item_id: str) -> bool:
    """Remove an item's metadata and keep it out of answers until it is given again; its events stay.

    False where there is no such item.
    """
    emptied = {**_new_row(item_id, DELETED_US), "available": False}
    statement = items.update().where(items.c.item_id == item_id, PRESENT).values(emptied)
    gone = connection.execute(statement).rowcount > 0
    if gone:
        _put_categories(connection, {item_id: []})
        bump(connection, "items")
    return gone


_NAMES = func.json_each(bindparam("ids", type_=Text())).table_valued("value")
_BY_ID = CompiledSelect(
    select(*SHOWN).where(items.c.item_id.in_(select(_NAMES.c.value)), PRESENT),
    postgresql=select(*SHOWN).where(
        items.c.item_id == any_(bindparam("ids", type_=ARRAY(Text()))), PRESENT
    ),
)


def get_items(connection: Connection, item_ids: Collection[str]) -> dict[str, StoredItem]:
    """Items by id; ids without metadata are absent."""
    is_sqlite = connection.dialect.name == "sqlite"
    found = {}
    for chunk in _chunks(list(item_ids)):
        for values in _BY_ID(connection, ids=orjson.dumps(chunk).decode() if is_sqlite else chunk):
            found[values[0]] = stored_item(values)
    return found


def list_items(
    connection: Connection,
    query: str | None,
    category: str | None,
    limit: int,
    after: str | None = None,
) -> list[StoredItem]:
    """A page of items by id; `query` is looked for in titles and ids, without regard to case."""
    statement = select(*SHOWN).where(PRESENT).order_by(items.c.item_id).limit(limit)
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
        statement = select(items.c.item_id, items.c[name]).where(PRESENT)
        for item_id, value in connection.execute(statement):
            yield item_id, bool(value) if name == "available" else value
    elif name == "category":
        for item_id, text in connection.execute(
            select(items.c.item_id, items.c.categories).where(PRESENT)
        ):
            yield item_id, json.loads(text)
    else:
        for item_id, text in connection.execute(select(items.c.item_id, items.c.properties)):
            yield item_id, json.loads(text).get(name)


def property_names(connection: Connection) -> set[str]:
    """The names of all items' properties."""
    texts = connection.execute(select(items.c.properties).distinct()).scalars()
    return {name for text in texts for name in json.loads(text)}


def category_names(connection: Connection, limit: int) -> list[str]:
    """Categories of items, in alphabetical order."""
    name = item_categories.c.category
    statement = select(name).distinct().order_by(name).limit(limit)
    return list(connection.execute(statement).scalars())


def check_category(connection: Connection, name: str, field: str = "category") -> None:
    """Raise InputError, of `field`, where no item is in category `name`."""
    found = select(item_categories.c.item_id).where(item_categories.c.category == name).limit(1)
    if connection.execute(found).first() is None:
        known = category_names(connection, MAX_NAMES)
        raise unknown(field, name, "a category of some item", known)


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


def newest(connection: Connection, limit: int) -> Iterator[StoredItem]:
    """The `limit` items that were added last, newest first; of those that may be shown."""
    statement = (
        select(items)
        .where(items.c.available)
        .order_by(items.c.created_at_us.desc(), items.c.item_id)
        .limit(limit)
    )
    for row in connection.execute(statement):
        yield stored_item(row)


def newest_updates(connection: Connection, limit: int) -> dict[str, int]:
    """When each of the `limit` items that were added last was updated last, newest item first."""
    statement = (
        select(items.c.item_id, items.c.updated_at_us)
        .where(items.c.available)
        .order_by(items.c.created_at_us.desc(), items.c.item_id)
        .limit(limit)
    )
    return dict(connection.execute(statement).all())


def _stored(
    connection: Connection, item_ids: Sequence[str], lock: bool = False
) -> dict[str, dict[str, Any]]:
    """The rows of `item_ids` as they are; `lock`: nobody changes them until the commit."""
    found: dict[str, dict[str, Any]] = {}
    for chunk in _chunks(sorted(item_ids)):
        statement = select(items).where(items.c.item_id.in_(chunk)).order_by(items.c.item_id)
        if lock:
            statement = statement.with_for_update()
        for row in connection.execute(statement).mappings():
            found[row["item_id"]] = dict(row)
    return found


def _new_row(item_id: str, now_us: int) -> dict[str, Any]:
    return {
        "item_id": item_id,
        "title": None,
        "categories": "[]",
        "price": None,
        "image": None,
        "available": True,
        "properties": "{}",
        "created_at_us": now_us,
        "updated_at_us": now_us,
    }


def _with(row: dict[str, Any], item: Item) -> dict[str, Any]:
    """A row with what is given of an item."""
    changes = {name: getattr(item, name) for name in item.given if name in row}
    if "categories" in changes:
        changes["categories"] = json.dumps(list(item.categories), ensure_ascii=False)
    if "properties" in changes:
        changes["properties"] = with_properties(row["properties"], item.properties)
    return {**row, **changes}


def _put_categories(connection: Connection, given: dict[str, list[str]]) -> None:
    for chunk in _chunks(list(given)):
        connection.execute(delete(item_categories).where(item_categories.c.item_id.in_(chunk)))
    pairs = [(name, item_id) for item_id, names in given.items() for name in names]
    rows = [{"category": name, "item_id": item_id} for name, item_id in dict.fromkeys(pairs)]
    if rows:
        connection.execute(item_categories.insert(), rows)


def stored_item(row: Sequence[Any]) -> StoredItem:
    """A row that begins with SHOWN, as an item is shown."""
    item_id, title, categories, price, image, available, properties, *times = row[: len(SHOWN)]
    return StoredItem(
        item_id,
        title,
        json.loads(categories),
        price,
        image,
        bool(available),
        json.loads(properties),
        *times,
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
