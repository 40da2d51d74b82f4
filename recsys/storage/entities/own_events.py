"""The service's own table as the source of events (`storage.events_source`)."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from sqlalchemy import Connection

from recsys.config import Settings
from recsys.events.frame import EventFrame
from recsys.events.identity import Owner
from recsys.storage.engine.database import Database
from recsys.storage.engine.replica import Replica
from recsys.storage.entities import event_rows, history_rows, user_rows
from recsys.storage.entities.event_batches import (
    BATCH_ROWS,
    EXPORT_COLUMNS,
    id_span,
    read_batches,
    read_frame,
)
from recsys.storage.entities.event_rows import EventPage, ItemCounts, PopularityQuery
from recsys.storage.entities.history_rows import EventTypes, History
from recsys.storage.entities.live_events import OwnFollower
from recsys.storage.entities.user_rows import UserSummary


class OwnEvents:
    """Events of the `events` table; histories come from a standby where there is one."""

    external = None

    def __init__(self, settings: Settings, database: Database) -> None:
        """Raises ConfigError where `database.replica_url` is no PostgreSQL address."""
        self.database = database
        self.replica: Replica | None = None
        if settings.database.replica_url.get_secret_value():
            self.replica = Replica(settings.database, settings.serving.threads)

    def check_writable(self) -> None:
        """Posted events always count."""

    def history(
        self, connection: Connection, owner: Owner, limit: int = 50, types: EventTypes = None
    ) -> History:
        def ask(where: Connection) -> History:
            return history_rows.history(where, owner, limit, types)

        return self.replica.read(connection, ask) if self.replica else ask(connection)

    def seen_items(self, connection: Connection, owner: Owner, types: EventTypes) -> set[str]:
        return history_rows.seen_items(connection, owner, types)

    def popular_items(self, connection: Connection, query: PopularityQuery) -> ItemCounts:
        return event_rows.popular_items(connection, query)

    def summary(self, connection: Connection, user_id: str) -> UserSummary:
        return user_rows.user_summary(connection, user_id)

    def user_events(
        self, connection: Connection, user_id: str, limit: int, before: int | None = None
    ) -> EventPage:
        return event_rows.user_events(connection, user_id, limit, before)

    def frame_since(self, now_us: int, since_us: int = 0) -> EventFrame:
        return read_frame(self.database, since_us=since_us)

    def export_batches(self, now_us: int, since_us: int = 0) -> Iterator[pa.RecordBatch]:
        first, last = id_span(self.database, settled=True)
        for at in range(first, last + 1, BATCH_ROWS):
            ids = (at, min(at + BATCH_ROWS, last + 1))
            yield from read_batches(self.database, EXPORT_COLUMNS, since_us, in_order=True, ids=ids)

    def follow(self, since_us: int, capacity: int) -> OwnFollower:
        return OwnFollower(self.database, since_us, capacity)

    def close(self) -> None:
        if self.replica is not None:
            self.replica.close()
