"""Visitors as the dashboard lists them: users, and sessions of nobody known.

Every read is bounded and goes by an index, however many events there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from recsys.storage.engine.short_selects import values_from
from recsys.storage.entities import event_rows
from recsys.storage.schema.tables import aliases, events, impressions

SCANNED = 10_000  # newest events that one page of recent visitors looks through
BATCH = 1_000
LOOKED_UP = 250  # visitors that one page asks for their newest event
COUNTED = 1_000  # events of a visitor that a list counts
NEAR = 200  # ids after a prefix that are looked at: a database may sort them between others
MAX_MERGED = 100  # ids merged into a user whose events are read


@dataclass(frozen=True, slots=True)
class Visitor:
    """A user, or a session whose events no user owns. One of the two ids is set."""

    user_id: str | None
    session_id: str | None
    last_event_us: int
    last_item_id: str
    events: int  # COUNTED at most

    @property
    def name(self) -> str:
        return self.user_id or self.session_id or ""


@dataclass(frozen=True, slots=True)
class VisitorPage:
    """A page of visitors, and the row id that the next one goes on from."""

    visitors: list[Visitor]
    next_id: int | None
    scanned: int  # events looked through


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event stands in a visitor's time line."""

    timestamp_us: int
    row_id: int


def recent_visitors(
    connection: Connection, limit: int, before_id: int | None = None, kind: str | None = None
) -> VisitorPage:
    """Visitors by their newest arrivals; `kind` 'registered', 'anonymous' or None for both.

    A page may hold fewer than `limit` where one visitor sent most of the events looked through.
    """
    found: list[Visitor] = []
    known: set[tuple[str | None, str | None]] = set()
    at, scanned = before_id, 0
    while scanned < SCANNED:
        statement = select(events.c.id, events.c.user_id, events.c.session_id)
        if at is not None:
            statement = statement.where(events.c.id < at)
        rows = connection.execute(statement.order_by(events.c.id.desc()).limit(BATCH)).all()
        for row in rows:
            at, scanned = int(row.id), scanned + 1
            owner = (row.user_id, None) if row.user_id is not None else (None, row.session_id)
            wanted = kind is None or (kind == "registered") == (row.user_id is not None)
            if owner in known or not wanted:
                continue
            known.add(owner)
            visitor, newest = _visitor(connection, *owner)
            # One whose newest event is newer than this page stood on a page before it.
            if before_id is None or newest < before_id:
                found.append(visitor)
            if len(found) == limit or len(known) == LOOKED_UP:
                return VisitorPage(found, at, scanned)
        if len(rows) < BATCH:
            return VisitorPage(found, None, scanned)
    return VisitorPage(found, at, scanned)


def visitors_like(connection: Connection, prefix: str, limit: int) -> list[Visitor]:
    """Visitors whose id begins with `prefix`, an equal one first; users before sessions.

    Of the NEAR ids that follow the prefix in the database's order.
    """
    found: list[Visitor] = []
    for column in (events.c.user_id, events.c.session_id):
        of_users = column is events.c.user_id
        near = values_from(connection, column, prefix, NEAR)
        alike = sorted((name for name in near if name.startswith(prefix)), key=len)
        for name in alike[: limit - len(found)]:
            user_id, session_id = (name, None) if of_users else (None, name)
            found.append(_visitor(connection, user_id, session_id, owned=True)[0])
    return sorted(found, key=lambda one: one.name != prefix)


def _visitor(
    connection: Connection, user_id: str | None, session_id: str | None, owned: bool = False
) -> tuple[Visitor, int]:
    """One with events, and the row id of the newest; `owned`: a session's events of users too."""
    condition = _own(user_id, session_id, owned)
    newest = connection.execute(
        select(events.c.id, events.c.timestamp_us, events.c.item_id)
        .where(condition)
        .order_by(events.c.timestamp_us.desc(), events.c.id.desc())
        .limit(1)
    ).one()
    count = _count(connection, condition, COUNTED)
    visitor = Visitor(user_id, session_id, newest.timestamp_us, newest.item_id, count)
    return visitor, int(newest.id)


def count_events(
    connection: Connection, user_id: str | None, session_id: str | None, limit: int
) -> int:
    """How many events a user (with those merged in) or a session has; `limit` at most."""
    return sum(_count(connection, part, limit) for part in _parts(connection, user_id, session_id))


def time_line(
    connection: Connection,
    user_id: str | None,
    session_id: str | None,
    limit: int,
    before: Place | None = None,
) -> list[dict[str, Any]]:
    """The newest `limit` events before a place, newest first: rows of `events` as dicts."""
    order = (events.c.timestamp_us.desc(), events.c.id.desc())
    rows: dict[int, dict[str, Any]] = {}
    for condition in _parts(connection, user_id, session_id):
        statement = select(events).where(condition).order_by(*order).limit(limit)
        if before is not None:
            earlier = events.c.timestamp_us < before.timestamp_us
            tied = events.c.timestamp_us == before.timestamp_us
            statement = statement.where(or_(earlier, and_(tied, events.c.id < before.row_id)))
        rows.update((row.id, dict(row._mapping)) for row in connection.execute(statement))
    return sorted(rows.values(), key=lambda row: (-row["timestamp_us"], -row["id"]))[:limit]


def merged_to(connection: Connection, key: str) -> str | None:
    """The user that 'u:<user_id>' or 's:<session_id>' was merged into."""
    statement = select(aliases.c.user_id).where(aliases.c.alias_key == key)
    return connection.execute(statement).scalar()


def answers_to(
    connection: Connection, user_id: str | None, session_id: str | None, limit: int
) -> list[dict[str, Any]]:
    """The newest answers a user or session was given: id, time, version, scenario."""
    column = impressions.c.user_id if user_id is not None else impressions.c.session_id
    statement = (
        select(
            impressions.c.recommendation_id,
            impressions.c.created_at_us,
            impressions.c.model_version,
            impressions.c.scenario,
            impressions.c.arm,
        )
        .where(column == (user_id if user_id is not None else session_id))
        .order_by(impressions.c.id.desc())
        .limit(limit)
    )
    return [dict(row._mapping) for row in connection.execute(statement)]


def _parts(
    connection: Connection, user_id: str | None, session_id: str | None
) -> Iterable[ColumnElement[bool]]:
    """Conditions that together hold a visitor's events; each goes by one index."""
    yield _own(user_id, session_id, owned=True)
    if user_id is None:
        return
    for key in event_rows.merged_into(connection, user_id)[:MAX_MERGED]:
        yield _own(key[2:], None) if key.startswith("u:") else _own(None, key[2:])


def _own(user_id: str | None, session_id: str | None, owned: bool = False) -> ColumnElement[bool]:
    if user_id is not None:
        return events.c.user_id == user_id
    of_session = events.c.session_id == session_id
    return of_session if owned else and_(of_session, events.c.user_id.is_(None))


def _count(connection: Connection, condition: ColumnElement[bool], limit: int) -> int:
    some = select(events.c.id).where(condition).limit(limit).subquery()
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one())
