"""Raw columns of a file -> checked event columns, and the rejected rows with their reasons.

Legend: n rows of a raw chunk, E accepted events.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import InputError, nearly, shown
from recsys.events.array_types import BoolArray
from recsys.events.fields import (
    DEFAULT_EVENT_TYPE,
    DETAIL_FIELDS,
    EARLIEST_US,
    POSITIONED_SCHEMA,
    EventField,
    event_table,
)
from recsys.ingest.arrow_columns import as_ids, as_numbers, can_be_id, can_be_number, cell_value
from recsys.ingest.cells import (
    CellRules,
    clean,
    clean_text,
    lost_digits,
    lost_digits_of,
    whole_texts,
)
from recsys.ingest.event_body import check_properties
from recsys.ingest.layouts import (
    Layout,
    ReadOptions,
    is_own_export,
    listed,
    own_map,
    require_columns,
)
from recsys.ingest.numeric_times import FINE, Times
from recsys.ingest.raw_rows import RawChunk, Rejection, raw_text
from recsys.ingest.row_conditions import Condition
from recsys.ingest.row_owners import OwnerColumns
from recsys.ingest.timestamps import TimestampParser
from recsys.text_rules import MAX_ID_LENGTH, MAX_TYPE_LENGTH, text_problem

# Numbers first: of a row with more than one fault, the first that is found is the reason given.
_DETAILS = sorted(DETAIL_FIELDS, key=lambda one: one.kind != "number")


@dataclass(frozen=True)
class EventChunk:
    """n rows of a file; the counts are of this chunk alone."""

    events: pa.Table  # (E,) EVENT_SCHEMA and position (int64, 0-based data row), in file order
    rejections: list[Rejection]  # in file order
    skipped: int  # rows left out by `where`
    read: int  # E + rejections + skipped
    bytes_read: int  # of the file as it lies on disk; the sum over all chunks is its size
    # What was read otherwise than written, or may have been meant otherwise: words -> rows
    notes: Counter[str] = field(default_factory=Counter)
    owners: OwnerColumns | None = None  # where the rejected rows name theirs, as far as is known


class EventParser:
    """Raw chunks of one file -> event chunks.

    `replay`: the rows are single ones picked from a file, so that no conclusion is drawn from them
    to a file as a whole. `known_types`: of events elsewhere, among which a default type that was
    misspelt is looked for.
    """

    def __init__(
        self,
        names: Sequence[str],
        options: ReadOptions,
        layout: Layout | None,
        now_us: int,
        replay: bool = False,
        known_types: Collection[str] = (),
    ) -> None:
        columns = options.columns
        if layout is not None:
            columns = columns.over(layout.columns)
        elif not columns.mapped():
            columns = own_map(names)
        self._columns = columns.mapped()
        self._conditions = [Condition.parse(text) for text in options.where]
        if names and not replay:  # a JSON file whose first lines are all bad has none
            self._check_names(list(names))
        unit = options.unit or (layout.unit if layout else None)
        if unit is None and columns.timestamp == "timestamp_us" and not options.columns.mapped():
            unit = "us"
        self._times = TimestampParser(
            columns.timestamp or "timestamp", unit, options.timezone, now_us, replay
        )
        if options.time_format is not None:
            if options.unit is not None:
                raise InputError(
                    "--time-format", options.time_format, "is none of --unit's numbers"
                )
            self._times.take_format(options.time_format)
        self._default_type = options.default_type
        if layout and layout.default_type and options.default_type == DEFAULT_EVENT_TYPE:
            self._default_type = layout.default_type
        if problem := text_problem(self._default_type, MAX_TYPE_LENGTH):
            raise InputError("--default-type", self._default_type, problem)
        self._known_types = set(known_types)
        self._milliseconds = layout.milliseconds if layout else None
        self._rules = options.cells
        if layout and layout.missing:
            missing = (*options.cells.missing, *layout.missing)
            self._rules = replace(options.cells, missing=tuple(dict.fromkeys(missing)))
        if is_own_export(names, options):  # nothing stored is judged anew
            self._rules, self._times.earliest_number_us = CellRules(exact=True), EARLIEST_US
        wanted = [*self._columns.values(), *(condition.column for condition in self._conditions)]
        if self._milliseconds:
            wanted.append(self._milliseconds)
        self.needed = list(dict.fromkeys(wanted))

    def _check_names(self, names: list[str]) -> None:
        for meaning in ("item", "timestamp"):
            if meaning not in self._columns:
                raise InputError(
                    "--map",
                    None,
                    f"say which column is the {meaning}; the file has {listed(names)}",
                )
        if "user" not in self._columns and "session" not in self._columns:
            raise InputError(
                "--map",
                None,
                f"say which column is the user or session; the file has {listed(names)}",
            )
        moment = self._columns["timestamp"]
        if re.fullmatch(r"[0-9]{9,19}|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ].*", moment):
            problem = (
                "looks like a time, so the first line is no header; name the columns: --columns"
            )
            raise InputError("--map", f"timestamp={moment}", problem)
        require_columns("--map", list(self._columns.values()), names)
        require_columns("--where", [condition.column for condition in self._conditions], names)

    def parse(self, raw: RawChunk) -> EventChunk:
        kept = np.ones(len(raw.positions), np.bool_)
        for condition in self._conditions:
            kept &= condition.mask(_trimmed(raw.columns[condition.column], self._rules))
        rows = _Rows(raw, kept)
        notes: Counter[str] = Counter()
        if raw.note:
            notes[raw.note] += len(raw.positions) + len(raw.rejections)
        item, user, session = (self._ids(rows, name, notes) for name in ("item", "user", "session"))
        rows.reject_missing(pc.is_null(item), "item_id")
        neither = pc.and_(pc.is_null(user), pc.is_null(session))
        rows.reject(_mask(neither), lambda row: "user_id and session_id are both missing")
        times = self._timestamps(rows, notes)
        event_type = self._ids(rows, "event_type", notes, MAX_TYPE_LENGTH)
        self._note_default_type(event_type, notes)
        columns = {
            "user_id": user,
            "session_id": session,
            "item_id": item,
            "event_type": pc.fill_null(event_type, self._default_type),
            "timestamp_us": pa.array(times.us),
            **{one.name: self._detail(rows, one, notes) for one in _DETAILS if one.mapped_as},
        }
        table = event_table(columns).append_column(
            POSITIONED_SCHEMA.field("position"), pa.array(raw.positions[kept])
        )
        rejections = rows.rejections(list(self._columns.values()))
        return EventChunk(
            events=table if not rejections else table.filter(pa.array(~rows.rejected)),
            rejections=sorted(
                [*raw.rejections, *rejections], key=lambda rejection: rejection.position
            ),
            skipped=int(len(kept) - kept.sum()) + raw.left_out,
            read=len(kept) + len(raw.rejections) + raw.left_out,
            bytes_read=raw.bytes_read,
            notes=notes,
            owners=OwnerColumns(self._columns.get("user"), self._columns.get("session")),
        )

    def _cleaned(self, rows: _Rows, meaning: str, notes: Counter[str]) -> pa.Array:
        column = rows.column(self._columns[meaning])
        if not pa.types.is_string(column.type):
            return column
        ids = meaning in ("user", "session", "item", "event_type")
        return clean(column, self._rules, _label(meaning), notes, ids)

    def _ids(
        self, rows: _Rows, meaning: str, notes: Counter[str], limit: int = MAX_ID_LENGTH
    ) -> pa.Array:
        """Ids of the column mapped as `meaning`, null where missing; rows with a bad id are rejected."""
        name = self._columns.get(meaning)
        if name is None:
            return pa.nulls(len(rows), pa.string())
        column = self._cleaned(rows, meaning, notes)
        label = _label(meaning)
        if not can_be_id(column.type):
            raise InputError(
                "--map", f"{meaning}={name}", f"a column of type {column.type} holds no ids"
            )
        lost = None
        if pa.types.is_string(column.type) and not self._rules.exact:
            column = whole_texts(column)
            lost = _mask(lost_digits_of(column))
        ids, bad = as_ids(column, limit)
        if lost is not None:
            bad |= lost
        unusable, problem = rows.unusable(name)
        if unusable is not None:
            rows.reject(
                unusable, lambda row: f"{label} = {shown(rows.value(name, row))}: {problem}"
            )

        def reason(row: int) -> str:
            value = rows.value(name, row)
            fault = None
            if isinstance(value, str):
                text = clean_text(value, self._rules) or ""
                fault = "a number that has lost its digits" if lost_digits(text) else None
                fault = fault or text_problem(text, limit)
            return f"{label} = {shown(value)}: {fault or 'expected text or a whole number'}"

        rows.reject(bad, reason)
        return ids

    def _note_default_type(self, event_type: pa.Array, notes: Counter[str]) -> None:
        """Tell of a default type that was never seen, where it is nearly one that was."""
        given = self._default_type
        if not event_type.null_count or given in self._known_types or not self._known_types:
            return
        self._known_types.update(pc.unique(event_type.drop_null()).to_pylist())
        if near := nearly(given, {*self._known_types, DEFAULT_EVENT_TYPE} - {given}):
            words = f"event_type taken as {given!r}, which is not known; did you mean {near}?"
            notes[words] += event_type.null_count

    def _timestamps(self, rows: _Rows, notes: Counter[str]) -> Times:
        name = self._columns.get("timestamp", "timestamp")
        more_us = None
        if self._milliseconds is not None:
            values, _, _ = as_numbers(rows.column(self._milliseconds))
            more_us = values * 1_000.0
        column = rows.column(name)
        if pa.types.is_string(column.type):
            column = clean(column, self._rules, "timestamp", notes)
            if lost := int(pc.sum(lost_digits_of(column)).as_py() or 0):
                notes["timestamp in scientific notation, whose last digits are lost"] += lost
        times = self._times.parse(column, more_us)
        rows.reject(
            times.outcome != FINE,
            lambda row: self._times.reason(rows.value(name, row), times, row),
        )
        return times

    def _detail(self, rows: _Rows, field: EventField, notes: Counter[str]) -> pa.Array:
        if field.kind == "number":
            return self._numbers(rows, field.mapped_as, notes)
        if field.kind == "object":
            return self._properties(rows, notes)
        return self._ids(rows, field.mapped_as, notes, field.max_length)

    def _properties(self, rows: _Rows, notes: Counter[str]) -> pa.Array:
        """Objects as text; what is none, or too large, costs no event."""
        name = self._columns.get("properties")
        if name is None:
            return pa.nulls(len(rows), pa.string())
        texts: list[str | None] = []
        for cell in self._cleaned(rows, "properties", notes).to_pylist():
            try:
                value = json.loads(cell) if isinstance(cell, str) else cell
                texts.append(check_properties(value) if cell != "" else None)
            except (InputError, ValueError, RecursionError):
                notes["properties left out of an event: expected a JSON object"] += 1
                texts.append(None)
        return pa.array(texts, pa.string())

    def _numbers(self, rows: _Rows, meaning: str, notes: Counter[str]) -> pa.Array:
        """Numbers of the column mapped as `meaning`; one that cannot be read costs no event."""
        name = self._columns.get(meaning)
        if name is None:
            return pa.nulls(len(rows), pa.float64())
        column = self._cleaned(rows, meaning, notes)
        if not can_be_number(column.type):
            raise InputError(
                "--map", f"{meaning}={name}", f"a column of type {column.type} holds no numbers"
            )
        values, missing, bad = as_numbers(column)
        bad |= ~missing & ~np.isfinite(values)
        if bad.any():
            notes[f"{meaning} left out of an event: expected a finite number"] += int(bad.sum())
        return pa.array(values, mask=missing | bad)


class _Rows:
    """The rows of a raw chunk that `kept` selects, and the reasons for which some are rejected."""

    def __init__(self, raw: RawChunk, kept: BoolArray) -> None:
        self._raw = raw
        self._all = bool(kept.all())
        self._kept = pa.array(kept)
        self._numbers = np.flatnonzero(kept)
        self._columns: dict[str, pa.Array] = {}
        self._reasons: dict[int, str] = {}
        self.rejected = np.zeros(len(self._numbers), np.bool_)

    def __len__(self) -> int:
        return len(self._numbers)

    def column(self, name: str) -> pa.Array:
        """The selected cells of column `name`; nulls where the file has no such column."""
        if name not in self._columns:
            column = self._raw.columns.get(name)
            if column is None:
                column = pa.nulls(len(self._kept))
            self._columns[name] = column if self._all else column.filter(self._kept)
        return self._columns[name]

    def unusable(self, name: str) -> tuple[BoolArray | None, str]:
        if name not in self._raw.unusable:
            return None, ""
        mask, problem = self._raw.unusable[name]
        return mask[self._numbers], problem

    def value(self, name: str, row: int) -> object:
        """The cell as the source has it."""
        return cell_value(self.column(name)[row])

    def reject(self, mask: BoolArray, reason: Callable[[int], str]) -> None:
        """Reject the rows of `mask` that are not rejected yet."""
        fresh = mask & ~self.rejected
        if fresh.any():
            for row in np.flatnonzero(fresh).tolist():
                self._reasons[row] = reason(row)
            self.rejected |= fresh

    def reject_missing(self, null: pa.Array, label: str) -> None:
        self.reject(_mask(null), lambda row: f"{label} is missing")

    def rejections(self, first: Sequence[str]) -> list[Rejection]:
        """The rejected rows; in `raw` the columns `first` come first."""
        numbers = np.flatnonzero(self.rejected)
        if not len(numbers):
            return []
        sources = self._raw.source_rows(self._numbers[numbers])
        positions = self._raw.positions[self._numbers[numbers]]
        return [
            Rejection(position, self._reasons[number], raw_text(source, first))
            for number, position, source in zip(
                numbers.tolist(), positions.tolist(), sources, strict=True
            )
        ]


def _label(meaning: str) -> str:
    """The field's own name where it is an id."""
    return f"{meaning}_id" if meaning in ("user", "session", "item") else meaning


def _trimmed(column: pa.Array, rules: CellRules) -> pa.Array:
    """Texts without blanks around them; what stands for a missing value stays comparable."""
    if not pa.types.is_string(column.type):
        return column
    return clean(column, replace(rules, missing=()), "", Counter())


def _mask(values: pa.Array) -> BoolArray:
    mask: BoolArray = values.to_numpy(zero_copy_only=False)
    return mask
