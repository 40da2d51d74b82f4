"""What the dashboard shows of events, wherever they are: in the service's own table or an external one.

Apart from `EventsSource`, which stays narrow for those who train and serve.
"""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import Connection

from recsys.events.frame import EventFrame
from recsys.events.identity import Owner
from recsys.storage.dashboard.catalogue_views import ItemEvents
from recsys.storage.dashboard.external_event_views import ExternalEventViews
from recsys.storage.dashboard.own_event_views import OwnEventViews
from recsys.storage.dashboard.visitor_views import (
    EventPosition,
    TimeLineEvent,
    Visitor,
    VisitorPage,
    VisitorQuery,
)
from recsys.storage.engine.database import Database
from recsys.storage.events_source import EventsSource


class EventViews(Protocol):
    """Bounded lists and counts of events.

    Those that read raise StorageUnavailableError, or SourceUnavailableError where an external table is
    away.
    """

    def recent_visitors(self, connection: Connection, query: VisitorQuery) -> VisitorPage:
        """A page of visitors by their newest events."""

    def visitors_like(
        self, connection: Connection, prefix: str, limit: int, *, now_us: int
    ) -> list[Visitor]:
        """Visitors whose id begins with `prefix`, an equal one first."""

    def count_events(self, connection: Connection, owner: Owner, limit: int) -> int:
        """How many events a user (with those merged in) or a session has; `limit` at most."""

    def time_line(
        self, connection: Connection, owner: Owner, limit: int, before: EventPosition | None = None
    ) -> list[TimeLineEvent]:
        """The newest `limit` events before a position, newest first."""

    def item_events(
        self, connection: Connection, item_id: str, step_us: int, *, now_us: int
    ) -> ItemEvents:
        """Events of an item by time and type, among the newest of all."""

    def samples(self, events: int, total: int, now_us: int) -> tuple[EventFrame, EventFrame]:
        """Of the `total` events, users of about `events`, and the newest `events`; both may be one."""

    def count_activity(self, now_us: int) -> int:
        """Bring events by hour and users by day up to date; how many days were counted anew."""


def open_event_views(source: EventsSource, database: Database) -> EventViews:
    """The views of the events that `source` reads."""
    if source.external is None:
        return OwnEventViews(database)
    return ExternalEventViews(source.external)
