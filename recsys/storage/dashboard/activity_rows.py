"""What the dashboard's charts read: sums by hour, so that no page counts events.

Events are counted by the hour they happened in, users by the day, by the refresh job; what the
service did is added by its workers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypedDict

from sqlalchemy import Connection, case, delete, func, or_, select

from recsys.events.times import DAY_US, HOUR_US
from recsys.storage.engine.database import Database, upsert
from recsys.storage.entities import key_values
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.schema.tables import (
    active_users,
    event_counts,
    events,
    service_counts,
)

SPANS = (300, 3_600, 86_400)  # seconds of a slot
KEPT_DAYS = {300: 2, 3_600: 400, 86_400: 4_000}
LATE_US = 600 * 1_000_000  # a transaction older than this has ended
MAX_STRETCHES = 8  # of days that are counted one by one
UNCOUNTED = 100_000  # newer rows that are counted for the live figure

Key = tuple[str, str, float]  # kind, name, bucket


class HourCount(TypedDict):
    """A row of `event_counts`."""

    hour_us: int
    event_type: str
    events: int


class DayCount(TypedDict):
    """A row of `active_users`."""

    day_us: int
    users: int


@dataclass(frozen=True)
class EventTotal:
    """How many events there are."""

    events: int
    exact: bool  # False: at least UNCOUNTED came since the last count


@dataclass(frozen=True)
class UsageCount:
    """How often, and in which slot last: of five minutes where that was in the last two days."""

    number: int
    last_us: int


def count_events(database: Database, now_us: int, also: Collection[int] = ()) -> int:
    """Bring the counts up to date; how many days were counted anew.

    `also`: days (in µs) of events that are gone, which are counted anew too.

    Days with rows that arrived since the last time are counted anew as a whole, so late events and
    repeated runs come out exact. Rows that arrived a moment ago are looked at again the next time,
    because a transaction that began earlier may still be about to show its own.
    """
    with database.connect() as connection:
        fresh = events.c.id > key_values.get_number(connection, InstallationKey.EVENTS_COUNTED_TO)
        day = events.c.timestamp_us - events.c.timestamp_us % DAY_US
        days = sorted({*also, *connection.execute(select(day).where(fresh).distinct()).scalars()})
        settled = case((events.c.received_at_us < now_us - LATE_US, events.c.id))
        reached, newest = connection.execute(
            select(func.max(settled), func.max(events.c.id)).where(fresh)
        ).one()
        hours: list[HourCount] = []
        users: list[DayCount] = []
        for start_us, end_us in _stretches([int(one) for one in days]):
            hours += _by_hour(connection, start_us, end_us)
            users += _by_day(connection, start_us, end_us)
    with database.begin() as connection:
        for start_us, end_us in _stretches([int(one) for one in days]):
            hour, day_us = event_counts.c.hour_us, active_users.c.day_us
            connection.execute(delete(event_counts).where(hour >= start_us, hour < end_us))
            connection.execute(delete(active_users).where(day_us >= start_us, day_us < end_us))
        if hours:
            connection.execute(event_counts.insert(), hours)
            connection.execute(active_users.insert(), users)
        for key, value in (
            (InstallationKey.EVENTS_COUNTED_TO, reached),
            (InstallationKey.EVENTS_COUNTED_NEWEST, newest),
        ):
            if value is not None:
                key_values.put(connection, key, int(value))
    return len(days)


def follow_undo(database: Database, now_us: int, days: Collection[int]) -> None:
    """Count anew the `days` (in µs) of events that are gone, where the service's table is what counts."""
    with database.connect() as connection:
        external = key_values.get_text(connection, InstallationKey.EXTERNAL_COUNTED)
    if days and external is None:
        count_events(database, now_us, days)


def begin_again(connection: Connection) -> None:
    """Forget what was counted, and how far."""
    put_counts(connection, 0, [], [])
    key_values.forget(
        connection, InstallationKey.EVENTS_COUNTED_TO, InstallationKey.EVENTS_COUNTED_NEWEST
    )


def put_counts(
    connection: Connection,
    since_us: int,
    hours: list[HourCount],
    users: list[DayCount],
) -> None:
    """Counts of all days from `since_us` on, in place of what was there."""
    connection.execute(delete(event_counts).where(event_counts.c.hour_us >= since_us))
    connection.execute(delete(active_users).where(active_users.c.day_us >= since_us))
    if hours:
        connection.execute(event_counts.insert(), hours)
        connection.execute(active_users.insert(), users)


def event_total(connection: Connection, own: bool = True) -> EventTotal:
    """Events counted, and those that arrived since; `own`: whether those of the service's table count."""
    counted = connection.execute(select(func.sum(event_counts.c.events))).scalar() or 0
    if not own:
        return EventTotal(int(counted), True)
    newer = select(events.c.id).where(
        events.c.id > key_values.get_number(connection, InstallationKey.EVENTS_COUNTED_NEWEST)
    )
    # In their order, so that an index is gone along whatever the planner knows of the table.
    newer = newer.order_by(events.c.id).limit(UNCOUNTED)
    more = connection.execute(select(func.count()).select_from(newer.subquery())).scalar_one()
    return EventTotal(int(counted) + int(more), int(more) < UNCOUNTED)


def events_by_hour(
    connection: Connection, since_us: int, until_us: int
) -> list[tuple[int, str, int]]:
    """(hour, event type, events) in [since_us, until_us), in order of time."""
    hour = event_counts.c.hour_us
    statement = (
        select(hour, event_counts.c.event_type, event_counts.c.events)
        .where(hour >= since_us, hour < until_us)
        .order_by(hour, event_counts.c.event_type)
    )
    return [(int(row[0]), row[1], int(row[2])) for row in connection.execute(statement)]


def users_by_day(connection: Connection, since_us: int, until_us: int) -> list[tuple[int, int]]:
    """(day, users and sessions with an event in it), in order of time."""
    day = active_users.c.day_us
    statement = select(day, active_users.c.users).where(day >= since_us, day < until_us)
    return [(int(row[0]), int(row[1])) for row in connection.execute(statement.order_by(day))]


def add_service_counts(connection: Connection, counted: Mapping[tuple[int, Key], int]) -> None:
    """Add what a worker counted: (moment in µs, (kind, name, bucket)) -> number.

    In the order of the keys, so that two workers cannot lock each other.
    """
    more: dict[tuple[int, int, str, str, float], int] = {}
    for (at_us, key), number in counted.items():
        for span in SPANS:
            place = (span, at_us - at_us % (span * 1_000_000), *key)
            more[place] = more.get(place, 0) + number
    if not more:
        return
    statement = upsert(connection, service_counts)
    statement = statement.on_conflict_do_update(
        index_elements=list(service_counts.primary_key.columns),
        set_={"number": service_counts.c.number + statement.excluded.number},
    )
    names = ("span_seconds", "slot_us", "kind", "name", "bucket")
    rows = [{**dict(zip(names, at, strict=True)), "number": n} for at, n in sorted(more.items())]
    connection.execute(statement, rows)


def service_counts_by_slot(
    connection: Connection, kind: str, span: int, since_us: int, until_us: int
) -> list[tuple[int, str, float, int]]:
    """(slot, name, bucket, number) in [since_us, until_us), in order of time."""
    counts = service_counts.c
    statement = (
        select(counts.slot_us, counts.name, counts.bucket, counts.number)
        .where(
            counts.span_seconds == span,
            counts.slot_us >= since_us,
            counts.slot_us < until_us,
            counts.kind == kind,
        )
        .order_by(counts.slot_us, counts.name, counts.bucket)
    )
    rows = connection.execute(statement)
    return [(int(row[0]), row[1], float(row[2]), int(row[3])) for row in rows]


def uses_by_name(
    connection: Connection, kind: str, since_us: int, until_us: int
) -> dict[str, UsageCount]:
    """What was counted of one kind in [since_us, until_us), by name."""
    counts = service_counts.c
    recent = until_us - KEPT_DAYS[300] * DAY_US
    last: dict[str, UsageCount] = {}
    for span, from_us in ((3_600, since_us), (300, max(since_us, recent))):
        statement = (
            select(counts.name, func.sum(counts.number), func.max(counts.slot_us))
            .where(
                counts.span_seconds == span,
                counts.slot_us >= from_us - from_us % (span * 1_000_000),
                counts.slot_us < until_us,
                counts.kind == kind,
            )
            .group_by(counts.name)
        )
        for name, number, slot_us in connection.execute(statement):
            known = last.get(name, UsageCount(int(number), 0))
            last[name] = UsageCount(known.number, max(known.last_us, int(slot_us)))
    return last


def prune_service_counts(connection: Connection, now_us: int) -> int:
    """Delete slots past their time; how many rows went."""
    old = [
        (service_counts.c.span_seconds == span)
        & (service_counts.c.slot_us < now_us - days * DAY_US)
        for span, days in KEPT_DAYS.items()
    ]
    return connection.execute(delete(service_counts).where(or_(*old))).rowcount


def _by_hour(connection: Connection, start_us: int, end_us: int) -> list[HourCount]:
    time_us = events.c.timestamp_us
    hour = (time_us - time_us % HOUR_US).label("hour_us")
    statement = (
        select(hour, events.c.event_type, func.count().label("events"))
        .where(time_us >= start_us, time_us < end_us)
        .group_by(hour, events.c.event_type)
    )
    return [
        HourCount(hour_us=row.hour_us, event_type=row.event_type, events=row.events)
        for row in connection.execute(statement)
    ]


def _by_day(connection: Connection, start_us: int, end_us: int) -> list[DayCount]:
    """A session without a user counts as one."""
    time_us = events.c.timestamp_us
    day = (time_us - time_us % DAY_US).label("day_us")
    known = func.count(events.c.user_id.distinct())
    anonymous = case((events.c.user_id.is_(None), events.c.session_id))
    statement = (
        select(day, (known + func.count(anonymous.distinct())).label("users"))
        .where(time_us >= start_us, time_us < end_us)
        .group_by(day)
    )
    rows = connection.execute(statement)
    return [DayCount(day_us=row.day_us, users=row.users) for row in rows]


def _stretches(days: list[int]) -> list[tuple[int, int]]:
    """[start, end) of days in a row; one over all where there are many.

    >>> _stretches([0, DAY_US, 5 * DAY_US]) == [(0, 2 * DAY_US), (5 * DAY_US, 6 * DAY_US)]
    True
    """
    found: list[tuple[int, int]] = []
    for day in days:
        if found and found[-1][1] == day:
            found[-1] = (found[-1][0], day + DAY_US)
        else:
            found.append((day, day + DAY_US))
    return found if len(found) <= MAX_STRETCHES else [(found[0][0], found[-1][1])]
