"""An external table as the source of events (`storage.events_source`)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection

from recsys.config import Settings
from recsys.errors import ConflictError, InputError, SourceUnavailableError
from recsys.events.fields import EVENT_COLUMNS, Event
from recsys.events.frame import EventFrame, EventFrameBuilder
from recsys.events.identity import Owner, hash_texts, mixed, positions_of
from recsys.storage.engine.database import Database
from recsys.storage.engine.replica import Replica
from recsys.storage.entities import history_rows, item_rows
from recsys.storage.entities.event_batches import all_aliases
from recsys.storage.entities.event_rows import EventPage, ItemCounts, PopularityQuery
from recsys.storage.entities.history_rows import EventTypes, History, HistoryEvent
from recsys.storage.entities.live_events import EventFollower
from recsys.storage.entities.stamps import read_stamps
from recsys.storage.entities.tombstone_rows import Tombstones
from recsys.storage.entities.user_rows import UserSummary
from recsys.storage.external.external_database import ExternalDatabase
from recsys.storage.external.external_following import ExternalFollower
from recsys.storage.external.external_history import Asked, ExternalHistory
from recsys.storage.external.external_popularity import (
    PART,
    ExternalPopularity,
    ItemOwners,
    OwnerPairs,
)
from recsys.storage.external.external_rows import ExternalRows
from recsys.storage.external.mapping_resolution import resolve_mapping
from recsys.storage.external.serving_checks import ResolvedMapping

MAX_SKIPPED = 100_000  # events before a page


@dataclass(frozen=True)
class _Resolved:
    """The mapping, held against its table at the first need, and the rows it gives."""

    mapping: ResolvedMapping
    rows: ExternalRows


class ExternalEvents:
    """Events of a table that `[events]` maps. Nothing connects at construction."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """`database`: the service's own, with aliases, tombstones and the catalogue.

        Raises ConfigError where `events.url` is no address, MissingExtraError.
        """
        self.database = database
        self._settings = settings.events
        url = settings.events.url.get_secret_value() or settings.database.url.get_secret_value()
        threads = max(5, settings.serving.threads)
        self.external_database = ExternalDatabase(url, settings.events.timeout_seconds, threads)
        self._lock = threading.Lock()
        self._resolved: _Resolved | None = None
        self._history: ExternalHistory | None = None
        self._hidden: tuple[int, Tombstones] | None = None

    @property
    def external(self) -> ExternalEvents:
        return self

    @property
    def replica(self) -> Replica | None:
        return None

    def check_writable(self) -> None:
        raise ConflictError(
            "events are read from a table of your own (events.table), so none are taken here; "
            "events.accept_posts allows it where both have an event id"
        )

    def resolved(self) -> ResolvedMapping:
        """The mapping held against its table. Raises ConfigError, SourceUnavailableError."""
        return self._resolve().mapping

    def rows(self) -> ExternalRows:
        """The table in bulk. Raises as `resolved`."""
        return self._resolve().rows

    def serving(self) -> ExternalHistory:
        """The table at request time. Raises as `resolved`, and ConfigError without its index."""
        resolved = self.resolved()
        if self._history is None:
            self._history = ExternalHistory(resolved, self.external_database)
        return self._history

    def hidden(self, connection: Connection) -> Tombstones:
        """Who was erased, read anew when anybody is."""
        stamp = read_stamps(connection).tombstones
        if self._hidden is None or self._hidden[0] != stamp:
            self._hidden = (stamp, Tombstones(connection))
        return self._hidden[1]

    def _resolve(self) -> _Resolved:
        with self._lock:
            if self._resolved is None:
                self.external_database.refuse_if_away()
                try:
                    found = resolve_mapping(self._settings, self.external_database)
                except SourceUnavailableError:
                    self.external_database.leave()
                    raise
                rows = ExternalRows(found.mapping, self.external_database)
                self._resolved = _Resolved(found, rows)
            return self._resolved

    def close(self) -> None:
        self.external_database.close()

    def history(
        self, connection: Connection, owner: Owner, limit: int = 50, types: EventTypes = None
    ) -> History:
        table, hidden = self.serving(), self.hidden(connection)
        parts = [table.newest(one, limit, hidden) for one in _asked(connection, owner, types)]
        return joined(parts, limit)

    def seen_items(self, connection: Connection, owner: Owner, types: EventTypes) -> set[str]:
        table, hidden = self.serving(), self.hidden(connection)
        found: set[str] = set()
        for one in _asked(connection, owner, types):
            found |= table.seen_items(one, hidden)
        return found

    def popular_items(self, connection: Connection, query: PopularityQuery) -> ItemCounts:
        """Without rows of the table where no index of it leads with the time."""
        self.serving()
        resolved, posted = self.resolved(), self.posted_pairs(query)
        counts: Iterable[ItemOwners] = () if posted is None else posted.counts()
        if not resolved.is_table or resolved.has_index("timestamp"):
            popularity = ExternalPopularity(self.rows())
            hidden = self.hidden(connection)
            counts = popularity.counts(query.since_us, query.until_us, posted, hidden)
        return _most(connection, counts, query)

    def posted_pairs(self, query: PopularityQuery) -> OwnerPairs | None:
        """Items and owners of what is taken beside the table in the query's time; None: nothing is."""
        return None

    def summary(self, connection: Connection, user_id: str) -> UserSummary:
        merged = history_rows.merged_into(connection, user_id)
        owner = Owner(user_id, merged=merged)
        times = [one.timestamp_us for one in self.all_events(connection, owner)]
        first_us, last_us = min(times, default=None), max(times, default=None)
        return UserSummary(user_id, len(times), first_us, last_us, merged)

    def all_events(self, connection: Connection, owner: Owner) -> list[HistoryEvent]:
        """All events of `owner`, in no order."""
        asked = _asked(connection, owner, None)
        return self.serving().all_events(asked, self.hidden(connection))

    def newest_events(self, connection: Connection, owner: Owner, limit: int) -> list[Event]:
        """The newest `limit` of `all_events`, newest first, with all that is known of them."""
        asked = _asked(connection, owner, None)
        found = self.serving().latest(asked, limit, self.hidden(connection))
        return [Event(value=row.value, **row.event._asdict()) for row in found]

    def user_events(
        self, connection: Connection, user_id: str, limit: int, before: int | None = None
    ) -> EventPage:
        """`before` is the number of events that came before."""
        skipped = before or 0
        check_skipped(skipped)
        found = self.newest_events(connection, Owner(user_id), skipped + limit + 1)
        more = skipped + limit if len(found) > skipped + limit else None
        return EventPage(found[skipped : skipped + limit], more)

    def frame_since(self, now_us: int, since_us: int = 0) -> EventFrame:
        builder = EventFrameBuilder()
        for batch in self._batches(now_us, since_us):
            builder.append(batch)
        return self._built(builder)

    def export_batches(self, now_us: int, since_us: int = 0) -> Iterator[pa.RecordBatch]:
        for batch in self._batches(now_us, since_us):
            columns = [batch.column(name) for name in EVENT_COLUMNS]
            yield pa.record_batch(columns, names=EVENT_COLUMNS)

    def follow(self, since_us: int, capacity: int) -> EventFollower:
        return ExternalFollower(self, since_us, capacity)

    def _batches(self, now_us: int, since_us: int = 0) -> Iterator[pa.RecordBatch]:
        rows = self.rows()
        with self.database.connect() as connection:
            hidden = self.hidden(connection)
        if since_us > 0:
            yield from rows.batches(now_us, since_us=since_us, hidden=hidden)
            return
        for chunk in rows.chunks(None, rows.end()):
            yield from rows.batches(now_us, chunk, hidden=hidden)

    def _built(self, builder: EventFrameBuilder) -> EventFrame:
        frame = builder.build(all_aliases(self.database))
        if self.rows().mapping.identity == "order":
            return frame
        return replace(frame, positions=_content_positions(frame))


def check_skipped(skipped: int) -> None:
    """Raise InputError where a page begins too far back."""
    if skipped > MAX_SKIPPED:
        raise InputError("cursor", skipped, f"expected a page among the first {MAX_SKIPPED:,}")


def _most(
    connection: Connection, counts: Iterable[ItemOwners], query: PopularityQuery
) -> ItemCounts:
    """Those of `counts`, which fall, that are meant and have most owners."""
    within = None if query.category is None else item_rows.items_in(connection, [query.category])
    known_only = query.known_only and within is None
    found: ItemCounts = []
    rest = iter(counts)
    while part := list(islice(rest, PART)):
        unknown = item_rows.outside(connection, [one.item_id for one in part]) if known_only else ()
        for one in part:
            number = one.users if one.item_id in unknown else one.owners
            if number and (within is None or one.item_id in within):
                found.append((one.item_id, number))
        found = sorted(found, key=lambda one: (-one[1], one[0]))[: query.limit]
        if len(found) == query.limit and found[-1][1] > part[-1].owners:
            break  # no later one has as many
    return found


def joined(parts: Sequence[History], limit: int) -> History:
    """The newest `limit` events of several reads."""
    complete = all(part.complete for part in parts)
    filled = [part for part in parts if part.events]
    if len(filled) <= 1:
        return History(filled[0].events if filled else [], complete)
    events = sorted(
        (one for part in filled for one in part.events), key=lambda one: one.timestamp_us
    )
    return History(events[-limit:], complete and len(events) <= limit)


def _asked(connection: Connection, owner: Owner, types: EventTypes) -> list[Asked]:
    """What an answer reads, one read each."""
    wanted = None if types is None else frozenset(types)
    if owner.user_id is None:
        keys = [] if owner.session_id is None else [Asked("session", owner.session_id)]
    else:
        keys = [Asked.of(key) for key in history_rows.owned_keys(connection, owner)]
    return [replace(one, event_types=wanted) for one in keys]


def _content_positions(frame: EventFrame) -> np.ndarray:
    """Positions as the sequence files have them for a table without an order column."""
    users, items = hash_texts(frame.user_keys), hash_texts(frame.item_ids)
    types = hash_texts(frame.type_names)
    hashes = mixed(
        users[frame.users],
        frame.sessions,
        items[frame.items],
        types[frame.event_types],
        frame.timestamps_us.view(np.uint64),
    )
    return positions_of(hashes, repeats=True)
