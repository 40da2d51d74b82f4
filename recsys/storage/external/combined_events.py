"""An external table beside which posted events are taken; an event in both counts once, by its id."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection

from recsys.config import Settings
from recsys.events.frame import EventFrame, EventFrameBuilder
from recsys.events.identity import key_hashes, mixed
from recsys.storage.engine.replica import Replica
from recsys.storage.entities.event_batches import SEQUENCE_COLUMNS, read_batches
from recsys.storage.entities.history_rows import History
from recsys.storage.entities.own_events import OwnEvents
from recsys.storage.entities.user_rows import UserSummary
from recsys.storage.external.external_events import MAX_COUNTED, ExternalEvents, joined

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
        self,
        connection: Connection,
        user_id: str | None = None,
        session_id: str | None = None,
        limit: int = 50,
        merged: Sequence[str] | None = None,
        event_types: Collection[str] | None = None,
    ) -> History:
        asked = (connection, user_id, session_id, limit, merged, event_types)
        own, external = self._own.history(*asked), super().history(*asked)
        return joined([own, external], limit, by_event_id=True)

    def seen_items(
        self,
        connection: Connection,
        user_id: str | None,
        session_id: str | None,
        event_types: Collection[str] | None,
    ) -> set[str]:
        asked = (connection, user_id, session_id, event_types)
        return self._own.seen_items(*asked) | super().seen_items(*asked)

    def popular_items(
        self,
        connection: Connection,
        since_us: int,
        category: str | None = None,
        limit: int = 100,
        until_us: int | None = None,
        known_only: bool = False,
    ) -> list[tuple[str, int]]:
        asked = (connection, since_us, category, limit, until_us, known_only)
        counts = dict(self._own.popular_items(*asked))
        counted = limit if category is None else MAX_COUNTED
        found = super().popular_items(connection, since_us, category, counted, until_us, known_only)
        for item_id, events in found:
            counts[item_id] = counts.get(item_id, 0) + events
        return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:limit]

    def summary(self, connection: Connection, user_id: str) -> UserSummary:
        posted = self._own.summary(connection, user_id)
        if not posted.events:
            return super().summary(connection, user_id)
        own = self._own.history(connection, user_id, limit=posted.events, merged=posted.merged)
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
