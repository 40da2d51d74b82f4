"""An external table in bulk: bounded chunks along its order or time, as columns of events.

A chunk's bounds are found in the index that it is read along, so that each holds as many rows
whatever their numbers are. Rows go through the same checks as those of a file: what a file's import
would put in quarantine is left out here, with the same reason.

Legend: n rows of a batch.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import ColumnElement, FromClause, Select, func, or_, select

from recsys.events.array_types import BoolArray
from recsys.events.fields import MAX_FUTURE_SECONDS, POSITIONED_SCHEMA
from recsys.events.times import DAY_US
from recsys.storage.entities.tombstone_rows import Tombstones
from recsys.storage.external.external_database import ExternalDatabase
from recsys.storage.external.mapped_column import MappedColumn
from recsys.storage.external.mapping import Mapping
from recsys.storage.external.row_judge import RowJudge

CHUNK_ROWS = 1_000_000
NEWEST_SECONDS = 3.0


class Chunk(NamedTuple):
    """Rows with first <= order (or time) < end; None is no bound."""

    first: Any
    end: Any


@dataclass
class Tally:
    """What became of the rows that were read."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # reason without its values -> rows
    examples: dict[str, str] = field(default_factory=dict)  # reason -> the first row's own
    notes: Counter[str] = field(default_factory=Counter)  # what was read otherwise than written


class ExternalRows:
    """The rows of one mapping."""

    def __init__(self, mapping: Mapping, source: ExternalDatabase | None = None) -> None:
        self.mapping = mapping
        self.source = source or ExternalDatabase(mapping.url, mapping.timeout_seconds)
        self._newest: dict[int, tuple[float, pa.Table]] = {}
        self._newest_lock = threading.Lock()

    @cached_property
    def _read(self) -> dict[str, MappedColumn]:
        """The columns that are read, in order, by meaning."""
        return self.mapping.read_columns

    @cached_property
    def table(self) -> FromClause:
        """What rows are selected from."""
        return self.mapping.source()

    @cached_property
    def _along(self) -> ColumnElement[Any]:
        return self.mapping.column(self.table, self.mapping.along)

    def end(self) -> Any:
        """The largest order (or time that is not ahead of the clock) there is; None where none is."""
        statement = select(func.max(self._along)).where(*self._up_to_now())
        with self.source.connect() as connection:
            return connection.execute(statement).scalar()

    def lies_behind(self, mark: str) -> bool:
        """Whether the table ends before `mark`: rows that were read are gone from it."""
        last = self.end()
        return last is None or bool(last < self.mapping.unmarked(mark))

    def chunks(self, mark: str | None, last: Any, rows: int = 0) -> list[Chunk]:
        """Chunks of about `rows` (0: CHUNK_ROWS) from the look-back below `mark` up to `last`."""
        if last is None:
            return []
        first = self._look_back(self.mapping.unmarked(mark)) if mark else None
        bounds = [first]
        if self.mapping.chunked:
            with self.source.connect() as connection:
                while (
                    bound := self._after(connection, bounds[-1], rows or CHUNK_ROWS)
                ) is not None:
                    bounds.append(bound)
        # The last is closed above by a condition of its own: rows that come meanwhile wait.
        return [Chunk(at, end) for at, end in zip(bounds, [*bounds[1:], None], strict=True)]

    def _after(self, connection: Any, first: Any, rows: int) -> Any:
        """Where the chunk that begins at `first` ends; None where what is left is one chunk."""
        along, meaning = self._along, self.mapping.along
        wanted = self._up_to_now()
        if first is not None:
            wanted.append(along >= self.mapping.literal(meaning, first))
        statement = select(along).where(along.is_not(None), *wanted).order_by(along)
        bound = connection.execute(statement.offset(rows).limit(1)).scalar()
        if bound is None or bound != first:
            return bound
        # A whole chunk of one time: what comes after it begins the next.
        later = select(func.min(along)).where(along > self.mapping.literal(meaning, first), *wanted)
        return connection.execute(later).scalar()

    def _look_back(self, mark: Any) -> Any:
        """Where reading begins once more, so that rows which came late are found."""
        if self.mapping.along == "timestamp":
            return self.mapping.time.earlier(mark, self.mapping.look_back_seconds)
        along = self._along
        statement = select(along).where(along <= self.mapping.literal("order", mark))
        statement = statement.order_by(along.desc()).offset(self.mapping.look_back_rows).limit(1)
        with self.source.connect() as connection:
            return connection.execute(statement).scalar()

    def _up_to_now(self) -> list[ColumnElement[bool]]:
        """Keeps times ahead of the clock from becoming the mark, past which nothing would be read."""
        if self.mapping.along != "timestamp":
            return []
        now_us = time.time_ns() // 1_000 + MAX_FUTURE_SECONDS * 1_000_000
        value = self.mapping.time.at(now_us)
        if self.mapping.columns["timestamp"].kind == "text":
            value = str(value)[:10] + "~"  # after all times of that day, however they are written
        return [self._along <= self.mapping.literal("timestamp", value)]

    def possible(self) -> list[ColumnElement[bool]]:
        """What every event has, as far as SQL can say: an item, an owner, a place in the order."""
        mapping, rows = self.mapping, self.table
        owners = [name for name in ("user", "session") if name in mapping.columns]
        found = [
            *mapping.wanted(),
            mapping.holds(rows, "item"),
            or_(*(mapping.holds(rows, name) for name in owners)),
        ]
        if "order" in mapping.columns:
            found.append(mapping.column(rows, "order").is_not(None))
        return found

    def query(self, chunk: Chunk | None = None, since_us: int = 0, newest: int = 0) -> str:
        """The SELECT of a chunk, of all rows since a time, or of the last `newest` along the index;
        without parameters.
        """
        mapping, rows = self.mapping, self.table
        statement: Select[Any] = select(*(mapping.selected(rows, name) for name in self._read))
        conditions = mapping.wanted()
        if chunk is not None:
            if chunk.first is not None:
                conditions.append(self._along >= mapping.literal(mapping.along, chunk.first))
            if chunk.end is not None:
                conditions.append(self._along < mapping.literal(mapping.along, chunk.end))
            else:
                conditions += self._up_to_now()
        if since_us > 0:
            conditions.append(self._since(since_us))
        statement = statement.where(*conditions)
        if newest:  # filtered first, so that rows which are no events crowd nothing out
            bounds = mapping.time_bounds(time.time_ns() // 1_000 + MAX_FUTURE_SECONDS * 1_000_000)
            timely = mapping.timely(rows, bounds)
            statement = statement.where(self._along.is_not(None), *self.possible(), *timely)
            statement = statement.order_by(self._along.desc())
        compiled = str(statement.compile(dialect=self.source.plain_dialect))
        return f"{compiled} LIMIT {int(newest)}" if newest else compiled

    def _since(self, since_us: int) -> ColumnElement[bool]:
        """Keeps out what is surely earlier. Times as text may begin with a blank, and have zones."""
        mapping, moment = self.mapping, self.mapping.column(self.table, "timestamp")
        if mapping.columns["timestamp"].kind == "text":
            day = str(mapping.time.at(max(0, since_us - DAY_US)))[:10]
            return or_(moment >= mapping.literal_text(day), moment < mapping.literal_text("0"))
        return moment >= mapping.literal("timestamp", mapping.time.at(since_us))

    def newest(self, now_us: int, limit: int, hidden: Tombstones | None = None) -> pa.Table:
        """Events of the last `limit` rows, in no order, as `batches` gives them; none where no index
        tells which those are. Kept for NEWEST_SECONDS: pages ask for the same.

        Raises as `batches`.
        """
        if not self.mapping.chunked:
            return POSITIONED_SCHEMA.empty_table()
        with self._newest_lock:
            known = self._newest.get(limit)
            if known is None or known[0] < time.monotonic() - NEWEST_SECONDS:
                found = list(self.batches(now_us, hidden=hidden, newest=limit))
                table = pa.Table.from_batches(found) if found else POSITIONED_SCHEMA.empty_table()
                known = self._newest[limit] = (time.monotonic(), table)
        return known[1]

    def batches(
        self,
        now_us: int,
        chunk: Chunk | None = None,
        since_us: int = 0,
        hidden: Tombstones | None = None,
        tally: Tally | None = None,
        newest: int = 0,
        waited_for: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """The events of a chunk, in no order: EVENT_SCHEMA and `position`, which is the order
        column's value, or 0 where there is none. Those of `hidden`, who were erased, are left out.
        `waited_for`: a request waits, so that the read has a time-out.

        Raises ConfigError where the columns are not what the mapping says, SourceUnavailableError.
        """
        judge, query = RowJudge(self.mapping, now_us), self.query(chunk, since_us, newest)
        for batch in self.source.batches(query, self._read, waited_for or newest > 0):
            judged = judge.judge(batch)
            if tally is not None:
                _count(tally, judged.read, judged.events.num_rows, judged.rejections)
                tally.notes += judged.notes
            events = judged.events
            if since_us > 0:
                events = events.filter(pc.greater_equal(events["timestamp_us"], since_us))
            yield from without_erased(events, hidden).combine_chunks().to_batches()


def without_erased(events: pa.Table, hidden: Tombstones | None) -> pa.Table:
    """The rows that are of nobody in `hidden`, who were erased."""
    return events.filter(pa.array(~_erased(events, hidden))) if hidden else events


def _erased(events: pa.Table, hidden: Tombstones) -> BoolArray:
    """Which rows (n,) are of someone who was erased."""
    found = np.zeros(events.num_rows, np.bool_)
    known = pc.is_valid(events["user_id"]).to_numpy()
    for column, prefix, counts in (("user_id", "u:", known), ("session_id", "s:", ~known)):
        encoded = events[column].combine_chunks().dictionary_encode()
        gone = [hidden.covers(prefix + name) for name in encoded.dictionary.to_pylist()]
        places = encoded.indices.fill_null(len(gone)).to_numpy(zero_copy_only=False)
        found |= np.array([*gone, False], np.bool_)[places] & counts
    return found


def _count(tally: Tally, read: int, kept: int, rejections: list[Any]) -> None:
    tally.read += read
    tally.kept += kept
    for one in rejections:
        kind = reason_kind(one.reason)
        tally.dropped[kind] += 1
        tally.examples.setdefault(kind, one.reason)


def reason_kind(reason: str) -> str:
    """A rejection's reason without the values in it, so that reasons can be counted.

    >>> reason_kind("item_id = 'x\\\\n': holds a control character")
    'item_id: holds a control character'
    >>> reason_kind("timestamp 5 as s is before 1970")
    'timestamp is before 1970'
    """
    field_name, _, rest = reason.partition(" ")
    if rest.startswith("="):
        return f"{field_name}: {rest.rpartition(': ')[2]}"
    for words in (
        "is before 1970",
        "is before 1973",
        "in the future",
        "is in the year",
        "expected",
        "is missing",
    ):
        at = rest.find(words)
        if at >= 0:
            said = (
                "is far in the future"
                if words in ("in the future", "is in the year")
                else rest[at:]
            )
            return f"{field_name} {said}"
    return reason
