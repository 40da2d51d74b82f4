"""Events as rows: what REST posts and what a request reads back."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    SmallInteger,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    delete,
    func,
    literal,
    or_,
    select,
    true,
)

from recsys.events.fields import EVENT_COLUMNS, Event
from recsys.events.identity import user_bucket
from recsys.storage.engine.database import upsert
from recsys.storage.engine.short_selects import CompiledSelect
from recsys.storage.schema.tables import aliases, events, item_categories

MAX_SEEN_EVENTS = 10_000  # newest events that are searched for items already seen
INSERT_ROWS = 2_000  # rows a statement: PostgreSQL takes 65,535 values


class HistoryEvent(NamedTuple):
    """One past event of a user or session. A tuple: an answer makes dozens, and keeps them."""

    item_id: str
    event_type: str
    timestamp_us: int
    session_id: str | None
    event_id: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of one posted event."""

    event_id: str
    accepted: bool  # False: it was there before, or twice in the request


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of events, the newest first."""

    events: list[Event]
    next_before: int | None  # by which the next page is asked for; None: this is the last


def insert_events(
    connection: Connection, posted: Sequence[Event], received_at_us: int
) -> list[Stored]:
    """Store `posted` in order; an event whose id is already there for its user is a duplicate."""
    rows = [_row(event, received_at_us) for event in posted]
    fresh: set[tuple[int, str]] = set()
    for at in range(0, len(rows), INSERT_ROWS):
        statement = (
            upsert(connection, events)
            .values(rows[at : at + INSERT_ROWS])
            .on_conflict_do_nothing(index_elements=["user_bucket", "event_id"])
            .returning(events.c.user_bucket, events.c.event_id)
        )
        fresh.update((row.user_bucket, row.event_id) for row in connection.execute(statement))
    stored = []
    for row in rows:
        key = (row["user_bucket"], row["event_id"])
        stored.append(Stored(row["event_id"], key in fresh))
        fresh.discard(key)  # the second of two equal ids in one request is a duplicate
    return stored


def _row(event: Event, received_at_us: int) -> dict[str, Any]:
    row = {name: getattr(event, name) for name in EVENT_COLUMNS}
    row["user_bucket"] = user_bucket(event.user_id or event.session_id or "")
    row["event_id"] = event.event_id or uuid.uuid4().hex
    row["received_at_us"] = received_at_us
    return row


_HISTORY_COLUMNS = (*(events.c[name] for name in HistoryEvent._fields), events.c.id)


def _newest(condition: ColumnElement[bool], limit: Any) -> Select[Any]:
    return (
        select(*_HISTORY_COLUMNS)
        .where(condition)
        .order_by(events.c.timestamp_us.desc(), events.c.id.desc())
        .limit(limit)
    )


def _hot(condition: ColumnElement[bool], *buckets: str) -> CompiledSelect:
    """The newest events under `condition`, all of which lie in one of the named `buckets`.

    PostgreSQL then looks into the partitions of those alone. SQLite has one table, and is not told:
    it might take the index of buckets for the better one.
    """
    limit: Any = bindparam("row_limit")
    within = events.c.user_bucket.in_([bindparam(name) for name in buckets])
    narrow = _newest(and_(condition, within), limit) if buckets else None
    return CompiledSelect(_newest(condition, limit), narrow)


# Built once: the statement cache then knows them by identity, and a request pays no compilation.
_OF_USER = _hot(events.c.user_id == bindparam("owner"), "bucket")
_OF_SESSION = _hot(events.c.session_id == bindparam("owner"))  # events of it may be a user's
# Of a session that is read along with a user: another user's events in it are not this user's.
_UNOWNED = or_(events.c.user_id.is_(None), events.c.user_id == bindparam("user"))
_OF_SESSION_WITH_USER = _hot(
    and_(events.c.session_id == bindparam("owner"), _UNOWNED), "bucket", "user_bucket"
)
# PostgreSQL: the newest of each of `owners`, which lie in `buckets`, by one statement.
_OWNED = (
    func.unnest(
        cast(bindparam("owners"), ARRAY(Text)), cast(bindparam("buckets"), ARRAY(SmallInteger))
    )
    .table_valued("key", "bucket", name="owned")
    .render_derived()
)
_OWNED_USER = and_(events.c.user_id == _OWNED.c.key, events.c.user_bucket == _OWNED.c.bucket)
_OWNED_SESSION = and_(
    events.c.session_id == _OWNED.c.key,
    _UNOWNED,
    events.c.user_bucket.in_([_OWNED.c.bucket, bindparam("user_bucket")]),
)


def _of_each(newest: Select[Any]) -> Select[Any]:
    """The rows of `newest` for each row of _OWNED, which it names."""
    found = newest.lateral("found")
    return select(found).select_from(_OWNED.join(found, true()))


def _hot_of_each(condition: ColumnElement[bool]) -> CompiledSelect:
    limit: Any = bindparam("row_limit")
    each = _of_each(_newest(condition, limit))
    latest = [each.selected_columns[name].desc() for name in ("timestamp_us", "id")]
    return CompiledSelect(each.order_by(*latest).limit(limit))


_OF_USERS = _hot_of_each(_OWNED_USER)
_OF_SESSIONS_WITH_USER = _hot_of_each(_OWNED_SESSION)
_ALIASES = CompiledSelect(
    select(aliases.c.alias_key).where(aliases.c.user_id == bindparam("owner"))
)


def history_statements() -> dict[str, tuple[Select[tuple[object, ...]], str]]:
    """What a request reads a history with, by owner, and the index that should serve it."""
    return {
        "user": (_newest(events.c.user_id == "u", 50), "ix_events_user"),
        "session": (_newest(events.c.session_id == "s", 50), "ix_events_session"),
    }


@dataclass(frozen=True, slots=True)
class History:
    """The newest events of a user or session."""

    events: list[HistoryEvent]  # oldest first
    complete: bool  # whether there are surely no older ones


def merged_into(connection: Connection, user_id: str) -> tuple[str, ...]:
    """Keys of what was merged into a user: 's:<session_id>' and 'u:<user_id>'."""
    return tuple(key for (key,) in _ALIASES(connection, owner=user_id))


def history(
    connection: Connection,
    user_id: str | None = None,
    session_id: str | None = None,
    limit: int = 50,
    merged: Sequence[str] | None = None,
) -> History:
    """The newest `limit` events of a user (of the ids merged into it too), or of a session.

    With both, the session's events that no user owns yet are read along. `merged`: what
    `merged_into` said, where the caller knows it.
    """
    rows: list[Any] = []
    reads = 0
    shared = {"user": user_id, "user_bucket": user_bucket(user_id or ""), "row_limit": limit}

    def read(
        one: CompiledSelect, owners: Sequence[str], together: CompiledSelect | None = None
    ) -> None:
        nonlocal reads
        reads += len(owners)
        if together is not None and len(owners) > 1 and connection.dialect.name == "postgresql":
            buckets = [user_bucket(owner) for owner in owners]
            rows.extend(together(connection, owners=owners, buckets=buckets, **shared))
            return
        for owner in owners:  # in SQLite a statement costs no way to a server
            rows.extend(one(connection, owner=owner, bucket=user_bucket(owner), **shared))

    if user_id is not None:
        if merged is None:
            merged = merged_into(connection, user_id)
        users, sessions = _owners(user_id, session_id, merged)
        read(_OF_USER, users, _OF_USERS)
        read(_OF_SESSION_WITH_USER, sessions, _OF_SESSIONS_WITH_USER)
    elif session_id is not None:
        read(_OF_SESSION, [session_id])
    if reads == 1:
        rows.reverse()
    else:  # a row may come twice, as the user's and as the session's
        unique = {row[5]: row for row in rows}.values()
        rows = sorted(unique, key=lambda row: (row[2], row[5]))
    return History([HistoryEvent._make(row[:5]) for row in rows[-limit:]], len(rows) < limit)


def _owners(
    user_id: str, session_id: str | None, merged: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Users and sessions that a user's events are of; each once."""
    keys = dict.fromkeys([f"u:{user_id}", *merged])
    if session_id is not None:
        keys[f"s:{session_id}"] = None
    users = [key[2:] for key in keys if key.startswith("u:")]
    return users, [key[2:] for key in keys if key.startswith("s:")]


def seen_items(
    connection: Connection,
    user_id: str | None,
    session_id: str | None,
    event_types: Collection[str] | None,
) -> set[str]:
    """Items of the newest events of these types (None: all), `MAX_SEEN_EVENTS` of each id at most."""

    def newest(condition: ColumnElement[bool]) -> Select[Any]:
        part = select(events.c.item_id).where(condition)
        if event_types is not None:
            part = part.where(events.c.event_type.in_(event_types))
        return part.order_by(events.c.timestamp_us.desc()).limit(MAX_SEEN_EVENTS)

    if user_id is None:
        of_session = newest(events.c.session_id == session_id)
        return set() if session_id is None else set(connection.execute(of_session).scalars())
    users, sessions = _owners(user_id, session_id, merged_into(connection, user_id))
    shared = {"user": user_id, "user_bucket": user_bucket(user_id)}
    found: set[str] = set()
    for owners, one, together in (
        (users, events.c.user_id == bindparam("owner"), _OWNED_USER),
        (sessions, and_(events.c.session_id == bindparam("owner"), _UNOWNED), _OWNED_SESSION),
    ):
        if connection.dialect.name == "postgresql":
            statement = _of_each(newest(together)).distinct()
            buckets = [user_bucket(owner) for owner in owners]
            calls: list[dict[str, Any]] = [{"owners": owners, "buckets": buckets}]
        else:
            statement = newest(one)
            calls = [{"owner": owner} for owner in owners]
        for values in calls:
            found.update(connection.execute(statement, {**shared, **values}).scalars())
    return found


def popular_items(
    connection: Connection,
    since_us: int,
    category: str | None = None,
    limit: int = 100,
    until_us: int | None = None,
) -> list[tuple[str, int]]:
    """(item id, events) of the items with most events in [since_us, until_us), most first."""
    count = func.count().label("events")
    statement = select(events.c.item_id, count).where(events.c.timestamp_us >= since_us)
    if until_us is not None:
        statement = statement.where(events.c.timestamp_us < until_us)
    if category is not None:
        statement = statement.join(
            item_categories, item_categories.c.item_id == events.c.item_id
        ).where(item_categories.c.category == category)
    statement = (
        statement.group_by(events.c.item_id).order_by(count.desc(), events.c.item_id).limit(limit)
    )
    return [(row.item_id, row.events) for row in connection.execute(statement)]


def events_of(user_id: str, merged: Collection[str]) -> ColumnElement[bool]:
    """The condition on an event of being a user's, given what was merged into that user."""
    ids = [user_id, *(key[2:] for key in merged if key.startswith("u:"))]
    sessions = [key[2:] for key in merged if key.startswith("s:")]
    owned: ColumnElement[bool] = events.c.user_id.in_(ids)
    if sessions:  # another user's events in a merged session are not this user's
        unowned = and_(events.c.session_id.in_(sessions), events.c.user_id.is_(None))
        owned = or_(owned, unowned)
    return owned


def user_events(
    connection: Connection, user_id: str, limit: int, before_id: int | None = None
) -> EventPage:
    """A page of a user's events, newest arrival first; `before_id` is the last id of the page before."""
    owned = events_of(user_id, merged_into(connection, user_id))
    statement = select(*(events.c[name] for name in EVENT_COLUMNS), events.c.id).where(owned)
    statement = statement.order_by(events.c.id.desc()).limit(limit)
    if before_id is not None:
        statement = statement.where(events.c.id < before_id)
    rows = connection.execute(statement).all()
    found = [Event(**{name: getattr(row, name) for name in EVENT_COLUMNS}) for row in rows]
    return EventPage(found, int(rows[-1].id) if len(rows) == limit else None)


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
