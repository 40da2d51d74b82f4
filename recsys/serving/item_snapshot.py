"""What is known of the items, held in memory under the stamp it was read at.

A request reads the stamp from the database; where an item has changed since, everything here is
read anew. So `available: false` holds from the next request on, in every process, and a request
that changes nothing asks the database for no item twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import orjson
import pyarrow as pa

from recsys.errors import InputError, StorageUnavailableError, unknown
from recsys.events.array_types import Int64Array
from recsys.ingest.row_conditions import ORDER, Condition, is_number
from recsys.models.bundle import Bundle
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import item_rows
from recsys.storage.entities.item_rows import StoredItem

MAX_ITEMS = 100_000  # whose metadata is kept
MAX_SETS = 256  # answers to filters that are kept
MAX_NAMES = 1_000  # known categories among which the nearest to an unknown one are looked for
METADATA = (*item_rows.FIELDS, "category")
NO_ROWS: Int64Array = np.empty(0, np.int64)


@dataclass
class ItemSnapshot:
    """The items as they stood at one stamp. Read as it is asked; safe to share between threads."""

    stamp: int
    hidden: frozenset[str]  # not available
    _items: dict[str, StoredItem | None] = field(default_factory=dict)
    _sets: dict[object, frozenset[str]] = field(default_factory=dict)
    _rows: dict[tuple[str, object], Int64Array] = field(default_factory=dict)
    _properties: frozenset[str] | None = None  # names, once they were asked for

    def items(self, connection: Connection, item_ids: Sequence[str]) -> dict[str, StoredItem]:
        """Metadata by id; ids without any are absent."""
        missing = [item_id for item_id in item_ids if item_id not in self._items]
        if missing:
            found = item_rows.get_items(connection, missing)
            if len(self._items) + len(missing) > MAX_ITEMS:
                self._items.clear()
            self._items.update({item_id: found.get(item_id) for item_id in missing})
            if not self.holds(item_ids):  # another thread has just cleared them
                return item_rows.get_items(connection, item_ids)
        return self.known(item_ids)

    def holds(self, item_ids: Sequence[str]) -> bool:
        """Whether the metadata of all these is held already."""
        return all(item_id in self._items for item_id in item_ids)

    def known(self, item_ids: Sequence[str]) -> dict[str, StoredItem]:
        """Metadata that is held already, for when the database is away."""
        found = ((item_id, self._items.get(item_id)) for item_id in item_ids)
        return {item_id: item for item_id, item in found if item is not None}

    def within(self, connection: Connection, categories: frozenset[str]) -> frozenset[str]:
        """Ids of the items in any of `categories`. Raises InputError where one is no item's."""
        for name in sorted(categories):
            if not self._set(("category", name), partial(_items_in, connection, name)):
                known = item_rows.category_names(connection, MAX_NAMES)
                raise unknown("categories", name, "a category of some item", known)
        return self._set(
            categories, lambda: frozenset(item_rows.items_in(connection, sorted(categories)))
        )

    def meeting(self, connection: Connection, condition: Condition) -> frozenset[str]:
        """Ids of the items with metadata that meets `condition`.

        Its column is a field of items or a name among their properties; `category` is met by an item
        if any of its categories does. Raises InputError where no item has such a property, or the
        condition asks for an order that its values have not.
        """
        column = condition.column
        if column not in METADATA and self._properties is not None:
            self._check_property(condition)  # before all items are looked through once more
        return self._set(condition, lambda: self._meeting(connection, condition))

    def _meeting(self, connection: Connection, condition: Condition) -> frozenset[str]:
        _check_value(condition)
        ids, texts, is_known = [], [], condition.column in METADATA
        for item_id, value in item_rows.field_values(connection, condition.column):
            is_known = is_known or value is not None
            for each in value if isinstance(value, list) else [value]:
                ids.append(item_id)
                texts.append(_text(each))
        if not is_known:
            self._properties = frozenset(item_rows.property_names(connection))
            self._check_property(condition)
        mask = condition.mask(pa.array(texts, pa.string()))
        return frozenset(np.array(ids, object)[mask].tolist()) if ids else frozenset()

    def _check_property(self, condition: Condition) -> None:
        known = self._properties or frozenset()
        if condition.column not in known:
            expected = "a field or property of some item"
            raise unknown(condition.field, condition.column, expected, [*METADATA, *sorted(known)])

    def rows(self, bundle: Bundle, key: object, item_ids: Collection[str]) -> Int64Array:
        """The rows of `item_ids` in a bundle's vocabulary, kept under `key`."""
        whole = (bundle.version, key)
        found = self._rows.get(whole)
        if found is None:
            encoded = bundle.vocabulary.encode(item_ids).astype(np.int64)
            found = encoded[encoded > 1]
            if len(self._rows) >= MAX_SETS:
                self._rows.clear()
            self._rows[whole] = found
        return found

    def _set(self, key: object, build: Callable[[], frozenset[str]]) -> frozenset[str]:
        found = self._sets.get(key)
        if found is None:
            if len(self._sets) >= MAX_SETS:
                self._sets.clear()
            found = self._sets[key] = build()
        return found


EMPTY = ItemSnapshot(-1, frozenset())


class Catalogue:
    """The newest item snapshot of a process."""

    def __init__(self) -> None:
        self._latest = EMPTY
        self._lock = threading.Lock()

    @property
    def latest(self) -> ItemSnapshot:
        """The snapshot read last, for when the database is away."""
        return self._latest

    def at(self, connection: Connection, stamp: int) -> ItemSnapshot:
        """The snapshot of `stamp`, which was read from the database before this call."""
        latest = self._latest
        if latest.stamp == stamp:
            return latest
        found = ItemSnapshot(stamp, frozenset(item_rows.unavailable_items(connection)))
        with self._lock:
            if found.stamp >= self._latest.stamp:
                self._latest = found
        return found


def look_up(
    database: Database, snapshot: ItemSnapshot, item_ids: Sequence[str]
) -> dict[str, StoredItem]:
    """Metadata by id, read where it is not held; of what is held alone while the database is away."""
    if snapshot.holds(item_ids):
        return snapshot.known(item_ids)
    try:
        with database.read() as connection:
            return snapshot.items(connection, item_ids)
    except StorageUnavailableError:
        return snapshot.known(item_ids)


def _items_in(connection: Connection, category: str) -> frozenset[str]:
    return frozenset(item_rows.items_in(connection, [category]))


def _check_value(condition: Condition) -> None:
    """Raise InputError where a field's values are of another kind than the condition's."""
    column, literal = condition.column, condition.literal
    if literal in ("", "*"):
        return
    written = f"{column}{condition.operator}{literal}"
    if column == "price" and not is_number(literal):
        raise InputError(
            condition.field, written, "expected a number, with a point before its decimals"
        )
    if column == "available" and (condition.operator in ORDER or literal not in ("true", "false")):
        raise InputError(condition.field, written, "expected available=true or available=false")
    if column in ("item_id", "title", "image", "category") and condition.orders_numbers:
        raise InputError(
            condition.field, written, f"{column} is text and has no order: use = or !="
        )


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
