"""An external table at request time: the newest events of one user or session, through an index.

The id that was asked for is turned into the column's type, so that the index is used; one that the
type cannot hold is nobody's. Values come back as the driver gives them and become the same texts and
times that a training reads.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, FromClause, Select, bindparam, func, null, or_, select

from recsys.errors import InputError
from recsys.events.fields import MAX_FUTURE_SECONDS
from recsys.storage.engine.short_selects import CompiledSelect
from recsys.storage.entities.history_rows import History, HistoryEvent
from recsys.storage.entities.tombstone_rows import Tombstones
from recsys.storage.external.external_database import ExternalDatabase
from recsys.storage.external.serving_checks import ResolvedMapping, check_serving
from recsys.text_rules import FORBIDDEN_CHARACTERS

READ = ("user", "session", "item", "event_type", "timestamp", "order", "event_id", "value")
MAX_SEEN_EVENTS = 10_000
MAX_SKIPPED = 100_000  # events before a page


class ExternalEvent(NamedTuple):
    """One event of the table."""

    user_id: str | None
    event: HistoryEvent
    place: tuple[int, int, str, str]  # by which events are in order
    value: float | None


@dataclass(frozen=True)
class EventSpan:
    """How many events an external table holds of one user, and from when to when."""

    events: int
    first_us: int | None
    last_us: int | None


class ExternalHistory:
    """Short reads of one mapping."""

    def __init__(self, resolved: ResolvedMapping, source: ExternalDatabase) -> None:
        """Raises ConfigError where the newest events of a user are not found through an index."""
        self._resolved, self._source = resolved, source
        self._mapping = resolved.mapping
        self._columns = [name for name in READ if name in self._mapping.columns]
        check_serving(resolved, source)

    def newest(
        self, owner: str, key: str, limit: int, hidden: Tombstones, *, unowned: bool = False
    ) -> History:
        """The newest `limit` events of `key` in the column that means `owner` ('user', 'session').

        `unowned`: of a session, those that no user has. Raises SourceUnavailableError, or where
        sessions have no index SessionIndexError.
        """
        rows, whole = self._newest(owner, key, limit, hidden, unowned)
        return History([row.event for row in rows], whole)

    def page(
        self, keys: Sequence[str], limit: int, before: int | None, hidden: Tombstones
    ) -> tuple[list[ExternalEvent], int | None]:
        """A page of events, newest first, of 'u:<user_id>' and 's:<session_id>'; what the next page
        is asked by. `before` is the number of events that came before.
        """
        skipped = before or 0
        if skipped > MAX_SKIPPED:
            raise InputError("cursor", skipped, f"expected a page among the first {MAX_SKIPPED:,}")
        found: list[ExternalEvent] = []
        for key in keys:
            owner = "session" if key.startswith("s:") else "user"
            wanted = skipped + limit + 1
            rows, _ = self._newest(owner, key[2:], wanted, hidden, owner == "session", hot=False)
            found += rows
        found.sort(key=lambda row: row.place, reverse=True)
        page = found[skipped : skipped + limit]
        return page, skipped + limit if len(found) > skipped + limit else None

    def seen_items(
        self, owner: str, key: str, types: Collection[str] | None, hidden: Tombstones
    ) -> set[str]:
        """Items of the newest events of these types (None: all)."""
        rows, _ = self._newest(owner, key, MAX_SEEN_EVENTS, hidden, False)
        return {row.event.item_id for row in rows if types is None or row.event.event_type in types}

    def span(self, keys: Sequence[str], hidden: Tombstones) -> EventSpan:
        """How many events there are of 'u:<user_id>' and 's:<session_id>', and from when to when."""
        events, times = 0, []
        for key in keys:
            owner = "session" if key.startswith("s:") else "user"
            if hidden.covers(key) or (asked := self._key(owner, key[2:])) is None:
                continue
            with self._source.connect(counting=True) as connection:
                row = self._spans[owner](connection, owner=asked)[0]
            events += int(row[0])
            times += [us for us in map(self._mapping.micros, row[1:]) if us is not None]
        return EventSpan(events, min(times, default=None), max(times, default=None))

    def popular(self, since_us: int, until_us: int | None, limit: int) -> list[tuple[str, int]]:
        """(item id, events) with most events in [since_us, until_us), most first.

        Nothing where no index leads with the time: a request is not to wait for the whole table.
        """
        mapping, source = self._mapping, self._mapping.source()
        moment = mapping.column(source, "timestamp")
        if mapping.columns["timestamp"].kind == "text" or not self._has_time_index:
            return []
        item, times = mapping.column(source, "item"), func.count()
        wanted = [*mapping.wanted(), moment >= mapping.literal("timestamp", mapping.at(since_us))]
        if until_us is not None:
            wanted.append(moment < mapping.literal("timestamp", mapping.at(until_us)))
        statement = select(item, times).where(*wanted).group_by(item)
        with self._source.connect(counting=True) as connection:
            rows = connection.execute(statement.order_by(times.desc(), item).limit(limit)).all()
        counts = [(mapping.id_text("item", row[0]), int(row[1])) for row in rows]
        return [(item_id, number) for item_id, number in counts if item_id is not None]

    @cached_property
    def _has_time_index(self) -> bool:
        return not self._resolved.is_table or self._resolved.has_index("timestamp")

    def has(self, owner: str) -> bool:
        """Whether events of a 'user' or 'session' can be asked for."""
        if owner not in self._mapping.columns:
            return False
        return not self._resolved.is_table or self._resolved.has_index(owner, "timestamp")

    def _key(self, owner: str, key: str) -> object | None:
        return self._mapping.key(owner, key) if self.has(owner) else None

    def _newest(
        self,
        owner: str,
        key: str,
        limit: int,
        hidden: Tombstones,
        unowned: bool,
        hot: bool = True,
    ) -> tuple[list[ExternalEvent], bool]:
        """`hot`: for an answer, whose time-outs make all answers leave the table alone for a while."""
        asked = self._key(owner, key)
        if asked is None or hidden.covers(f"{owner[0]}:{key}"):
            return [], True
        statement = self._statements[owner, unowned and "user" in self._mapping.columns]
        with self._source.read() if hot else self._source.connect(counting=True) as connection:
            found = statement(connection, owner=asked, row_limit=limit)
        latest_us = time.time_ns() // 1_000 + MAX_FUTURE_SECONDS * 1_000_000
        rows = []
        for values in found:
            row = self._row(values)
            # A collation may take one id for another; a training does not.
            same = row is not None and key == (
                row.event.session_id if owner == "session" else row.user_id
            )
            if row is None or not same or row.event.timestamp_us > latest_us:
                continue
            if row.user_id is not None and hidden.covers(f"u:{row.user_id}"):
                continue
            rows.append(row)
        rows.sort(key=lambda row: row.place)
        return rows, len(found) < limit

    def _row(self, values: tuple[Any, ...]) -> ExternalEvent | None:
        """A row as an event; None where a training would leave it out."""
        mapping, given = self._mapping, dict(zip(self._columns, values, strict=True))
        user, session, item, event_type, event_id = (
            mapping.id_text(name, given[name]) if given.get(name) is not None else None
            for name in ("user", "session", "item", "event_type", "event_id")
        )
        us = mapping.micros(given["timestamp"])
        if item is None or FORBIDDEN_CHARACTERS.search(item) or us is None or us < 0:
            return None
        order = int(given.get("order") or 0)
        event_type = event_type or mapping.default_type
        if event_id is None:
            event_id = str(order) if "order" in given else f"{us}-{item}"
        event = HistoryEvent(item, event_type, us, session, event_id)
        value = given.get("value")
        return ExternalEvent(
            user, event, (us, order, item, event_type), None if value is None else float(value)
        )

    @cached_property
    def _statements(self) -> dict[tuple[str, bool], CompiledSelect]:
        """Built once, by whose events are asked for and whether only those that no user has."""
        owners = [name for name in ("user", "session") if name in self._mapping.columns]
        return {
            (owner, unowned): CompiledSelect(self._select(owner, unowned))
            for owner in owners
            for unowned in (False, True)
        }

    def _select(self, owner: str, unowned: bool) -> Select[Any]:
        mapping, source = self._mapping, self._mapping.source()
        statement = select(*(mapping.column(source, name) for name in self._columns))
        statement = statement.where(*self._owned(source, owner, unowned))
        statement = statement.order_by(mapping.column(source, "timestamp").desc())
        if "order" in mapping.columns:
            statement = statement.order_by(mapping.column(source, "order").desc())
        return statement.limit(bindparam("row_limit"))

    @cached_property
    def _spans(self) -> dict[str, CompiledSelect]:
        mapping, source = self._mapping, self._mapping.source()
        moment = mapping.column(source, "timestamp")
        counted: list[ColumnElement[Any]] = [func.count(), func.min(moment), func.max(moment)]
        return {
            owner: CompiledSelect(
                select(*counted).where(*self._owned(source, owner, owner == "session"))
            )
            for owner in ("user", "session")
            if owner in mapping.columns
        }

    def _owned(self, source: FromClause, owner: str, unowned: bool) -> list[ColumnElement[bool]]:
        mapping = self._mapping
        wanted = [mapping.column(source, owner) == bindparam("owner"), *mapping.wanted()]
        if unowned and owner == "session" and "user" in mapping.columns:
            user = mapping.column(source, "user")
            nobody = user == "" if mapping.columns["user"].kind == "text" else null()
            wanted.append(or_(user.is_(None), nobody))
        return wanted
