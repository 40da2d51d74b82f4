"""An external table at request time: the newest events of one user or session, through an index.

The id that was asked for is turned into the column's type, so that the index is used; one that the
type cannot hold is nobody's. Rows are judged by the judge of those that are read in bulk. What SQL can
say is filtered before the limit; where rows that only the judge leaves out make a page short, more are
read, in bounded steps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, not_, select

from recsys.events.fields import MAX_FUTURE_SECONDS
from recsys.ingest.cells import written_forms
from recsys.storage.engine.short_selects import CompiledSelect
from recsys.storage.entities.history_rows import History, HistoryEvent
from recsys.storage.entities.tombstone_rows import Tombstones
from recsys.storage.external.external_database import ExternalDatabase
from recsys.storage.external.mapping import FORMS
from recsys.storage.external.row_judge import RowJudge, batch_of
from recsys.storage.external.serving_checks import ResolvedMapping, check_serving

MAX_SEEN_EVENTS = 10_000
MAX_READ = 200_000  # rows of one owner that are looked at
STEP = 8  # times as many rows are read where too many of them were left out
JUDGED = (
    "user_id",
    "session_id",
    "item_id",
    "event_type",
    "timestamp_us",
    "event_id",
    "value",
    "position",
)
MAX_STATEMENTS = 64  # kept compiled, by the event types they ask for


class ExternalEvent(NamedTuple):
    """One event of the table."""

    event: HistoryEvent
    place: tuple[int, int, str, str]  # by which events are in order
    value: float | None


@dataclass(frozen=True)
class Asked:
    """Whose events are asked for, and which of them."""

    owner: str  # 'user' or 'session': the column that holds the key
    key: str
    unowned: bool = False  # of a session, those that no user has
    event_types: frozenset[str] | None = None  # None: all
    padded: bool = False  # those whose owner is written otherwise than it is read

    @classmethod
    def of(cls, sequence_key: str) -> Asked:
        """Those of 'u:<user_id>', or of 's:<session_id>' which no user has."""
        is_session = sequence_key.startswith("s:")
        return cls("session" if is_session else "user", sequence_key[2:], is_session)


class ExternalHistory:
    """Short reads of one mapping."""

    def __init__(self, resolved: ResolvedMapping, source: ExternalDatabase) -> None:
        """Raises ConfigError where the newest events of a user are not found through an index."""
        self._resolved, self._source = resolved, source
        self._mapping = resolved.mapping
        self._columns = self._mapping.read_columns
        self._statements: dict[Asked, CompiledSelect] = {}
        check_serving(resolved, source)

    def newest(self, asked: Asked, limit: int, hidden: Tombstones) -> History:
        """The newest `limit` events of `asked`. Raises SourceUnavailableError."""
        rows, whole = self._newest(asked, limit, hidden)
        return History([row.event for row in rows], whole)

    def latest(self, asked: Sequence[Asked], limit: int, hidden: Tombstones) -> list[ExternalEvent]:
        """The newest `limit` events of all that are asked for, newest first."""
        found: list[ExternalEvent] = []
        for one in asked:
            found += self._newest(one, limit, hidden, hot=False)[0]
        found.sort(key=lambda row: row.place, reverse=True)
        return found[:limit]

    def seen_items(self, asked: Asked, hidden: Tombstones) -> set[str]:
        """Items of the newest events of `asked`."""
        rows, _ = self._newest(asked, MAX_SEEN_EVENTS, hidden)
        return {row.event.item_id for row in rows}

    def all_events(self, asked: Sequence[Asked], hidden: Tombstones) -> list[HistoryEvent]:
        """All events, of the newest MAX_READ rows of each that is asked for."""
        return [
            row.event for one in asked for row in self._newest(one, MAX_READ, hidden, hot=False)[0]
        ]

    def has(self, owner: str) -> bool:
        """Whether events of a 'user' or 'session' can be asked for."""
        if owner not in self._columns:
            return False
        return not self._resolved.is_table or self._resolved.has_index(owner, "timestamp")

    def _newest(
        self, asked: Asked, limit: int, hidden: Tombstones, hot: bool = True
    ) -> tuple[list[ExternalEvent], bool]:
        """The newest `limit` events, oldest first, and whether there are surely no older ones.

        `hot`: for an answer, whose time-outs make all answers leave the table alone for a while.
        """
        known = self.has(asked.owner) and not hidden.covers(f"{asked.owner[0]}:{asked.key}")
        key = self._mapping.key(asked.owner, asked.key) if known else None
        if key is None:
            return [], True
        events, whole = self._found(asked, key, limit, hidden, hot)
        if self._mapping.may_be_padded(asked.owner):
            asked = replace(asked, padded=True)
            others, all_others = self._found(asked, key, limit, hidden, hot)
            events, whole = [*events, *others], whole and all_others
            events.sort(key=lambda one: one.place)
        return events[-limit:], whole and len(events) <= limit

    def _found(
        self, asked: Asked, key: object, limit: int, hidden: Tombstones, hot: bool
    ) -> tuple[list[ExternalEvent], bool]:
        """The same of one way in which owners are written; `key`: the owner's, of the column's type."""
        statement = self._statement(asked)
        values = {"owner": key, **self._mapping.time_bounds(_latest_us())}
        if asked.padded:
            forms = written_forms(asked.key)
            forms += forms[:1] * (FORMS - len(forms))
            values |= {f"form_{number}": form for number, form in enumerate(forms)}
        # One row more than is asked for tells whether there are older ones.
        rows, most = limit + 1, max(limit + 1, min(limit * STEP**2, MAX_READ))
        while True:
            with self._source.read() if hot else self._source.connect(counting=True) as connection:
                found = statement(connection, row_limit=rows, **values)
            events = self._judged(found, asked, hidden)
            whole = len(found) < rows
            if whole or len(events) >= limit or rows >= most:
                kept = events[-limit:]
                return kept, whole and len(kept) == len(events)
            rows = min(rows * STEP, most)

    def _judged(
        self, rows: Sequence[tuple[Any, ...]], asked: Asked, hidden: Tombstones
    ) -> list[ExternalEvent]:
        """The events of `asked` among rows, oldest first."""
        judge = RowJudge(self._mapping, time.time_ns() // 1_000)
        table = judge.judge(batch_of(rows, self._columns)).events
        ordered = "order" in self._columns
        owner = JUDGED.index(f"{asked.owner}_id")
        found = []
        for row in zip(*(table[name].to_pylist() for name in JUDGED), strict=True):
            user, session, item, event_type, us, event_id, value, position = row
            # A collation may take one id or type for another; a training does not.
            if row[owner] != asked.key or (asked.unowned and user is not None):
                continue
            if asked.event_types is not None and event_type not in asked.event_types:
                continue
            if user is not None and hidden.covers(f"u:{user}"):
                continue
            event_id = event_id or (str(position) if ordered else f"{us}-{item}")
            event = HistoryEvent(item, event_type, us, session, event_id, user)
            found.append(ExternalEvent(event, (us, position, item, event_type), value))
        found.sort(key=lambda one: one.place)
        return found

    def _statement(self, asked: Asked) -> CompiledSelect:
        """Built once for what is asked again and again; whose events is a parameter."""
        shape = replace(asked, key="", unowned=asked.unowned and "user" in self._columns)
        known = self._statements.get(shape)
        if known is None:
            if len(self._statements) >= MAX_STATEMENTS:  # event types may come with a request
                self._statements.clear()
            known = self._statements[shape] = CompiledSelect(self._select(shape))
        return known

    def _select(self, shape: Asked) -> Select[Any]:
        mapping, source = self._mapping, self._mapping.source()
        statement = select(*(mapping.selected(source, name) for name in self._columns))
        owned = mapping.padded if shape.padded else mapping.equals
        statement = statement.where(
            owned(source, shape.owner, bindparam("owner")),
            *mapping.wanted(),
            *mapping.timely(source),
            *mapping.typed(source, shape.event_types),
        )
        if shape.unowned:
            statement = statement.where(not_(mapping.holds(source, "user")))
        statement = statement.order_by(mapping.column(source, "timestamp").desc())
        if "order" in mapping.columns:
            statement = statement.order_by(mapping.column(source, "order").desc())
        return statement.limit(bindparam("row_limit"))


def _latest_us() -> int:
    return time.time_ns() // 1_000 + MAX_FUTURE_SECONDS * 1_000_000
