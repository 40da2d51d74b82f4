"""An external table as it grows: what has come since the last look, for those who follow it.

It is read along its order, or its time where there is none. The newest rows are read once more each time,
for rows that were committed late under lower numbers: as many as came within LOOK_BACK_US, at least
LEAST_ROWS and at most MOST_ROWS. A row is known again by its order, or by all that it says. Rows are
judged by the judge of those that are read in bulk.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sqlalchemy import ColumnElement, Select, bindparam, literal_column, select

from recsys.errors import ConfigError
from recsys.events.array_types import UInt64Array
from recsys.events.identity import hash_texts, mixed, sequence_key
from recsys.storage.engine.short_selects import CompiledSelect
from recsys.storage.entities.live_events import (
    ROWS,
    LiveBatch,
    LiveRow,
    OwnFollower,
    current_owners,
)
from recsys.storage.external.external_database import ExternalDatabase
from recsys.storage.external.mapping import Mapping
from recsys.storage.external.row_judge import RowJudge, batch_of

if TYPE_CHECKING:
    from recsys.storage.external.external_events import ExternalEvents

LOOK_BACK_US = 10_000_000
LEAST_ROWS, MOST_ROWS = 100, 1_000
FIRST_BLOCK = 10_000  # rows of the first look back from the end
FRESH_IDS = 10_000  # of events, kept apart before they are sorted in
READ = ("user_id", "session_id", "item_id", "event_type", "timestamp_us", "event_id")


class _Read(NamedTuple):
    """A row that was read."""

    value: Any  # of the column that the table is read along
    identity: Hashable
    read_us: int


class ExternalFollower:
    """Follows the table of `events`."""

    def __init__(
        self, events: ExternalEvents, since_us: int, capacity: int, rows: int = ROWS
    ) -> None:
        """Events after `since_us`, of the newest `capacity` rows there are already; `rows` of a read,
        more than MOST_ROWS. It has a connection of its own, so that no request waits where it is slow.

        Raises ConfigError where the table is not what the settings say, or cannot be followed,
        SourceUnavailableError.
        """
        resolved = events.resolved()
        mapping = self._mapping = resolved.mapping
        if not mapping.chunked:
            problem = "the table is not followed without an index along its order or time"
            raise ConfigError(f"events.{mapping.along}_column", _along_name(mapping), problem)
        if mapping.columns[mapping.along].kind == "date":
            problem = "a date does not tell what is new; expected events.order_column"
            raise ConfigError("events.timestamp_column", _along_name(mapping), problem)
        self._events, self._since_us, self._capacity = events, since_us, capacity
        self._rows = rows
        self._source = ExternalDatabase(mapping.url, mapping.timeout_seconds, 1)
        self._columns = mapping.read_columns
        self._table = mapping.source()
        self._along: ColumnElement[Any] = mapping.column(self._table, mapping.along)
        self._everything = CompiledSelect(self._select())
        self._from = CompiledSelect(self._select(self._along >= bindparam("first")))
        self._above = CompiledSelect(self._select(self._along > bindparam("first")))
        self._begun = False
        self._mark: Any = None  # from where on it is read next; None: from the beginning
        self._past_mark = False  # whether what stands at the mark is left out
        self._recent: list[_Read] = []  # the rows from the mark on that were read, in order

    @property
    def bytes(self) -> int:
        return 300 * len(self._recent)

    def read(self, now_us: int) -> LiveBatch:
        return LiveBatch.of(*self.rows(now_us))

    def rows(self, now_us: int) -> tuple[list[LiveRow], bool]:
        """As `read`: the rows, and whether there may be more."""
        if not self._begun:
            self._mark, self._begun = self._start(now_us), True
        statement = self._above if self._past_mark else self._from
        given = self._bounds(now_us)
        with self._source.read() as connection:
            if self._mark is None:
                found = self._everything(connection, **given)
            else:
                found = statement(connection, first=self._mark, **given)
        known: dict[Hashable, list[_Read]] = {}
        for one in reversed(self._recent):
            known.setdefault(one.identity, []).append(one)
        fresh, recent = [], []
        for row in found:
            identity = self._identity(row)
            if before := known.get(identity):
                recent.append(before.pop())
            else:
                fresh.append(row[1:])
                recent.append(_Read(row[0], identity, now_us))
        rows = self._judged(fresh, now_us)
        full = len(found) >= self._rows
        # Where not all was read, what lies beyond is still known.
        beyond = [one for ones in known.values() for one in ones] if full else []
        self._move_on(recent, beyond, now_us, full, bool(fresh))
        return rows, full

    def _identity(self, row: tuple[Any, ...]) -> Hashable:
        return row[0] if self._mapping.along == "order" else row

    def _move_on(
        self, read: list[_Read], beyond: list[_Read], now_us: int, full: bool, any_fresh: bool
    ) -> None:
        """Choose from where on the rows that were `read` are read once more."""
        if not read:
            return
        if full and not any_fresh:  # more rows stand at one value than are read at once
            self._mark, self._past_mark, self._recent = read[-1].value, True, beyond
            return
        dropped = len(read) - (1 if full else MOST_ROWS)
        old = 0
        while old < len(read) - LEAST_ROWS and now_us - read[old].read_us > LOOK_BACK_US:
            old += 1
        dropped = max(dropped, old, 0)
        # Rows of one value go or stay together: they are read together.
        while dropped > 0 and read[dropped - 1].value == read[dropped].value:
            dropped -= 1
        self._recent = [*read[dropped:], *beyond]
        self._mark, self._past_mark = read[dropped].value, False

    def _judged(self, rows: Sequence[tuple[Any, ...]], now_us: int) -> list[LiveRow]:
        if not rows:
            return []
        judge = RowJudge(self._mapping, now_us)
        table = judge.judge(batch_of(rows, self._columns)).events
        found = list(zip(*(table[name].to_pylist() for name in READ), strict=True))
        posted = [sequence_key(user, session) for user, session, *_ in found]
        with self._events.database.read() as connection:
            hidden = self._events.hidden(connection)
            owners = current_owners(connection, set(posted))
        return [
            LiveRow(owners.get(key, key), item, event_type, us, session, key, event_id)
            for key, (_, session, item, event_type, us, event_id) in zip(posted, found, strict=True)
            if us > self._since_us and not hidden.covers(key)
        ]

    def _select(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        mapping = self._mapping
        selected = [mapping.selected(self._table, name) for name in self._columns]
        inside = [self._along.is_not(None), *conditions, *mapping.wanted()]
        if mapping.along == "timestamp":
            inside.append(self._along <= bindparam("latest"))
        statement = select(self._along.label("along"), *selected).where(*inside)
        return statement.order_by(self._along).limit(literal_column(str(self._rows)))

    def _bounds(self, now_us: int) -> dict[str, Any]:
        """Keeps times ahead of the clock from becoming the mark: they are read once they have come."""
        if self._mapping.along == "order":
            return {}
        return {"latest": self._at(now_us, "~")}

    def _at(self, us: int, more: str = "") -> Any:
        """A time as the column's value; of text, whose form is not known, its day and `more`."""
        value = self._mapping.time.at(max(us, 0))
        is_text = self._mapping.columns["timestamp"].kind == "text"
        return str(value)[:10] + more if is_text else value

    def _start(self, now_us: int) -> Any:
        """Where reading begins, by the column that it is read along; None: at the beginning."""
        mapping = self._mapping
        wanted = [self._along.is_not(None), *mapping.wanted()]
        if mapping.along == "timestamp":
            first, last = self._at(self._since_us), self._at(now_us, "~")
            wanted.append(self._along >= mapping.literal("timestamp", first))
            wanted.append(self._along <= mapping.literal("timestamp", last))
            newest = select(self._along).where(*wanted).order_by(self._along.desc())
            with self._source.connect() as connection:
                before = connection.execute(newest.offset(self._capacity).limit(1)).scalar()
            return first if before is None else before
        moment = mapping.column(self._table, "timestamp")
        newest = select(self._along, moment).where(*wanted).order_by(self._along.desc())
        mark, skipped, block = None, 0, FIRST_BLOCK
        with self._source.connect() as connection:
            # Back from the end, until a whole block is older.
            while skipped < self._capacity:
                size = min(block, self._capacity - skipped)
                rows = connection.execute(newest.offset(skipped).limit(size)).all()
                if not rows:
                    break
                times = [mapping.time.micros(row[1]) or 0 for row in rows]
                older = max(times) <= self._since_us
                mark = rows[min(LEAST_ROWS, len(rows) - 1) if older else -1][0]
                if older:
                    break
                skipped, block = skipped + len(rows), 2 * block
        return mark

    def close(self) -> None:
        self._source.close()


class CombinedFollower:
    """Follows both tables; an event that is in both counts once, by its owner and id."""

    def __init__(self, own: OwnFollower, external: ExternalFollower, capacity: int) -> None:
        """`capacity`: events whose ids are remembered, at least."""
        self._own, self._external, self._capacity = own, external, capacity
        self._waiting: list[LiveRow] = []  # read of the external table, not returned yet
        self._more = False
        self._fresh: set[int] = set()  # ids of the events read last,
        self._known = np.empty(0, np.uint64)  # of those before, ascending,
        self._older = np.empty(0, np.uint64)  # and of those before them

    @property
    def bytes(self) -> int:
        ids = self._known.nbytes + self._older.nbytes + 100 * len(self._fresh)
        return self._own.bytes + self._external.bytes + ids

    def read(self, now_us: int) -> LiveBatch:
        if not self._waiting:
            self._waiting, self._more = self._external.rows(now_us)
        own, more = self._own.rows(now_us)  # where that is away, the others wait
        rows = self._unseen([*self._waiting, *own])
        self._waiting = []
        return LiveBatch.of(rows, more or self._more)

    def _unseen(self, rows: Sequence[LiveRow]) -> list[LiveRow]:
        found = []
        for row, number in zip(rows, _numbers(rows).tolist(), strict=True):
            if row.event_id is not None:
                if number in self._fresh or any(
                    _holds(numbers, number) for numbers in (self._known, self._older)
                ):
                    continue
                self._fresh.add(number)
            found.append(row)
        if len(self._fresh) > FRESH_IDS:
            fresh = np.fromiter(self._fresh, np.uint64, len(self._fresh))
            self._known, self._fresh = np.union1d(self._known, fresh), set()
            if len(self._known) > self._capacity:
                self._known, self._older = np.empty(0, np.uint64), self._known
        return found

    def close(self) -> None:
        self._external.close()


def _holds(ascending: UInt64Array, number: int) -> bool:
    place = np.searchsorted(ascending, np.uint64(number))
    return bool(place < len(ascending) and ascending[place] == np.uint64(number))


def _numbers(rows: Sequence[LiveRow]) -> UInt64Array:
    """What tells events apart: of its owner, when it was stored, and its id; (n,)."""
    owners = hash_texts([row.posted_by for row in rows])
    return mixed(owners, hash_texts([row.event_id or "" for row in rows]))


def _along_name(mapping: Mapping) -> str:
    return mapping.columns[mapping.along].name
