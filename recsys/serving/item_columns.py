"""Properties of all items as columns, for expressions: read once, then kept up by what has changed.

A property is read when an expression first names it. Once the catalogue's stamp has risen, the items
that were updated since are read and put in their places. A deleted item stays in its place: it is hidden
(`recsys.serving.item_snapshot`).
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import numpy as np

from recsys.events.array_types import BoolArray, Float64Array, Int32Array, Int64Array
from recsys.events.times import HOUR_US
from recsys.events.vocabulary import Vocabulary
from recsys.serving.long_work import long_work
from recsys.steering.expressions.columns import Column, Columns, column_of, iso_times_us
from recsys.steering.expressions.tree import Kind
from recsys.storage.engine.database import Connection
from recsys.storage.entities import item_rows, item_values
from recsys.storage.entities.item_values import ItemValues

MAX_BYTES = 256 * 2**20  # of columns that are kept, beside those that one expression names
ID_BYTES = 180  # of an item's id, its place and its times
LATE_US = (
    2 * HOUR_US
)  # an update may be seen so long after the time that it bears: an import bears one
SAMPLE = 20  # texts of a column that tell whether it holds dates
CREATED = "created_at"
FIELD_KINDS = {
    "item_id": Kind.TEXT,
    "title": Kind.TEXT,
    "categories": Kind.LIST,
    "price": Kind.NUMBER,
    "image": Kind.TEXT,
    "available": Kind.BOOLEAN,
    CREATED: Kind.TIME,
}
_KINDS = {
    str: Kind.TEXT,
    int: Kind.NUMBER,
    float: Kind.NUMBER,
    bool: Kind.BOOLEAN,
    list: Kind.LIST,
    dict: Kind.OTHER,
}


class ItemIds:
    """Items by their row in the columns. Rows are only ever added."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.rows: dict[str, int] = {}
        self._encoded: tuple[str, Int32Array] = ("", np.empty(0, np.int32))

    def add(self, item_id: str) -> int:
        """The row of an item, a new one where it has none."""
        row = self.rows.setdefault(item_id, len(self.ids))
        if row == len(self.ids):
            self.ids.append(item_id)
        return row

    def rows_in(self, version: str, vocabulary: Vocabulary) -> Int32Array:
        """The rows (N,) of all items in a version's vocabulary, UNKNOWN where it lacks one."""
        known, encoded = self._encoded
        if known != version:
            encoded = np.empty(0, np.int32)
        if len(encoded) < len(self.ids):
            encoded = np.append(encoded, vocabulary.encode(self.ids[len(encoded) :]))
            self._encoded = (version, encoded)
        return encoded


@dataclass(frozen=True, eq=False)
class MaskedIds(AbstractSet[str]):
    """The items of some rows, as a set."""

    ids: ItemIds
    mask: BoolArray  # (N,); items that were added later are not in it
    size: int

    def __contains__(self, item_id: object) -> bool:
        row = self.ids.rows.get(item_id, -1) if isinstance(item_id, str) else -1
        return 0 <= row < len(self.mask) and bool(self.mask[row])

    def __iter__(self) -> Iterator[str]:
        return (self.ids.ids[row] for row in np.flatnonzero(self.mask))

    def __len__(self) -> int:
        return self.size

    def rows_in(self, version: str, vocabulary: Vocabulary) -> Int64Array:
        """Their rows (n,) in a version's vocabulary, UNKNOWN among them where it lacks one."""
        encoded = self.ids.rows_in(version, vocabulary)[: len(self.mask)]
        return encoded[self.mask].astype(np.int64)


@dataclass(frozen=True)
class CatalogueColumns:
    """The columns as they stood at one stamp. Never changed, but for rows that `ids` gains."""

    stamp: int
    ids: ItemIds
    created_us: Float64Array  # (N,)
    updated_us: Int64Array  # (N,)
    kinds: dict[str, Kind]  # of every field and property of an item, by name
    by_name: dict[str, Column] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.updated_us)

    @property
    def columns(self) -> Columns:
        """All that were read, with the time of an item's creation."""
        return Columns(self.count, {**self.by_name, CREATED: Column(times=self.created_us)})

    def masked(self, mask: BoolArray) -> MaskedIds:
        """The items of a mask (N,)."""
        return MaskedIds(self.ids, mask, int(np.count_nonzero(mask)))


class ColumnStore:
    """The columns of one process; safe to share between threads. One reads, the others wait for it."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held: CatalogueColumns | None = None

    @property
    def bytes(self) -> int:
        """What is held, in bytes; texts of ids and their table as estimated."""
        held = self._held
        if held is None:
            return 0
        return ID_BYTES * held.count + sum(one.bytes for one in held.by_name.values())

    def at(
        self, connection: Connection, stamp: int, names: Collection[str], now_us: int
    ) -> CatalogueColumns:
        """The columns `names` at `stamp` (or later), which was read before this call; names of
        properties that no item has are left out.
        """
        wanted = [name for name in names if name != CREATED]
        if not self._has(stamp, wanted):
            long_work()
        with self._lock:
            held = self._held
            if held is None:
                held = _read(connection, stamp, wanted)
            elif held.stamp < stamp:
                held = _updated(connection, held, stamp, now_us)
            missing = [one for one in wanted if one not in held.by_name and one in held.kinds]
            if missing:
                more = _read_columns(connection, held, missing)
                held = replace(held, by_name={**held.by_name, **more})  # others read the old one
            if held is not self._held:
                _read_dates(held)
            self._held = held = self._bounded(held, wanted)
            return held

    def _has(self, stamp: int, wanted: Sequence[str]) -> bool:
        held = self._held
        if held is None or held.stamp < stamp:
            return False
        return all(one in held.by_name or one not in held.kinds for one in wanted)

    def _bounded(self, held: CatalogueColumns, wanted: Sequence[str]) -> CatalogueColumns:
        """What is held, those named last at the end and of the others as many as there is room for."""
        kept = {name: held.by_name[name] for name in reversed(wanted) if name in held.by_name}
        room = self._max_bytes - sum(one.bytes for one in kept.values())
        for name, column in reversed(held.by_name.items()):
            if name not in kept and (room := room - column.bytes) >= 0:
                kept[name] = column
        return replace(held, by_name=dict(reversed(kept.items())))


def _read_dates(held: CatalogueColumns) -> None:
    """Read the texts that are dates now, not when the first request compares them with a time."""
    for column in held.by_name.values():
        texts = column.texts
        if texts is not None and not np.isnan(iso_times_us(texts.words[:SAMPLE])).all():
            _ = texts.words_us


def _read(connection: Connection, stamp: int, names: Sequence[str]) -> CatalogueColumns:
    """The whole catalogue, with the columns `names`."""
    ids, created, updated = ItemIds(), list[int](), list[int]()
    kinds = dict(FIELD_KINDS)
    values: dict[str, list[object]] = {name: [] for name in names}
    for item in item_values.all_values(connection):
        ids.add(item.item_id)
        created.append(item.created_at_us)
        updated.append(item.updated_at_us)
        _note_kinds(kinds, item)
        for name, column in values.items():
            column.append(item.values.get(name))
    by_name = {name: column_of(column) for name, column in values.items() if name in kinds}
    times = np.array(created, np.float64), np.array(updated, np.int64)
    return CatalogueColumns(stamp, ids, *times, kinds, by_name)


def _read_columns(
    connection: Connection, held: CatalogueColumns, names: Sequence[str]
) -> dict[str, Column]:
    """More columns of the items that are held."""
    values: dict[str, list[object]] = {name: [None] * held.count for name in names}
    rows = held.ids.rows
    for item in item_values.all_values(connection):
        row = rows.get(item.item_id)
        if row is not None:  # else it has just been added, and comes with the next stamp
            for name, column in values.items():
                column[row] = item.values.get(name)
    return {name: column_of(column) for name, column in values.items()}


def _updated(
    connection: Connection, held: CatalogueColumns, stamp: int, now_us: int
) -> CatalogueColumns:
    """What is held, with the items in place that were updated since."""
    since_us = min(int(held.updated_us.max(initial=0)), now_us) - LATE_US
    rows = held.ids.rows
    changed = [
        item_id
        for item_id, at_us in item_values.updates_since(connection, since_us).items()
        if (row := rows.get(item_id)) is None or held.updated_us[row] != at_us
    ]
    found = item_rows.get_items(connection, changed) if changed else {}
    items = [item_values.values_of(item) for item in found.values()]
    if not items:
        return replace(held, stamp=stamp)
    kinds = dict(held.kinds)
    for item in items:
        _note_kinds(kinds, item)
    places = np.array([held.ids.add(item.item_id) for item in items])
    count = len(held.ids.ids)
    grown = count - held.count
    created = np.append(held.created_us, np.zeros(grown))
    updated = np.append(held.updated_us, np.zeros(grown, np.int64))
    created[places] = [item.created_at_us for item in items]
    updated[places] = [item.updated_at_us for item in items]
    by_name = {
        name: column.with_rows(places, [item.values.get(name) for item in items], count)
        for name, column in held.by_name.items()
    }
    return CatalogueColumns(stamp, held.ids, created, updated, kinds, by_name)


def _note_kinds(kinds: dict[str, Kind], item: ItemValues) -> None:
    """Add the kinds of an item's properties."""
    for name, value in item.values.items():
        if name not in FIELD_KINDS and value is not None:
            kinds[name] = kinds.get(name, Kind(0)) | _KINDS.get(type(value), Kind.OTHER)
