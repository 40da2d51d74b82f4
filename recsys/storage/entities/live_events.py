"""The event log as it grows: what has come since the last look, for those who follow it.

Rows are read along their ids. On PostgreSQL a row may appear below ids that were read already, for ids
are given out before their transactions commit. So ids that are missing below the largest one are
remembered and looked for again: until every transaction that ran when they were missed has ended
(by its number, `pg_snapshot_xmin`), and GRACE_US more, for one that waited for another to write. SQLite
has one writer at a time, and no such ids.

Legend: n events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    true,
)

from recsys.events.array_types import BoolArray, Int64Array, UInt64Array
from recsys.events.identity import hash_texts
from recsys.storage.engine.database import Database
from recsys.storage.engine.short_selects import CompiledSelect
from recsys.storage.schema.tables import aliases, events

ROWS = 5_000  # of a read
KEYS = 500  # a statement
GRACE_US = 10_000_000
MAX_GAPS = 1_000  # ranges of missing ids that are looked for again, the newest
LATE_IDS = 50_000  # below the first new row, among which rows may be on their way at the start


class LiveRow(NamedTuple):
    """An event as it was read."""

    owner: str  # whose it is now: 'u:<user_id>' or 's:<session_id>'
    item_id: str
    event_type: str
    timestamp_us: int
    session_id: str | None
    posted_by: str  # whose it was when it was stored
    event_id: str | None


@dataclass(frozen=True)
class LiveBatch:
    """Events in the order in which they arrived."""

    owners: list[str]  # keys of their sequences, merged ids counting as the user
    item_ids: list[str]
    event_types: list[str]
    times_us: Int64Array  # (n,)
    session_ids: list[str | None]
    more: bool  # whether there may be more to read now

    def __len__(self) -> int:
        return len(self.item_ids)

    @classmethod
    def of(cls, rows: Sequence[LiveRow], more: bool) -> LiveBatch:
        """The batch of `rows`."""
        return cls(
            [row.owner for row in rows],
            [row.item_id for row in rows],
            [row.event_type for row in rows],
            np.array([row.timestamp_us for row in rows], np.int64),
            [row.session_id for row in rows],
            more,
        )

    @property
    def owner_hashes(self) -> UInt64Array:
        """(n,)"""
        return _hashes(self.owners)

    @property
    def session_hashes(self) -> UInt64Array:
        """(n,) of the session ids, 0 = none."""
        return _hashes(self.session_ids)

    @property
    def of_users(self) -> BoolArray:
        """(n,) whether the owner is a user, not a session."""
        return np.array([owner.startswith("u:") for owner in self.owners], np.bool_)

    def chosen(self, kept: BoolArray) -> LiveBatch:
        """The events of which `kept` (n,) is true."""
        if kept.all():
            return self
        places = np.flatnonzero(kept).tolist()
        return replace(
            self,
            owners=[self.owners[place] for place in places],
            item_ids=[self.item_ids[place] for place in places],
            event_types=[self.event_types[place] for place in places],
            times_us=self.times_us[kept],
            session_ids=[self.session_ids[place] for place in places],
        )


def _hashes(texts: Sequence[str | None]) -> UInt64Array:
    """`hash_texts` of texts (n,), None becoming 0. Without pyarrow, which loads pandas."""
    named = list(dict.fromkeys(text for text in texts if text is not None))
    numbers: dict[str | None, int] = dict(zip(named, hash_texts(named).tolist(), strict=True))
    numbers[None] = 0
    return np.fromiter((numbers[text] for text in texts), np.uint64, len(texts))


class EventFollower(Protocol):
    """Reads a log from some event on; each event once. Of one thread at a time."""

    def read(self, now_us: int) -> LiveBatch:
        """What came since the last call, ROWS events or so at most.

        Raises StorageUnavailableError; what was not returned then comes with the next call.
        """

    @property
    def bytes(self) -> int:
        """What is remembered of the log, about."""

    def close(self) -> None:
        """Close the connections it holds."""


@dataclass(frozen=True, slots=True)
class _Gap:
    """Ids first..last, of which no row was there."""

    first: int
    last: int
    mark: int | None = None  # every transaction that may write them has a smaller number
    settled_us: int | None = None  # since when none of those runs any more


class OwnFollower:
    """Follows the `events` table."""

    def __init__(self, database: Database, since_us: int, capacity: int, rows: int = ROWS) -> None:
        """Events after `since_us`, of those there are already the newest `capacity` at most; `rows`
        of a read. Nothing is read yet.
        """
        self._database, self._since_us, self._capacity = database, since_us, capacity
        self._rows = rows
        self._newest = CompiledSelect(_rows_of(events.c.id > bindparam("last"), rows))
        self._late = CompiledSelect(_rows_in_gaps(rows))
        self._last: int | None = None  # the largest id that was read
        self._gaps: list[_Gap] = []  # ascending

    @property
    def bytes(self) -> int:
        return 200 * len(self._gaps)

    def read(self, now_us: int) -> LiveBatch:
        return LiveBatch.of(*self.rows(now_us))

    def rows(self, now_us: int) -> tuple[list[LiveRow], bool]:
        """As `read`: the rows, and whether there may be more."""
        with self._database.read() as connection:
            last = self._start(connection) if self._last is None else self._last
            waits = connection.dialect.name == "postgresql"
            gaps = self._settled(connection, now_us) if waits else []
            fresh = self._newest(connection, last=last)
            late: list[tuple[Any, ...]] = []
            if gaps:  # after the newest: so an event follows the one before it
                firsts, lasts = [gap.first for gap in gaps], [gap.last for gap in gaps]
                late = sorted(self._late(connection, firsts=firsts, lasts=lasts))
        gaps = [one for gap in gaps for one in _rest(gap, late) if not _is_over(one, now_us)]
        if waits and fresh:
            gaps += _rest(_Gap(last + 1, fresh[-1][0]), fresh)
        self._gaps = gaps[-MAX_GAPS:]
        self._last = fresh[-1][0] if fresh else last
        found = [LiveRow(*row[1:]) for row in (*late, *fresh)]
        newer = [row for row in found if row.timestamp_us > self._since_us]
        return newer, max(len(fresh), len(late)) >= self._rows

    def _start(self, connection: Connection) -> int:
        """The id after which reading begins."""
        last = connection.execute(_LAST).scalar() or 0
        bounds = {"capacity": self._capacity, "since_us": self._since_us}
        before = connection.execute(_BEFORE, bounds).scalar() or 0
        if self._since_us <= 0:
            return int(before)
        first = connection.execute(_FIRST, {**bounds, "before": before}).scalar()
        start = last if first is None else first - 1
        if connection.dialect.name == "postgresql":
            start -= LATE_IDS
        return max(int(start), int(before))

    def _settled(self, connection: Connection, now_us: int) -> list[_Gap]:
        """The gaps, by what is known of transactions before anything else is read."""
        lowest, following = _HORIZON(connection)[0]
        return [
            replace(gap, mark=following)
            if gap.mark is None
            else replace(gap, settled_us=now_us)
            if gap.settled_us is None and lowest >= gap.mark
            else gap
            for gap in self._gaps
        ]

    def close(self) -> None:
        """It holds none of its own."""


def current_owners(connection: Connection, keys: Collection[str]) -> dict[str, str]:
    """Whose each of `keys` is now that was merged: 'u:<user_id>'."""
    found: dict[str, str] = {}
    names = list(keys)
    for at in range(0, len(names), KEYS):
        merged = aliases.c.alias_key.in_(names[at : at + KEYS])
        for row in connection.execute(select(aliases.c.alias_key, aliases.c.user_id).where(merged)):
            found[row.alias_key] = f"u:{row.user_id}"
    return found


def _rest(gap: _Gap, rows: Iterable[tuple[Any, ...]]) -> list[_Gap]:
    """What is left of a gap without the ids of `rows`, which ascend."""
    found, first = [], gap.first
    for row in rows:
        if gap.first <= row[0] <= gap.last:
            if row[0] > first:
                found.append(replace(gap, first=first, last=row[0] - 1))
            first = row[0] + 1
    if first <= gap.last:
        found.append(replace(gap, first=first))
    return found


def _is_over(gap: _Gap, now_us: int) -> bool:
    return gap.settled_us is not None and now_us - gap.settled_us >= GRACE_US


def _rows_of(condition: ColumnElement[bool], rows: int) -> Select[Any]:
    """(id, then what LiveRow holds) of the events under `condition`, by id, the first `rows`.

    Whose a sequence is now is looked up a row, whatever the planner thinks of joins.
    """
    stored, user = events.c, literal_column("'u:'").op("||")
    key = func.coalesce(user(stored.user_id), literal_column("'s:'").op("||")(stored.session_id))
    merged = select(user(aliases.c.user_id)).where(aliases.c.alias_key == key).scalar_subquery()
    columns = (stored.item_id, stored.event_type, stored.timestamp_us, stored.session_id)
    found = select(
        stored.id,
        func.coalesce(merged, key).label("owner"),
        *columns,
        key.label("posted_by"),
        stored.event_id,
    )
    return found.where(condition).order_by(stored.id).limit(literal_column(str(rows)))


# PostgreSQL: ranges of ids.
_RANGES = (
    func.unnest(
        cast(bindparam("firsts"), ARRAY(BigInteger)), cast(bindparam("lasts"), ARRAY(BigInteger))
    )
    .table_valued("first", "last", name="gap")
    .render_derived()
)


def _rows_in_gaps(rows: int) -> Select[Any]:
    inside = _rows_of(events.c.id.between(_RANGES.c.first, _RANGES.c.last), rows).lateral("late")
    found = select(inside).select_from(_RANGES.join(inside, true()))
    return found.limit(literal_column(str(rows)))


_LAST = select(func.max(events.c.id))
_BEFORE = select(events.c.id).order_by(events.c.id.desc()).offset(bindparam("capacity")).limit(1)
# Not by the key alone: the first id is sought among the new rows, not from the table's beginning on.
_FIRST = select(func.min(events.c.id + 0)).where(
    events.c.id > bindparam("before"), events.c.timestamp_us > bindparam("since_us")
)
_RUNNING: ColumnElement[Any] = literal_column(
    "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
)
_FOLLOWING: ColumnElement[Any] = literal_column(
    "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
)
_HORIZON = CompiledSelect(select(_RUNNING, _FOLLOWING))
