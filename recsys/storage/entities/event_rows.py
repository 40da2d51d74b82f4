"""Events as rows: posting, paging, counting and pruning them."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    any_,
    case,
    delete,
    func,
    literal,
    or_,
    select,
)

from recsys.events.fields import EVENT_COLUMNS, Event
from recsys.events.identity import Owner, user_bucket, users_and_sessions
from recsys.storage.entities import history_rows, item_rows
from recsys.storage.schema.tables import event_counts, events, item_categories, items
from recsys.storage.schema.tables.event_tables import OWNER_KEY

NEWEST = 5_000  # events among which types are looked for beside those counted by the hour

_GIVEN = tuple(name for name in EVENT_COLUMNS if name != "event_id")
_values = attrgetter(*_GIVEN)
_INSERTED = ("user_bucket", "event_id", "received_at_us", *_GIVEN)
_INSERT = f"INSERT INTO events ({', '.join(_INSERTED)})"
_UNLESS_STORED = f"ON CONFLICT (user_bucket, event_id, {OWNER_KEY}) DO NOTHING"
# A row a set of parameters: the driver binds them to a statement that is compiled once.
_IN_SQLITE = f"{_INSERT} VALUES ({', '.join('?' * len(_INSERTED))}) {_UNLESS_STORED}"
_NEWEST_IN_SQLITE = "SELECT user_id, session_id, event_id FROM events ORDER BY id DESC LIMIT ?"
# All rows in one parameter, which the server takes apart.
_TYPES = ", ".join(f"{name} {events.c[name].type}" for name in _INSERTED)
_IN_POSTGRESQL = f"""
    {_INSERT} SELECT {", ".join(_INSERTED)} FROM json_to_recordset(%s::json) AS given ({_TYPES})
    {_UNLESS_STORED} RETURNING user_id, session_id, event_id
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class PostedEvent:
    """What became of one posted event."""

    event_id: str
    accepted: bool  # False: it was there before, or twice in the request


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of events, the newest first."""

    events: list[Event]
    next_before: int | None  # by which the next page is asked for; None: this is the last


ItemCounts = list[tuple[str, int]]  # (item id, how many), most first


@dataclass(frozen=True, slots=True)
class PopularityQuery:
    """Which items are counted, from which events."""

    since_us: int
    until_us: int | None = None  # events before it alone
    category: str | None = None
    limit: int = 100
    # Of items outside the catalogue, where there is one, users count alone: a page's key posts for
    # sessions, and any text.
    known_only: bool = False


def event_types(connection: Connection) -> set[str]:
    """The types of events, as the refresh job counted them and among the newest."""
    newest = select(events.c.event_type).order_by(events.c.id.desc()).limit(NEWEST).subquery()
    counted = select(event_counts.c.event_type).distinct()
    found = set(connection.execute(counted).scalars())
    return found | set(connection.execute(select(newest.c.event_type).distinct()).scalars())


def insert_events(
    connection: Connection, posted: Sequence[Event], received_at_us: int
) -> list[PostedEvent]:
    """Store `posted` in order; an event whose id is already there for its owner is a duplicate."""
    if not posted:
        return []
    ids = [event.event_id or secrets.token_hex(16) for event in posted]
    rows = [
        (user_bucket(event.user_id or event.session_id or ""), event_id, received_at_us, *values)
        for event, event_id, values in zip(posted, ids, map(_values, posted), strict=True)
    ]
    fresh = _insert_rows(connection, rows)
    stored = []
    for event, event_id in zip(posted, ids, strict=True):
        key = (event.user_id, event.session_id, event_id)
        stored.append(PostedEvent(event_id, key in fresh))
        fresh.discard(key)  # the second of two equal ids in one request is a duplicate
    return stored


def _insert_rows(
    connection: Connection, rows: list[tuple[Any, ...]]
) -> set[tuple[str | None, str | None, str]]:
    """Insert `rows` (_INSERTED) that are not stored; (user_id, session_id, event_id) of those that went in."""
    if connection.dialect.name == "postgresql":
        given = orjson.dumps([dict(zip(_INSERTED, row, strict=True)) for row in rows])
        found = connection.exec_driver_sql(_IN_POSTGRESQL, (given.decode(),))
    else:
        number = connection.exec_driver_sql(_IN_SQLITE, rows).rowcount
        if number == len(rows):
            return {
                (user_id, session_id, event_id) for _, event_id, _, user_id, session_id, *_ in rows
            }
        # Nobody else writes meanwhile, so the newest rows are those that went in.
        found = connection.exec_driver_sql(_NEWEST_IN_SQLITE, (number,))
    return {(row[0], row[1], row[2]) for row in found}


def popular_items(connection: Connection, query: PopularityQuery) -> ItemCounts:
    """Items by how many users and sessions had an event of them.

    However many events somebody sends, each counts once for an item.
    """
    session = case((events.c.user_id.is_(None), events.c.session_id))
    pairs = select(events.c.item_id, events.c.user_id, session).where(
        events.c.timestamp_us >= query.since_us
    )
    if query.until_us is not None:
        pairs = pairs.where(events.c.timestamp_us < query.until_us)
    if query.category is not None:
        within = item_categories.c.item_id == events.c.item_id
        of_category = item_categories.c.category == query.category
        pairs = pairs.join(item_categories, within).where(of_category)
    elif query.known_only and item_rows.has_items(connection):
        pairs = pairs.outerjoin(items, items.c.item_id == events.c.item_id)
        pairs = pairs.where(or_(items.c.item_id.is_not(None), events.c.user_id.is_not(None)))
    owners = pairs.distinct().subquery()
    count = func.count().label("owners")
    statement = (
        select(owners.c.item_id, count)
        .group_by(owners.c.item_id)
        .order_by(count.desc(), owners.c.item_id)
        .limit(query.limit)
    )
    return [(row.item_id, row.owners) for row in connection.execute(statement)]


def events_of(user_id: str, merged: Collection[str]) -> ColumnElement[bool]:
    """The condition on an event of being a user's, given what was merged into that user."""
    return owned_by([f"u:{user_id}", *merged])


def owned_by(keys: Collection[str]) -> ColumnElement[bool]:
    """The condition on an event of being of any of 'u:<user_id>' and 's:<session_id>'."""
    ids, sessions = users_and_sessions(keys)
    owned: ColumnElement[bool] = events.c.user_id.in_(ids)
    if sessions:  # another user's events in a merged session are not this user's
        unowned = and_(events.c.session_id.in_(sessions), events.c.user_id.is_(None))
        owned = or_(owned, unowned)
    return owned


def user_events(
    connection: Connection, user_id: str, limit: int, before_id: int | None = None
) -> EventPage:
    """A page of a user's events, newest arrival first; `before_id` is the last id of the page before."""
    owned = events_of(user_id, history_rows.merged_into(connection, user_id))
    statement = select(*(events.c[name] for name in EVENT_COLUMNS), events.c.id).where(owned)
    statement = statement.order_by(events.c.id.desc()).limit(limit)
    if before_id is not None:
        statement = statement.where(events.c.id < before_id)
    rows = connection.execute(statement).all()
    found = [Event(**{name: getattr(row, name) for name in EVENT_COLUMNS}) for row in rows]
    return EventPage(found, int(rows[-1].id) if len(rows) == limit else None)


def newest_events(connection: Connection, owner: Owner, limit: int) -> list[Event]:
    """The newest `limit` events of `owner`, newest first by time."""
    owned = events.c.session_id == owner.session_id
    if owner.user_id is not None:
        owned = owned_by(history_rows.owned_keys(connection, owner))
    statement = select(*(events.c[name] for name in EVENT_COLUMNS)).where(owned)
    statement = statement.order_by(events.c.timestamp_us.desc(), events.c.id.desc()).limit(limit)
    return [Event(**row._mapping) for row in connection.execute(statement)]


def delete_before(connection: Connection, before_us: int, limit: int) -> int:
    """Delete at most `limit` of the events older than `before_us`; how many went."""
    old = select(events.c.id).where(events.c.timestamp_us < before_us).limit(limit)
    if connection.dialect.name == "sqlite":
        # It gives the largest id away again once that row is gone; what was read up to it would then
        # count the new row as read.
        old = old.where(events.c.id < select(func.max(events.c.id)).scalar_subquery())
    chosen: ColumnElement[bool] = events.c.id.in_(old)
    if connection.dialect.name == "postgresql":
        # Named one by one they are found in the index of each partition; joined to a subquery,
        # every partition would be read.
        ids = list(connection.execute(old).scalars())
        chosen = events.c.id == any_(literal(ids, ARRAY(BigInteger)))
    return connection.execute(delete(events).where(chosen)).rowcount


def event_span(connection: Connection) -> tuple[int, int, int]:
    """Number of events, and the first and last timestamp_us (0 where there is none)."""
    row = connection.execute(
        select(func.count(), func.min(events.c.timestamp_us), func.max(events.c.timestamp_us))
    ).one()
    return int(row[0]), int(row[1] or 0), int(row[2] or 0)
