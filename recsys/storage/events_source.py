"""Where events come from: the service's own table, or an external one that `[events]` names.

`EventsSource` is the one way in for all who read events, and `open_events_source` the one place that
chooses. The dashboard's lists and counts of events have a protocol of their own
(`dashboard.event_views`), so that who serves loads none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa
from sqlalchemy import Connection

from recsys.config import Settings
from recsys.events.frame import EventFrame
from recsys.events.identity import Owner
from recsys.storage.engine.database import Database
from recsys.storage.engine.replica import Replica
from recsys.storage.entities.event_rows import EventPage, ItemCounts, PopularityQuery
from recsys.storage.entities.history_rows import EventTypes, History
from recsys.storage.entities.live_events import EventFollower
from recsys.storage.entities.own_events import OwnEvents
from recsys.storage.entities.user_rows import UserSummary
from recsys.storage.external.combined_events import CombinedEvents
from recsys.storage.external.external_events import ExternalEvents


class EventsSource(Protocol):
    """The log of events. Nothing connects at construction.

    All that read raise StorageUnavailableError, or SourceUnavailableError where an external table is
    away, and ConfigError where that is not what the settings say or lacks the index that serving needs.
    """

    @property
    def external(self) -> ExternalEvents | None:
        """The external table, for those who follow it in bulk; None where there is none."""

    @property
    def replica(self) -> Replica | None:
        """The standby that histories are read from."""

    def check_writable(self) -> None:
        """Raise ConflictError where posted events would not count."""

    def history(
        self, connection: Connection, owner: Owner, limit: int = 50, types: EventTypes = None
    ) -> History:
        """The newest `limit` events of `owner` of these types."""

    def seen_items(self, connection: Connection, owner: Owner, types: EventTypes) -> set[str]:
        """Items of the newest events of `owner` of these types."""

    def popular_items(self, connection: Connection, query: PopularityQuery) -> ItemCounts:
        """Items by how many users and sessions had an event of them."""

    def summary(self, connection: Connection, user_id: str) -> UserSummary:
        """How many events a user has, and from when to when."""

    def user_events(
        self, connection: Connection, user_id: str, limit: int, before: int | None = None
    ) -> EventPage:
        """A page of a user's events, the newest first; `before`: `next_before` of the page before."""

    def frame_since(self, now_us: int, since_us: int = 0) -> EventFrame:
        """All events since `since_us` as an event frame; ids merged into a user count as that user."""

    def export_batches(self, now_us: int, since_us: int = 0) -> Iterator[pa.RecordBatch]:
        """Every event since `since_us` with all that is stored of it; no read lasts longer than a batch
        of the service's own.
        """

    def follow(self, since_us: int, capacity: int) -> EventFollower:
        """What reads the events after `since_us`, the newest `capacity` of them at most, and then each
        one that comes.

        Raises ConfigError also where an external table cannot be followed.
        """

    def close(self) -> None:
        """Close the connections it holds."""


def open_events_source(settings: Settings, database: Database) -> EventsSource:
    """The events that `settings` choose. Raises ConfigError where an address is none, and
    MissingExtraError.
    """
    own = OwnEvents(settings, database)  # in any case: it checks database.replica_url
    if not settings.events.mapped:
        return own
    if settings.events.accept_posts:
        return CombinedEvents(settings, own)
    return ExternalEvents(settings, database)
