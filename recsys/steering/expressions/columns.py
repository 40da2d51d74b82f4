"""Columns of items: the values of one property, by kind, as arrays.

A value that an item lacks, or has of another kind, is NaN among numbers and times, and -1 among texts,
booleans and the lengths of lists. A column of one value that holds for every item has arrays of no
dimension, so that it broadcasts.

Legend: N items, D distinct texts, M elements of all lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.events.array_types import AnyArray, BoolArray, Float64Array, Int8Array, Int32Array
from recsys.events.times import to_us
from recsys.ingest.iso_times import parse_iso
from recsys.steering.expressions.tree import Kind

MISSING = -1
FEW = 8  # words that are looked for one by one
_PLAIN = {int, float, str, bool, type(None)}


@dataclass(frozen=True)
class Texts:
    """Texts by code. Words may repeat."""

    codes: Int32Array  # (N,), MISSING where there is none
    words: pa.Array  # (D,)

    @property
    def is_one(self) -> bool:
        """Whether it is the same text for every item."""
        return self.codes.ndim == 0

    @cached_property
    def words_us(self) -> Float64Array:
        """The words (D,) as times, NaN where one is none."""
        return iso_times_us(self.words)

    def meeting(self, met: AnyArray) -> BoolArray:
        """Where (N,) the word is one of those that are `met` (D,)."""
        chosen = np.flatnonzero(met)
        if len(chosen) == 0:
            return np.zeros(self.codes.shape, np.bool_)
        if len(chosen) <= FEW:
            found: BoolArray = self.codes == chosen[0]
            for code in chosen[1:]:
                found = found | (self.codes == code)
            return found
        return self.taken(met, False)

    def taken(self, by_word: AnyArray, missing: object) -> AnyArray:
        """A value of each word (D,) by item (N,); `missing` where there is no text."""
        table = np.append(by_word, np.array(missing, by_word.dtype))
        return np.take(table, self.codes)  # of MISSING the last


@dataclass(frozen=True)
class Lists:
    """Lists of values; `rows` is None where it is one list for every item."""

    lengths: Int32Array  # (N,), MISSING where there is none
    elements: Column  # (M,)
    rows: Int32Array | None  # (M,) the item that each element is of


@dataclass(frozen=True)
class Column:
    """Values by kind; None: no item has one of that kind."""

    numbers: Float64Array | None = None  # (N,)
    texts: Texts | None = None
    booleans: Int8Array | None = None  # (N,) 1, 0 or MISSING
    times: Float64Array | None = None  # (N,) µs since 1970
    durations: Float64Array | None = None  # (N,) µs
    lists: Lists | None = None
    others: BoolArray | None = None  # (N,) where there is a value of no other kind

    @property
    def kinds(self) -> Kind:
        """The kinds that it holds."""
        found = Kind(0)
        for kind, part in _PARTS.items():
            if getattr(self, part) is not None:
                found |= kind
        return found

    def present(self) -> BoolArray:
        """Where (N,) there is a value."""
        found = np.zeros((), np.bool_)
        for part in (self.numbers, self.times, self.durations):
            if part is not None:
                found = found | ~np.isnan(part)
        if self.texts is not None:
            found = found | (self.texts.codes >= 0)
        if self.booleans is not None:
            found = found | (self.booleans >= 0)
        if self.lists is not None:
            found = found | (self.lists.lengths >= 0)
        if self.others is not None:
            found = found | self.others
        return np.asarray(found)

    def as_times(self) -> Float64Array | None:
        """Times, dates among the texts included."""
        if self.texts is None:
            return self.times
        read = self.texts.taken(self.texts.words_us, np.nan)
        return read if self.times is None else np.where(np.isnan(self.times), read, self.times)

    @property
    def bytes(self) -> int:
        """What the arrays take."""
        return _bytes_of(self)

    def with_rows(self, rows: AnyArray, values: Sequence[object], count: int) -> Column:
        """The column of `count` items in which those at `rows` (n,) have `values` (n,)."""
        given, grown = column_of(values), _shaped(self, count)
        found = _shaped(given, len(values), like=grown)
        grown = _shaped(grown, count, like=found)
        changed: dict[str, Any] = {}
        for part in ("numbers", "booleans", "times", "durations", "others"):
            if (held := getattr(grown, part)) is not None:
                changed[part] = held.copy()
                changed[part][rows] = getattr(found, part)
        if grown.texts is not None and found.texts is not None:
            words, codes = _joined(grown.texts.words, found.texts)
            held = grown.texts.codes.copy()
            held[rows] = codes
            changed["texts"] = Texts(held, words)
        if grown.lists is not None and found.lists is not None:
            changed["lists"] = _lists_with(grown.lists, rows, found.lists)
        return replace(grown, **changed)

    def take(self, rows: AnyArray) -> Column:
        """The column of the items at `rows` (n,); of one value for every item itself."""

        def of(part: AnyArray | None) -> Any:
            return None if part is None else part if part.ndim == 0 else part[rows]

        texts, lists = self.texts, self.lists
        if texts is not None and not texts.is_one:
            texts = Texts(texts.codes[rows], texts.words)
        if lists is not None and lists.rows is not None:
            lists = _taken_lists(lists, rows)
        numbers, booleans = of(self.numbers), of(self.booleans)
        times, durations, others = of(self.times), of(self.durations), of(self.others)
        return Column(numbers, texts, booleans, times, durations, lists, others)


_PARTS = {
    Kind.NUMBER: "numbers",
    Kind.TEXT: "texts",
    Kind.BOOLEAN: "booleans",
    Kind.TIME: "times",
    Kind.DURATION: "durations",
    Kind.LIST: "lists",
    Kind.OTHER: "others",
}


@dataclass(frozen=True)
class Columns:
    """The columns of N items by name; a name that is not there is a property that none has."""

    count: int
    by_name: Mapping[str, Column]

    def take(self, names: Iterable[str], rows: AnyArray) -> Columns:
        """The columns `names` of the items at `rows` (n,)."""
        held = self.by_name
        return Columns(len(rows), {name: held[name].take(rows) for name in names if name in held})


def iso_times_us(texts: pa.Array) -> Float64Array:
    """ISO dates and moments, µs since 1970 (UTC where there is no offset); NaN where one is none."""
    read = parse_iso(texts)
    return np.where(read.readable, read.us.astype(np.float64), np.nan)


def column_of(values: Sequence[object]) -> Column:
    """The column of JSON values (N,); None: there is no value.

    >>> column_of([3, "three", None, ["a", "b"]]).kinds == Kind.NUMBER | Kind.TEXT | Kind.LIST
    True
    """
    count, types = len(values), set(map(type, values))
    lists: dict[int, list[object]] = {}
    others: list[int] = []
    if not types <= _PLAIN:
        for row, value in enumerate(values):
            if isinstance(value, list | tuple):
                lists[row] = [one for one in value if isinstance(one, str | int | float)]
            elif type(value) not in _PLAIN:
                others.append(row)
    numbers = booleans = texts = None
    if types & {int, float}:
        chosen = _only(values, types, {int, float})
        numbers = np.array([np.nan if one is None else one for one in chosen], np.float64)
    if bool in types:
        chosen = _only(values, types, {bool})
        booleans = np.array([MISSING if one is None else one for one in chosen], np.int8)
    if str in types:
        texts = coded_texts(pa.array(_only(values, types, {str}), pa.string()))
    found = Column(numbers=numbers, texts=texts, booleans=booleans)
    if others:
        there = np.zeros(count, np.bool_)
        there[others] = True
        found = replace(found, others=there)
    if lists:
        lengths = np.full(count, MISSING, np.int32)
        lengths[list(lists)] = [len(one) for one in lists.values()]
        rows = np.repeat(np.arange(count, dtype=np.int32), np.maximum(lengths, 0))
        elements = column_of([one for part in lists.values() for one in part])
        found = replace(found, lists=Lists(lengths, elements, rows))
    return found


def constant_column(value: object, kind: Kind | None = None) -> Column:
    """The column in which every item has `value`: a JSON value, a moment, or one of `kind`."""
    if kind in (Kind.TIME, Kind.DURATION):
        part = np.array(value, np.float64)
        return Column(times=part) if kind is Kind.TIME else Column(durations=part)
    if isinstance(value, datetime):
        return Column(times=np.array(to_us(value), np.float64))
    if isinstance(value, bool):
        return Column(booleans=np.array(value, np.int8))
    if isinstance(value, int | float):
        return Column(numbers=np.array(value, np.float64))
    if isinstance(value, str):
        return Column(texts=Texts(np.array(0, np.int32), pa.array([value])))
    if isinstance(value, list | tuple):
        elements = [one for one in value if isinstance(one, str | int | float)]
        lengths = np.array(len(elements), np.int32)
        return Column(lists=Lists(lengths, column_of(elements), None))
    return Column() if value is None else Column(others=np.array(True))


def coded_texts(words: pa.Array) -> Texts:
    """Texts (N,), null where there is none, by code."""
    encoded = words.dictionary_encode()
    return Texts(encoded.indices.fill_null(MISSING).to_numpy(), encoded.dictionary)


def _only(values: Sequence[Any], types: set[type], wanted: set[type]) -> Sequence[Any]:
    """`values` (N,), None in place of those of other types."""
    if types <= {*wanted, type(None)}:
        return values
    return [one if type(one) in wanted else None for one in values]


def _shaped(column: Column, count: int, like: Column | None = None) -> Column:
    """A column lengthened to `count` items, with the parts that `like` has too."""
    changed: dict[str, Any] = {}
    for part, missing, dtype in (
        ("numbers", np.nan, np.float64),
        ("booleans", MISSING, np.int8),
        ("times", np.nan, np.float64),
        ("durations", np.nan, np.float64),
        ("others", False, np.bool_),
    ):
        held = getattr(column, part)
        if held is None and like is not None and getattr(like, part) is not None:
            held = np.zeros(0, dtype)
        changed[part] = _longer(held, count, missing)
    texts, lists = column.texts, column.lists
    if texts is None and like is not None and like.texts is not None:
        texts = Texts(np.zeros(0, np.int32), pa.array([], pa.string()))
    if texts is not None:
        texts = Texts(_longer(texts.codes, count, MISSING), texts.words)
    if lists is None and like is not None and like.lists is not None:
        lists = Lists(np.zeros(0, np.int32), column_of([]), np.zeros(0, np.int32))
    if lists is not None:
        lists = replace(lists, lengths=_longer(lists.lengths, count, MISSING))
    return Column(**changed, texts=texts, lists=lists)


def _longer(part: Any, count: int, missing: object) -> Any:
    if part is None or len(part) >= count:
        return part
    return np.append(part, np.full(count - len(part), missing, part.dtype))


def _joined(words: pa.Array, more: Texts) -> tuple[pa.Array, Int32Array]:
    """`words` (D,) with those of `more` that are new, and the codes of `more` among them."""
    places = pc.index_in(more.words, words)
    is_new = pc.is_null(places)
    fresh = more.words.filter(is_new)
    codes = places.to_numpy(zero_copy_only=False).astype(np.float64)
    codes[is_new.to_numpy(zero_copy_only=False)] = len(words) + np.arange(len(fresh))
    joined = pa.concat_arrays([words, fresh]) if len(fresh) else words
    return joined, more.taken(codes.astype(np.int32), MISSING)


def _lists_with(held: Lists, rows: AnyArray, given: Lists) -> Lists:
    """`held` with the lists of the items at `rows` replaced by those of `given`."""
    assert held.rows is not None and given.rows is not None
    stays = np.flatnonzero(~np.isin(held.rows, rows))
    lengths = held.lengths.copy()
    lengths[rows] = given.lengths
    at = np.arange(len(stays), len(stays) + len(given.rows))
    kept = held.elements.take(stays)
    elements = _appended(kept, given.elements, len(stays), at)
    owners = np.asarray(rows, np.int32)[given.rows]
    return Lists(lengths, elements, np.append(held.rows[stays], owners))


def _appended(kept: Column, more: Column, number: int, at: AnyArray) -> Column:
    values: list[object] = [None] * len(at)
    if more.numbers is not None:
        values = [None if np.isnan(one) else one for one in more.numbers.tolist()]
    if more.booleans is not None:
        for row in np.flatnonzero(more.booleans >= 0):
            values[row] = bool(more.booleans[row])
    if more.texts is not None:
        for row in np.flatnonzero(more.texts.codes >= 0):
            values[row] = more.texts.words[int(more.texts.codes[row])].as_py()
    return kept.with_rows(at, values, number + len(at))


def _taken_lists(lists: Lists, rows: AnyArray) -> Lists:
    assert lists.rows is not None
    lengths = lists.lengths[rows]
    order = np.argsort(lists.rows, kind="stable")
    starts = np.searchsorted(lists.rows[order], rows)
    sizes = np.maximum(lengths, 0)
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = order[np.repeat(starts, sizes) + within]
    owners = np.repeat(np.arange(len(rows), dtype=np.int32), sizes)
    return Lists(lengths, lists.elements.take(places), owners)


def _bytes_of(part: object) -> int:
    if isinstance(part, np.ndarray):
        return part.nbytes
    if isinstance(part, pa.Array):
        return part.nbytes
    if isinstance(part, Column | Texts | Lists):
        held = sum(_bytes_of(getattr(part, one.name)) for one in fields(part))
        return held + _bytes_of(part.__dict__.get("words_us"))
    return 0
