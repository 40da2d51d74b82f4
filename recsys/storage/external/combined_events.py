"""An external table beside which posted events are taken; an event in both counts once, by its id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TypeVar

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection

from recsys.config import Settings
from recsys.events.fields import Event
from recsys.events.frame import EventFrame, EventFrameBuilder
from recsys.events.identity import Owner, key_hashes, mixed, sequence_key
from recsys.storage.engine.replica import Replica
from recsys.storage.entities import event_rows
from recsys.storage.entities.event_batches import OWNER_COLUMNS, SEQUENCE_COLUMNS, read_batches
from recsys.storage.entities.event_rows import PopularityQuery
from recsys.storage.entities.history_rows import EventTypes, History, HistoryEvent
from recsys.storage.entities.live_events import EventFollower
from recsys.storage.entities.own_events import OwnEvents
from recsys.storage.external.external_events import ExternalEvents
from recsys.storage.external.external_following import CombinedFollower, ExternalFollower
from recsys.storage.external.external_history import MAX_READ, STEP
from recsys.storage.external.external_popularity import OwnerPairs

Posted = TypeVar("Posted", HistoryEvent, Event)
OWN_COLUMNS = f"{SEQUENCE_COLUMNS}, event_id"


class CombinedEvents(ExternalEvents):
    """Both tables; of an event in both the newer time counts."""

    def __init__(self, settings: Settings, own: OwnEvents) -> None:
        super().__init__(settings, own.database)
        self._own = own

    @property
    def replica(self) -> Replica | None:
        return self._own.replica

    def check_writable(self) -> None:
        """Posted events count."""

    def history(
        self, connection: Connection, owner: Owner, limit: int = 50, types: EventTypes = None
    ) -> History:
        parts: list[History] = []

        def read(number: int) -> list[list[HistoryEvent]]:
            asked = (connection, owner, number, types)
            parts[:] = self._own.history(*asked), super(CombinedEvents, self).history(*asked)
            return [part.events[::-1] for part in parts]

        events = _newest_unique(read, limit + 1)
        complete = all(part.complete for part in parts) and len(events) <= limit
        return History(events[:limit][::-1], complete)

    def seen_items(self, connection: Connection, owner: Owner, types: EventTypes) -> set[str]:
        own = self._own.seen_items(connection, owner, types)
        return own | super().seen_items(connection, owner, types)

    def posted_pairs(self, query: PopularityQuery) -> OwnerPairs | None:
        found = OwnerPairs()
        for batch in read_batches(self.database, OWNER_COLUMNS, query.since_us):
            found.add_events(batch, end_us=2**62 if query.until_us is None else query.until_us)
        return found

    def all_events(self, connection: Connection, owner: Owner) -> list[HistoryEvent]:
        own = self._own.history(connection, owner, MAX_READ).events
        return _unique([*own, *super().all_events(connection, owner)])

    def newest_events(self, connection: Connection, owner: Owner, limit: int) -> list[Event]:
        def read(number: int) -> list[list[Event]]:
            table = super(CombinedEvents, self).newest_events(connection, owner, number)
            return [event_rows.newest_events(connection, owner, number), table]

        return _newest_unique(read, limit)

    def frame_since(self, now_us: int, since_us: int = 0) -> EventFrame:
        builder, ids = EventFrameBuilder(), _EventIds()
        for batch in self._batches(now_us, since_us):
            builder.append(ids.unseen(batch))
        for batch in read_batches(self.database, OWN_COLUMNS, since_us):
            builder.append(ids.unseen(batch))
        return self._built(builder)

    def export_batches(self, now_us: int, since_us: int = 0) -> Iterator[pa.RecordBatch]:
        ids = _EventIds()
        for batch in super().export_batches(now_us, since_us):
            yield ids.unseen(batch)
        for batch in self._own.export_batches(now_us, since_us):
            yield ids.unseen(batch)

    def follow(self, since_us: int, capacity: int) -> EventFollower:
        external = ExternalFollower(self, since_us, capacity)
        return CombinedFollower(self._own.follow(since_us, capacity), external, capacity)

    def close(self) -> None:
        super().close()
        self._own.close()


def _newest_unique(read: Callable[[int], list[list[Posted]]], limit: int) -> list[Posted]:
    """The newest `limit` events of several tables, newest first, those of one owner and id once.

    `read` gives the newest so many of each; it is asked for more where repeats leave too few.
    """
    number = limit
    while True:
        parts = read(number)
        # Older than the last of a part that was cut off, another may lack events.
        since_us = max((part[-1].timestamp_us for part in parts if len(part) >= number), default=0)
        events = [one for one in _unique(chain(*parts)) if one.timestamp_us >= since_us]
        if len(events) >= limit or not since_us or number >= MAX_READ:
            return events[:limit]
        number = min(number * STEP, MAX_READ)


def _unique(events: Iterable[Posted]) -> list[Posted]:
    """The newest of each owner's events of one id, newest first."""
    unique: dict[tuple[str, str | None], Posted] = {}
    for one in sorted(events, key=lambda one: -one.timestamp_us):
        unique.setdefault((sequence_key(one.user_id, one.session_id), one.event_id), one)
    return list(unique.values())


class _EventIds:
    """Ids of events that were read, so that one which is in two tables is taken once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def unseen(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        users = key_hashes(batch.column("user_id"), "u:")
        owners = np.where(users == 0, key_hashes(batch.column("session_id"), "s:"), users)
        ids = key_hashes(batch.column("event_id"))
        hashes = np.where(ids == 0, ids, mixed(owners, ids)).tolist()
        kept = np.ones(len(hashes), np.bool_)
        for at, number in enumerate(hashes):
            if number and number in self._seen:
                kept[at] = False
            self._seen.add(number)
        return batch if kept.all() else batch.filter(pa.array(kept))
