"""Events of the service's own table as the dashboard shows them (`dashboard.event_views`).

Every read is bounded and goes by an index, however many events there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from recsys.events.frame import EventFrame
from recsys.events.identity import Owner
from recsys.storage.dashboard import activity_rows
from recsys.storage.dashboard.catalogue_views import MAX_STEPS, NEWEST_EVENTS, ItemEvents
from recsys.storage.dashboard.visitor_views import (
    COUNTED,
    SCANNED,
    EventPosition,
    TimeLineEvent,
    Visitor,
    VisitorPage,
    VisitorQuery,
)
from recsys.storage.engine.database import Database
from recsys.storage.engine.short_selects import values_from
from recsys.storage.entities import history_rows, key_values
from recsys.storage.entities.event_batches import read_newest, read_sample
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.schema.tables import events

BATCH = 1_000
LOOKED_UP = 250  # visitors that one page asks for their newest event
NEAR = 200  # ids after a prefix that are looked at: a database may sort them between others
MAX_MERGED = 100  # ids merged into a user whose events are read


class OwnEventViews:
    """Lists and counts of the `events` table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recent_visitors(self, connection: Connection, query: VisitorQuery) -> VisitorPage:
        """A page of visitors by their newest arrivals.

        It may hold fewer than `limit` where one visitor sent most of the events looked through.
        """
        found: list[Visitor] = []
        known: set[Owner] = set()
        before_id, kind = query.before_id, query.kind
        at, scanned = before_id, 0
        while scanned < SCANNED:
            statement = select(events.c.id, events.c.user_id, events.c.session_id)
            if at is not None:
                statement = statement.where(events.c.id < at)
            rows = connection.execute(statement.order_by(events.c.id.desc()).limit(BATCH)).all()
            for row in rows:
                at, scanned = int(row.id), scanned + 1
                owner = Owner(row.user_id, None if row.user_id is not None else row.session_id)
                wanted = kind is None or (kind == "registered") == (row.user_id is not None)
                if owner in known or not wanted:
                    continue
                known.add(owner)
                visitor, newest = _visitor(connection, owner)
                # One whose newest event is newer than this page stood on a page before it.
                if before_id is None or newest < before_id:
                    found.append(visitor)
                if len(found) == query.limit or len(known) == LOOKED_UP:
                    return VisitorPage(found, at, scanned)
            if len(rows) < BATCH:
                return VisitorPage(found, None, scanned)
        return VisitorPage(found, at, scanned)

    def visitors_like(
        self, connection: Connection, prefix: str, limit: int, *, now_us: int
    ) -> list[Visitor]:
        """Visitors whose id begins with `prefix`, an equal one first; users before sessions.

        Of the NEAR ids that follow the prefix in the database's order.
        """
        found: list[Visitor] = []
        for column in (events.c.user_id, events.c.session_id):
            of_users = column is events.c.user_id
            near = values_from(connection, column, prefix, NEAR)
            alike = sorted((name for name in near if name.startswith(prefix)), key=len)
            for name in alike[: limit - len(found)]:
                owner = Owner(name) if of_users else Owner(session_id=name)
                found.append(_visitor(connection, owner, owned=True)[0])
        return sorted(found, key=lambda one: one.name != prefix)

    def count_events(self, connection: Connection, owner: Owner, limit: int) -> int:
        """How many events a user (with those merged in) or a session has; `limit` at most."""
        return sum(_count(connection, part, limit) for part in _parts(connection, owner))

    def time_line(
        self, connection: Connection, owner: Owner, limit: int, before: EventPosition | None = None
    ) -> list[TimeLineEvent]:
        """The newest `limit` events before a place, newest first."""
        order = (events.c.timestamp_us.desc(), events.c.id.desc())
        columns = [events.c[one.name] for one in fields(TimeLineEvent)]
        found: dict[int, TimeLineEvent] = {}
        for condition in _parts(connection, owner):
            statement = select(*columns).where(condition).order_by(*order).limit(limit)
            if before is not None:
                earlier = events.c.timestamp_us < before.timestamp_us
                tied = events.c.timestamp_us == before.timestamp_us
                statement = statement.where(or_(earlier, and_(tied, events.c.id < before.row_id)))
            rows = connection.execute(statement)
            found.update((row.id, TimeLineEvent(**row._mapping)) for row in rows)
        return sorted(found.values(), key=lambda one: (-one.timestamp_us, -one.id))[:limit]

    def item_events(
        self, connection: Connection, item_id: str, step_us: int, *, now_us: int
    ) -> ItemEvents:
        """Events of an item by time and type, among the NEWEST_EVENTS that arrived last."""
        by_arrival = select(events.c.id).order_by(events.c.id.desc())
        first = connection.execute(by_arrival.offset(NEWEST_EVENTS - 1).limit(1)).scalar()
        looked_at = NEWEST_EVENTS
        if first is None:  # there are fewer
            first = 0
            looked_at = int(
                connection.execute(select(func.count()).select_from(events)).scalar_one()
            )
        if not looked_at:
            return ItemEvents(None, 0, [])
        among = events.c.id >= first
        oldest = select(events.c.timestamp_us).where(among).order_by(events.c.id).limit(1)
        # By id, so that an index is gone along whatever the planner knows of the table.
        newest = select(events.c.timestamp_us, events.c.event_type, events.c.item_id).where(among)
        part = newest.order_by(events.c.id.desc()).limit(NEWEST_EVENTS).subquery()
        step = (part.c.timestamp_us - part.c.timestamp_us % step_us).label("step")
        statement = (
            select(step, part.c.event_type, func.count())
            .where(part.c.item_id == item_id)
            .group_by(step, part.c.event_type)
            .order_by(step.desc(), part.c.event_type.desc())
            .limit(MAX_STEPS)
        )
        rows = [(int(row[0]), row[1], int(row[2])) for row in connection.execute(statement)]
        return ItemEvents(int(connection.execute(oldest).scalar_one()), looked_at, rows[::-1])

    def samples(self, events: int, total: int, now_us: int) -> tuple[EventFrame, EventFrame]:
        """Whole users of about `events` of the `total` events, and the newest `events`."""
        database = self._database
        return read_sample(database, events, total), read_newest(database, events)

    def count_activity(self, now_us: int) -> int:
        """Bring events by hour and users by day up to date; how many days were counted anew."""
        with self._database.begin() as connection:
            if key_values.get_text(connection, InstallationKey.EXTERNAL_COUNTED) is not None:
                activity_rows.begin_again(connection)
                key_values.forget(connection, InstallationKey.EXTERNAL_COUNTED)
        return activity_rows.count_events(self._database, now_us)


def _visitor(connection: Connection, owner: Owner, owned: bool = False) -> tuple[Visitor, int]:
    """One with events, and the row id of the newest; `owned`: a session's events of users too."""
    condition = _own(owner, owned)
    newest = connection.execute(
        select(events.c.id, events.c.timestamp_us, events.c.item_id)
        .where(condition)
        .order_by(events.c.timestamp_us.desc(), events.c.id.desc())
        .limit(1)
    ).one()
    count = _count(connection, condition, COUNTED)
    ids = (owner.user_id, owner.session_id)
    return Visitor(*ids, newest.timestamp_us, newest.item_id, count), int(newest.id)


def _parts(connection: Connection, owner: Owner) -> Iterable[ColumnElement[bool]]:
    """Conditions that together hold a visitor's events; each goes by one index."""
    yield _own(owner, owned=True)
    if owner.user_id is None:
        return
    for key in history_rows.merged_into(connection, owner.user_id)[:MAX_MERGED]:
        yield _own(Owner.of(key))


def _own(owner: Owner, owned: bool = False) -> ColumnElement[bool]:
    if owner.user_id is not None:
        return events.c.user_id == owner.user_id
    of_session = events.c.session_id == owner.session_id
    return of_session if owned else and_(of_session, events.c.user_id.is_(None))


def _count(connection: Connection, condition: ColumnElement[bool], limit: int) -> int:
    some = select(events.c.id).where(condition).limit(limit).subquery()
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one())
