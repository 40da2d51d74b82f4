"""What is known of the items, held in memory under the stamp it was read at.

A request reads the stamp from the database; where an item has changed since, everything here is
read anew. So `available: false` holds from the next request on, in every process, and a request
that changes nothing asks the database for no item twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import orjson
import pyarrow as pa

from recsys.errors import InputError, StorageUnavailableError, unknown
from recsys.events.array_types import BoolArray, Int64Array
from recsys.events.vocabulary import FIRST_ITEM
from recsys.ingest.row_conditions import ORDER, Condition, is_number
from recsys.models.bundle import Bundle
from recsys.serving.attribute_names import AttributeNames
from recsys.serving.byte_cache import ByteCache, bytes_of
from recsys.serving.item_columns import CatalogueColumns, ColumnStore, MaskedIds
from recsys.serving.long_work import long_work
from recsys.steering.expressions.evaluation import Bindings
from recsys.steering.expressions.expression import Expression
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import item_rows
from recsys.storage.entities.item_rows import StoredItem

METADATA = (*item_rows.FIELDS, "category")
_Looked = tuple[StoredItem | None]  # what was found of an item; None: it has no metadata
METADATA_BYTES = 64 * 2**20  # of items' metadata that is kept
SET_BYTES = 32 * 2**20  # of answers to filters that are kept, and as much of their rows
SET_ENTRY_BYTES = 500  # of an expression's answer, beside its mask
LOOK_AHEAD = 50  # items whose metadata is read at once where one after another is looked at
ITEM_BYTES = 800  # of an item's metadata, beside what its texts, categories and properties take
NOTHING_BYTES = 70  # of the note that an item has none
MANY = 10_000  # items of a filter, to be looked up one by one
NEWEST = 200  # items added last that exploration tries
NO_ROWS: Int64Array = np.empty(0, np.int64)


def _looked_bytes(looked: _Looked) -> int:
    """As `byte_cache.bytes_of` counts, or a little more, in a fraction of the time."""
    item = looked[0]
    if item is None:
        return NOTHING_BYTES
    texts = 4 * (len(item.title or "") + len(item.image or ""))  # of four bytes a character at most
    properties = bytes_of(item.properties) if item.properties else 0
    return ITEM_BYTES + texts + bytes_of(item.categories) + properties


@dataclass(frozen=True)
class ItemSet:
    """Items that a filter lets through."""

    item_ids: frozenset[str] | MaskedIds
    key: object = None  # under which their rows are kept; None: a client's own list, never kept

    @property
    def asked(self) -> str | None:
        """What they meet, in words; None of a client's own list."""
        if isinstance(self.key, Condition):
            return f"{self.key.column}{self.key.operator}{self.key.literal}"
        if isinstance(self.key, tuple):  # a category, or an expression and what it rests on
            return f"category={self.key[1]}" if self.key[0] == "category" else str(self.key[0])
        return None


def _set_bytes(held: ItemSet) -> int:
    ids = held.item_ids
    return ids.mask.nbytes + SET_ENTRY_BYTES if isinstance(ids, MaskedIds) else bytes_of(held)


@dataclass
class ItemSnapshot:
    """The items as they stood at one stamp. Read as it is asked; safe to share between threads."""

    stamp: int
    hidden: frozenset[str]  # not available
    stocked: bool = False  # whether there is a catalogue
    store: ColumnStore = field(default_factory=ColumnStore)
    attributes: AttributeNames = field(default_factory=AttributeNames)
    _items: ByteCache[str, _Looked] = field(
        default_factory=lambda: ByteCache(METADATA_BYTES, _looked_bytes)
    )
    _sets: ByteCache[object, ItemSet] = field(
        default_factory=lambda: ByteCache(SET_BYTES, _set_bytes)
    )
    _rows: ByteCache[tuple[str, object], Int64Array] = field(
        default_factory=lambda: ByteCache(SET_BYTES)
    )
    _masks: ByteCache[tuple[str, object], BoolArray] = field(
        default_factory=lambda: ByteCache(SET_BYTES)
    )
    _properties: frozenset[str] | None = None  # names, once they were asked for
    _newest: Sequence[str] | None = None  # once they were asked for

    def items(self, connection: Connection, item_ids: Sequence[str]) -> dict[str, StoredItem]:
        """Metadata by id; ids without any are absent."""
        held = self._items.get_many(item_ids)
        missing = [item_id for item_id in item_ids if item_id not in held]
        return _with_metadata(held) | self._read(connection, missing)

    def look_up(self, database: Database, item_ids: Sequence[str]) -> dict[str, StoredItem]:
        """As `items`, with a connection only where one is needed; of what is held alone while the
        database is away.
        """
        held = self._items.get_many(item_ids)
        found = _with_metadata(held)
        if len(held) < len(item_ids):
            missing = [item_id for item_id in item_ids if item_id not in held]
            with suppress(StorageUnavailableError), database.read() as connection:
                found |= self._read(connection, missing)
        return found

    def holds(self, item_ids: Sequence[str]) -> bool:
        """Whether the metadata of all these is held already."""
        return all(item_id in self._items for item_id in item_ids)

    def known(self, item_ids: Sequence[str]) -> dict[str, StoredItem]:
        """Metadata that is held already."""
        return _with_metadata(self._items.get_many(item_ids))

    def _read(self, connection: Connection, item_ids: Sequence[str]) -> dict[str, StoredItem]:
        found = item_rows.get_items(connection, item_ids) if item_ids else {}
        for item_id in item_ids:
            self._items.put(item_id, (found.get(item_id),))
        return found

    def within(
        self, connection: Connection, categories: frozenset[str], field: str = "categories"
    ) -> ItemSet:
        """The items in any of `categories`. Raises InputError, of `field`, where one is no item's.

        Kept by category: which of them a client lists together is its own affair.
        """
        sets = []
        for name in sorted(categories):
            one = self._set(("category", name), partial(_items_in, connection, name))
            if not one.item_ids:
                item_rows.check_category(connection, name, field)
            sets.append(one)
        return (
            sets[0] if len(sets) == 1 else ItemSet(frozenset().union(*(s.item_ids for s in sets)))
        )

    def meeting(self, connection: Connection, condition: Condition) -> ItemSet:
        """The items with metadata that meets `condition`.

        Its column is a field of items or a name among their properties; `category` is met by an item
        if any of its categories does. Raises InputError where no item has such a property, or the
        condition asks for an order that its values have not.
        """
        column = condition.column
        if column not in METADATA and self._properties is not None:
            self._check_property(condition)  # before all items are looked through once more
        return self._set(condition, lambda: self._meeting(connection, condition))

    def meeting_expression(
        self, connection: Connection, expression: Expression, bindings: Bindings
    ) -> ItemSet:
        """The items for which the expression holds. Raises InputError where it names what no item or
        user has.

        Kept by what it says and by the values of what it names beside the item.
        """
        key = (
            expression.text,
            bindings.now_us if expression.names_now else None,
            *(repr(bindings.user.get(name)) for name in expression.user_names),
            *(repr(bindings.last.get(name)) for name in expression.last_names),
        )
        found = self._sets.get(key)
        if found is None:
            columns = self.columns(connection, expression, bindings)
            mask = expression.evaluate(columns.columns, bindings)
            found = ItemSet(columns.masked(np.ascontiguousarray(mask)), key)
            self._sets.put(key, found)
        return found

    def columns(
        self, connection: Connection, expression: Expression, bindings: Bindings
    ) -> CatalogueColumns:
        """The columns that an expression names. Raises InputError as `meeting_expression`."""
        found = self.store.at(connection, self.stamp, expression.item_names, bindings.now_us)
        known = frozenset(bindings.user)
        others = [name for name in expression.user_names if name not in known]
        if others:
            known |= self.attributes.known(connection, others, bindings.now_us)
        expression.check(found.kinds, known)
        return found

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

    def rows(self, bundle: Bundle, items: ItemSet) -> Int64Array:
        """The rows of `items` in a bundle's vocabulary, those of a live log's new items among them."""
        live = bundle.live
        vocabulary = bundle.vocabulary if live is None else live.vocabulary.base
        whole = (bundle.version, items.key)
        found = None if items.key is None else self._rows.get(whole)
        if found is None:
            if items.key is not None and len(items.item_ids) > MANY:
                long_work()
            ids = items.item_ids
            if isinstance(ids, MaskedIds):
                encoded = ids.rows_in(bundle.version, vocabulary)
            else:
                encoded = vocabulary.encode(ids).astype(np.int64)
            found = encoded[encoded >= FIRST_ITEM]
            if items.key is not None:
                self._rows.put(whole, found)
        if live is None:
            return found
        rows = live.vocabulary.new_rows(items.item_ids)
        return np.concatenate((found, rows)) if len(rows) else found

    def newest(self, database: Database) -> Sequence[str]:
        """Ids of the NEWEST items that were added last, newest first; none while the database is away."""
        if self._newest is None:
            with suppress(StorageUnavailableError), database.read() as connection:
                self._newest = item_rows.latest_items(connection, NEWEST)
        return self._newest or ()

    def inside(self, bundle: Bundle, items: ItemSet) -> BoolArray:
        """Which rows of a bundle's vocabulary are `items`; not to be changed."""
        live = bundle.live
        whole = (bundle.version, items.key)
        found = None if items.key is None else self._masks.get(whole)
        if found is None:
            known = bundle.vocabulary if live is None else live.vocabulary.base
            found = np.zeros(len(known), np.bool_)
            rows = self.rows(bundle, items)
            found[rows[rows < len(found)]] = True
            if items.key is not None:
                self._masks.put(whole, found)
        if live is None:
            return found
        extended = np.zeros(len(bundle.vocabulary), np.bool_)
        extended[: len(found)] = found
        extended[live.vocabulary.new_rows(items.item_ids)] = True
        return extended

    def cached_bytes(self) -> dict[str, int]:
        """What the caches hold, in bytes."""
        filters = self._sets.bytes + self._rows.bytes + self._masks.bytes
        return {"items": self._items.bytes, "filters": filters, "columns": self.store.bytes}

    def _set(self, key: object, build: Callable[[], frozenset[str]]) -> ItemSet:
        found = self._sets.get(key)
        if found is None:
            long_work()
            found = ItemSet(build(), key)
            if found.item_ids:  # no name is kept that means nothing
                self._sets.put(key, found)
        return found


EMPTY = ItemSnapshot(-1, frozenset())


class Catalogue:
    """The newest item snapshot of a process."""

    def __init__(self) -> None:
        self._store, self._attributes = ColumnStore(), AttributeNames()
        self._latest = ItemSnapshot(-1, frozenset())
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
        long_work()
        hidden = frozenset(item_rows.unavailable_items(connection))
        stocked = item_rows.has_items(connection)
        found = ItemSnapshot(stamp, hidden, stocked, self._store, self._attributes)
        with self._lock:
            if found.stamp >= self._latest.stamp:
                self._latest = found
        return found


def _with_metadata(looked: Mapping[str, _Looked]) -> dict[str, StoredItem]:
    return {item_id: item for item_id, (item,) in looked.items() if item is not None}


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
