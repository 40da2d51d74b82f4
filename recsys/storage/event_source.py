"""Where events come from: the service's own table, or one of the user's that `[events]` names.

One way in for all who read events of a user: the newest at request time, counts, pages. With
`events.accept_posts` both tables are read, and an event that is in both counts once, by its id.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from recsys.config import Settings
from recsys.errors import ConflictError, SourceUnavailableError
from recsys.events.fields import EVENT_COLUMNS
from recsys.storage.engine.database import Database
from recsys.storage.engine.replica import Replica
from recsys.storage.entities import event_rows, user_rows
from recsys.storage.entities.event_rows import History, HistoryEvent
from recsys.storage.entities.stamps import read_stamps
from recsys.storage.entities.user_rows import Tombstones, UserSummary
from recsys.storage.external.external_database import ExternalDatabase
from recsys.storage.external.external_history import ExternalHistory
from recsys.storage.external.external_rows import ExternalRows
from recsys.storage.external.readiness import Reflection
from recsys.storage.external.reflection import reflect
from recsys.storage.schema.tables import item_categories

MOST_COUNTED = 20_000  # items of a mapped table among which those of a category are looked for


@dataclass(frozen=True)
class _Mapped:
    """What is made at the first need: the mapping, held against its table."""

    reflection: Reflection
    rows: ExternalRows


class EventSource:
    """The log of events. Nothing connects at construction."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Raises ConfigError where `events.url` is no address, MissingExtraError."""
        self._settings, self._database = settings, database
        self._lock = threading.Lock()
        self._mapped: _Mapped | None = None
        self._history: ExternalHistory | None = None
        self._hidden: tuple[int, Tombstones] | None = None
        chosen = settings.events
        self.replica: Replica | None = None
        if settings.database.replica_url.get_secret_value():
            self.replica = Replica(settings.database, settings.serving.threads)
        self._source: ExternalDatabase | None = None
        if chosen.mapped:
            url = chosen.url.get_secret_value() or settings.database.url.get_secret_value()
            threads = max(5, settings.serving.threads)
            self._source = ExternalDatabase(url, chosen.timeout_seconds, threads)

    @property
    def is_mapped(self) -> bool:
        """Whether events are read from a table of the user's."""
        return self._source is not None

    @property
    def reads_own(self) -> bool:
        """Whether events in the service's own table count."""
        return self._source is None or self._settings.events.accept_posts

    def check_writable(self) -> None:
        """Raise ConflictError where events are read elsewhere, so that stored ones would not count."""
        if not self.reads_own:
            raise ConflictError(
                "events are read from a table of your own (events.table), so none are taken here; "
                "events.accept_posts allows it where both have an event id"
            )

    def reflection(self) -> Reflection | None:
        """The mapping held against its table; None where there is none. Raises ConfigError,
        SourceUnavailableError.
        """
        mapped = self._resolved()
        return mapped.reflection if mapped else None

    def rows(self) -> ExternalRows | None:
        """The mapped table in bulk; None where there is none. Raises as `reflection`."""
        mapped = self._resolved()
        return mapped.rows if mapped else None

    def serving(self) -> ExternalHistory | None:
        """The mapped table at request time. Raises ConfigError where an index is missing."""
        mapped = self._resolved()
        if mapped is not None and self._history is None:
            assert self._source is not None
            self._history = ExternalHistory(mapped.reflection, self._source)
        return self._history

    def _resolved(self) -> _Mapped | None:
        if self._source is None:
            return None
        with self._lock:
            if self._mapped is None:
                self._source.refuse_if_away()
                try:
                    found = reflect(self._settings.events, self._source)
                except SourceUnavailableError:
                    self._source.leave()
                    raise
                self._mapped = _Mapped(found, ExternalRows(found.mapping, self._source))
            return self._mapped

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
        if self.replica is not None:
            self.replica.close()

    def history(
        self,
        connection: Connection,
        user_id: str | None = None,
        session_id: str | None = None,
        limit: int = 50,
        merged: Sequence[str] | None = None,
    ) -> History:
        """As `event_rows.history`. Raises SourceUnavailableError where the mapped table is away."""
        own = History([], True)
        if self.reads_own:

            def ask(where: Connection) -> History:
                return event_rows.history(where, user_id, session_id, limit, merged)

            own = self.replica.read(connection, ask) if self.replica else ask(connection)
        table = self.serving()
        if table is None:
            return own
        hidden = self.hidden(connection)
        if user_id is not None and merged is None:
            merged = event_rows.merged_into(connection, user_id)
        parts = [own]
        for owner, key, unowned in _asked(user_id, session_id, merged or ()):
            parts.append(table.newest(owner, key, limit, hidden, unowned=unowned))
        return _joined(parts, limit, self._settings.events.accept_posts)

    def seen_items(
        self,
        connection: Connection,
        user_id: str | None,
        session_id: str | None,
        event_types: Collection[str] | None,
    ) -> set[str]:
        """As `event_rows.seen_items`."""
        found: set[str] = set()
        if self.reads_own:
            found = event_rows.seen_items(connection, user_id, session_id, event_types)
        table = self.serving()
        if table is not None:
            hidden = self.hidden(connection)
            merged = event_rows.merged_into(connection, user_id) if user_id is not None else ()
            for owner, key, _ in _asked(user_id, session_id, merged):
                found |= table.seen_items(owner, key, event_types, hidden)
        return found

    def popular_items(
        self,
        connection: Connection,
        since_us: int,
        category: str | None = None,
        limit: int = 100,
        until_us: int | None = None,
    ) -> list[tuple[str, int]]:
        """As `event_rows.popular_items`; of a mapped table where an index leads with the time."""
        own: list[tuple[str, int]] = []
        if self.reads_own:
            own = event_rows.popular_items(connection, since_us, category, limit, until_us)
        table = self.serving()
        if table is None:
            return own
        counts = table.popular(since_us, until_us, limit if category is None else MOST_COUNTED)
        if category is not None:
            within = select(item_categories.c.item_id).where(item_categories.c.category == category)
            kept = set(connection.execute(within).scalars())
            counts = [(item_id, events) for item_id, events in counts if item_id in kept]
        added = dict(own)
        for item_id, events in counts:
            added[item_id] = added.get(item_id, 0) + events
        return sorted(added.items(), key=lambda one: (-one[1], one[0]))[:limit]

    def summary(self, connection: Connection, user_id: str) -> UserSummary:
        """As `user_rows.user_summary`."""
        own = user_rows.user_summary(connection, user_id)
        table = self.serving()
        if table is None:
            return own
        found = table.known([f"u:{user_id}", *own.merged], self.hidden(connection))
        firsts = [us for us in (own.first_event_us, found.first_us) if us is not None]
        lasts = [us for us in (own.last_event_us, found.last_us) if us is not None]
        return UserSummary(
            user_id,
            own.events + found.events,
            min(firsts, default=None),
            max(lasts, default=None),
            own.merged,
        )

    def user_events(
        self, connection: Connection, user_id: str, limit: int, before: int | None = None
    ) -> tuple[list[dict[str, Any]], int | None]:
        """A page of a user's events, the newest first, and what the next page is asked by."""
        table = self.serving()
        if table is None:
            rows = event_rows.user_events(connection, user_id, limit, before)
            more = int(str(rows[-1]["id"])) if len(rows) == limit else None
            return rows, more
        merged = event_rows.merged_into(connection, user_id)
        found, more = table.page([f"u:{user_id}", *merged], limit, before, self.hidden(connection))
        return [
            {
                **dict.fromkeys(EVENT_COLUMNS),
                **row.event._asdict(),
                "user_id": row.user_id,
                "value": row.value,
            }
            for row in found
        ], more

    def hidden(self, connection: Connection) -> Tombstones:
        """Who was erased, read anew when anybody is."""
        stamp = read_stamps(connection).tombstones
        if self._hidden is None or self._hidden[0] != stamp:
            self._hidden = (stamp, Tombstones(connection))
        return self._hidden[1]


def _asked(
    user_id: str | None, session_id: str | None, merged: Sequence[str]
) -> list[tuple[str, str, bool]]:
    """(which column, key, only what no user owns) of each read that an answer takes."""
    if user_id is None:
        return [] if session_id is None else [("session", session_id, False)]
    keys = dict.fromkeys([f"u:{user_id}", *merged])
    if session_id is not None:
        keys[f"s:{session_id}"] = None
    return [
        ("session", key[2:], True) if key.startswith("s:") else ("user", key[2:], False)
        for key in keys
    ]


def _joined(parts: Sequence[History], limit: int, by_event_id: bool) -> History:
    """The newest `limit` events of several reads; one that is in both tables counts once."""
    complete = all(part.complete for part in parts)
    filled = [part for part in parts if part.events]
    if len(filled) <= 1:
        return History(filled[0].events if filled else [], complete)
    events = [one for part in filled for one in part.events]
    if by_event_id:
        unique: dict[str, HistoryEvent] = {}
        for one in events:
            unique.setdefault(one.event_id, one)
        events = list(unique.values())
    events.sort(key=lambda one: one.timestamp_us)
    return History(events[-limit:], complete and len(events) <= limit)
