"""Judge rows of an external table as a file's import judges its rows, in bulk and at request time alike.

Whatever a driver hands over is a value to judge: one that does not fit its column's type is judged as
text, and a row that cannot be an event is left out with its reason. It never fails the rows beside it.

Legend: n rows of a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import ConfigError, InputError, shown
from recsys.events.array_types import BoolArray, Int64Array
from recsys.ingest.arrow_columns import NOT_UTF8, as_readable, cell_value
from recsys.ingest.cells import CellRules, clean, whole_texts, written_forms
from recsys.ingest.event_parser import EventChunk, EventParser
from recsys.ingest.layouts import MEANINGS, ColumnMap, ReadOptions
from recsys.ingest.raw_rows import RawChunk, Rejection, raw_text
from recsys.ingest.timestamps import EXAMPLE
from recsys.storage.external.mapped_column import MappedColumn
from recsys.storage.external.mapping import KEYS, Mapping

NOT_AS_READ = "holds more around the id than an index is asked for; mend it in a view"
UUID_DIGITS, UUID_HYPHENED = r"^(.{8})(.{4})(.{4})(.{4})(.{12})$", r"\1-\2-\3-\4-\5"
_INT64 = r"^-?([0-9]{1,18}|[0-8][0-9]{18})$"
_AS_KEYS = {"--unit": "unit", "--timezone": "timezone", "--default-type": "default_type"}
_TIMES = ("aware", "naive", "date", "text")
# PostgreSQL's infinity, 2**63 - 1 µs or 2**31 - 1 days after 2000, as it wraps around once it is
# counted from 1970; and its -infinity.
_INFINITE = {"timestamp": (-(2**63) + 946_684_799_999_999, -(2**63) + 946_684_800_000_000)}
_INFINITE["date"] = (-(2**31) + 10_956, -(2**31) + 10_957)


class RowJudge:
    """The judge of one mapping's rows. Raises ConfigError where a column is not what it is said to be."""

    def __init__(self, mapping: Mapping, now_us: int) -> None:
        self._mapping = mapping
        self._names = [meaning for meaning in MEANINGS if meaning in mapping.columns]
        options = ReadOptions(
            columns=ColumnMap(**{name: name for name in self._names}),
            unit=mapping.unit if mapping.columns["timestamp"].kind not in _TIMES else None,
            default_type=mapping.default_type,
            timezone=mapping.timezone,
        )
        try:
            self._parser = EventParser(self._names, options, None, now_us, replay=True)
        except InputError as error:
            raise self._as_config_error(error) from None

    def judge(self, batch: pa.RecordBatch) -> EventChunk:
        """The events among the rows of a batch, whose columns are named by their meaning, with
        `position`, the order column's value or 0; and the rows left out.
        """
        try:
            return self._parser.parse(self._raw(batch))
        except InputError as error:
            raise self._as_config_error(error) from None

    def _raw(self, batch: pa.RecordBatch) -> RawChunk:
        positions, faults = self._positions(batch)
        columns: dict[str, pa.Array] = {}
        unusable: dict[str, tuple[BoolArray, str]] = {}
        for meaning in self._names:
            column, bad = as_readable(batch.column(meaning))
            if self._mapping.columns[meaning].kind == "uuid_bytes":
                column = pc.replace_substring_regex(column, UUID_DIGITS, UUID_HYPHENED)
            columns[meaning] = column
            if bad is not None:
                unusable[meaning] = (bad, NOT_UTF8)
        faults.update(_infinite(columns["timestamp"]))
        for meaning in ("user", "session"):
            if meaning in columns:
                found = self._mapping.may_be_padded(meaning)
                faults.update(_unfindable(columns[meaning], f"{meaning}_id", found))

        def source_rows(numbers: Int64Array) -> list[dict[str, object]]:
            return [
                {name: cell_value(column[int(number)]) for name, column in columns.items()}
                for number in numbers
            ]

        if not faults:
            return RawChunk(columns, positions, [], 0, source_rows, unusable)
        numbers = np.array(sorted(faults), np.int64)
        rejections = [
            Rejection(int(positions[number]), faults[number], raw_text(row))
            for number, row in zip(numbers.tolist(), source_rows(numbers), strict=True)
        ]
        kept = np.ones(batch.num_rows, np.bool_)
        kept[numbers] = False
        columns = {name: column.filter(pa.array(kept)) for name, column in columns.items()}
        unusable = {name: (bad[kept], said) for name, (bad, said) in unusable.items()}
        return RawChunk(columns, positions[kept], rejections, 0, source_rows, unusable)

    def _positions(self, batch: pa.RecordBatch) -> tuple[Int64Array, dict[int, str]]:
        """The order column's values (n,), and the rows that have none: number -> reason."""
        if "order" not in self._mapping.columns:
            return np.zeros(batch.num_rows, np.int64), {}
        order, _ = as_readable(batch.column("order"))
        try:
            numbers = pc.cast(order, pa.int64())
        except pa.ArrowInvalid:
            texts = pc.cast(order, pa.string())
            whole = pc.match_substring_regex(texts, _INT64)
            numbers = pc.cast(pc.if_else(whole, texts, pa.scalar(None, pa.string())), pa.int64())
        faults = {}
        for row in np.flatnonzero(pc.is_null(numbers).to_numpy(zero_copy_only=False)).tolist():
            value = cell_value(order[row])
            said = "expected a whole number of 64 bits"
            faults[row] = "order is missing" if value is None else f"order = {shown(value)}: {said}"
        return pc.fill_null(numbers, 0).to_numpy(), faults

    def _as_config_error(self, error: InputError) -> ConfigError:
        key = _AS_KEYS.get(error.field)
        if key is not None:
            return ConfigError(f"events.{key}", error.value, error.expected)
        meaning = str(error.value).partition("=")[0] if error.field == "--map" else error.field
        column = self._mapping.columns.get(meaning)
        name = column.name if column else error.value
        return ConfigError(f"events.{KEYS.get(meaning, meaning)}", name, error.expected)


def _unfindable(ids: pa.Array, label: str, padded: bool) -> dict[int, str]:
    """The rows whose owner is written as no index is asked for it: number -> reason.

    `padded`: it is asked for the forms in which an id may be written.
    """
    if not pa.types.is_string(ids.type):
        return {}
    read = whole_texts(clean(ids, CellRules(), label, Counter()))
    differs = pc.and_(pc.not_equal(read, ids), pc.not_equal(read, ""))
    rows = np.flatnonzero(pc.fill_null(differs, False).to_numpy(zero_copy_only=False))
    pairs = zip(ids.take(rows).to_pylist(), read.take(rows).to_pylist(), strict=True)
    known: dict[str, bool] = {}
    faults = {}
    for row, (written, meant) in zip(rows.tolist(), pairs, strict=True):
        if written not in known:
            known[written] = padded and written in written_forms(meant)
        if not known[written]:
            faults[row] = f"{label} = {shown(written)}: {NOT_AS_READ}"
    return faults


def _infinite(times: pa.Array) -> dict[int, str]:
    """The rows whose time is infinite: number -> reason."""
    kind = times.type
    if not pa.types.is_timestamp(kind) and not pa.types.is_date32(kind):
        return {}
    above, below = _INFINITE["timestamp" if pa.types.is_timestamp(kind) else "date"]
    numbers = times.cast(pa.int64() if pa.types.is_timestamp(kind) else pa.int32()).fill_null(0)
    found = numbers.to_numpy()
    return {
        row: f"timestamp {'infinity' if found[row] == above else '-infinity'!r}: {EXAMPLE}"
        for row in np.flatnonzero((found == above) | (found == below)).tolist()
    }


def batch_of(rows: Sequence[tuple[Any, ...]], columns: dict[str, MappedColumn]) -> pa.RecordBatch:
    """Rows as a driver gives them, as a batch; `columns`: by meaning, in the order of a row's values."""
    values: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    arrays = [
        _column(found, one.arrow_type())
        for found, one in zip(values, columns.values(), strict=True)
    ]
    return pa.record_batch(arrays, names=list(columns))


def _column(values: Sequence[Any], wanted: pa.DataType) -> pa.Array:
    """Values as a column of the wanted type; of texts where one of them does not fit it.

    >>> _column([1, None, 2**64], pa.int64()).to_pylist()
    [b'1', None, b'18446744073709551616']
    """
    try:
        return pa.array(values, wanted)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        utc = pa.types.is_timestamp(wanted) and wanted.tz is not None
        texts = [None if one is None else _bytes(one, utc) for one in values]
        return pa.array(texts, pa.binary())


def _bytes(value: object, utc: bool) -> bytes:
    """`utc`: a time without an offset is in UTC."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, datetime):
        value = (value.replace(tzinfo=UTC) if utc else value).isoformat(sep=" ")
    elif isinstance(value, date):
        value = value.isoformat()
    # The bytes that were no UTF-8 stand as surrogates where the driver had to give text.
    return str(value).encode(errors="surrogateescape")
