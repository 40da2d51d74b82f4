"""An external table beside which posted events are taken; an event in both counts once, by its id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection

from recsys.config import Settings
from recsys.events.frame import EventFrame, EventFrameBuilder
from recsys.events.identity import Owner, key_hashes, mixed
from recsys.storage.engine.replica import Replica
from recsys.storage.entities.event_batches import SEQUENCE_COLUMNS, read_batches
from recsys.storage.entities.event_rows import ItemCounts, PopularityQuery
from recsys.storage.entities.history_rows import EventTypes, History
from recsys.storage.entities.live_events import EventFollower
from recsys.storage.entities.own_events import OwnEvents
from recsys.storage.entities.user_rows import UserSummary
from recsys.storage.external.external_events import MAX_COUNTED, ExternalEvents, joined
from recsys.storage.external.external_following import CombinedFollower, ExternalFollower

OWN_COLUMNS = f"{SEQUENCE_COLUMNS}, event_id"


class CombinedEvents(ExternalEvents):
    """Both tables; pages of a user's events are of the external one."""

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
        own = self._own.history(connection, owner, limit, types)
        external = super().history(connection, owner, limit, types)
        return joined([own, external], limit, by_event_id=True)

    def seen_items(self, connection: Connection, owner: Owner, types: EventTypes) -> set[str]:
        own = self._own.seen_items(connection, owner, types)
        return own | super().seen_items(connection, owner, types)

    def popular_items(self, connection: Connection, query: PopularityQuery) -> ItemCounts:
        counts = dict(self._own.popular_items(connection, query))
        counted = query.limit if query.category is None else MAX_COUNTED
        for item_id, events in super().popular_items(connection, replace(query, limit=counted)):
            counts[item_id] = counts.get(item_id, 0) + events
        return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[: query.limit]

    def summary(self, connection: Connection, user_id: str) -> UserSummary:
        posted = self._own.summary(connection, user_id)
        if not posted.events:
            return super().summary(connection, user_id)
        owner = Owner(user_id, merged=posted.merged)
        own = self._own.history(connection, owner, limit=posted.events)
        external = self._all_events(connection, user_id, posted.merged)
        events = {one.event_id: one.timestamp_us for one in [*external, *own.events]}
        times = events.values()
        return UserSummary(user_id, len(times), min(times), max(times), posted.merged)

    def frame_since(self, now_us: int, since_us: int = 0) -> EventFrame:
        builder, ids = EventFrameBuilder(), _EventIds()
        for batch in self._batches(now_us, since_us):
            builder.append(ids.unseen(batch))
        for batch in read_batches(self.database, OWN_COLUMNS, since_us):
            builder.append(ids.unseen(batch))
        return self._built(builder)

    def export_batches(self, now_us: int) -> Iterator[pa.RecordBatch]:
        ids = _EventIds()
        for batch in super().export_batches(now_us):
            yield ids.unseen(batch)
        for batch in self._own.export_batches(now_us):
            yield ids.unseen(batch)

    def follow(self, since_us: int, capacity: int) -> EventFollower:
        external = ExternalFollower(self, since_us, capacity)
        return CombinedFollower(self._own.follow(since_us, capacity), external, capacity)

    def close(self) -> None:
        super().close()
        self._own.close()


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
