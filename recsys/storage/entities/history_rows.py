"""The history of a user or session: the newest events, as a request reads them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Select,
    SmallInteger,
    Text,
    and_,
    bindparam,
    cast,
    func,
    literal,
    or_,
    select,
    true,
)

from recsys.events.identity import Owner, user_bucket, users_and_sessions
from recsys.storage.engine.short_selects import CompiledSelect
from recsys.storage.schema.tables import aliases, events

MAX_SEEN_EVENTS = 10_000  # newest events that are searched for items already seen
EventTypes = Collection[str] | None  # those that are asked for; None: all


class HistoryEvent(NamedTuple):
    """One past event of a user or session. A tuple: an answer makes dozens, and keeps them."""

    item_id: str
    event_type: str
    timestamp_us: int
    session_id: str | None
    event_id: str
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """The newest events of a user or session."""

    events: list[HistoryEvent]  # oldest first
    complete: bool  # whether there are surely no older ones


_FIELDS = len(HistoryEvent._fields)  # behind which a row has its id
_HISTORY_COLUMNS = (*(events.c[name] for name in HistoryEvent._fields), events.c.id)


def _newest(
    condition: ColumnElement[bool], limit: Any, types: tuple[str, ...] | None = None
) -> Select[Any]:
    statement = select(*_HISTORY_COLUMNS).where(condition)
    if types is not None:  # spelled out: a compiled statement takes no list
        statement = statement.where(events.c.event_type.in_([literal(name) for name in types]))
    return statement.order_by(events.c.timestamp_us.desc(), events.c.id.desc()).limit(limit)


# Of a session that is read along with a user: another user's events in it are not this user's.
_UNOWNED = or_(events.c.user_id.is_(None), events.c.user_id == bindparam("user"))
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


class _Statements:
    """What reads the newest events of these types (None: all)."""

    def __init__(self, types: tuple[str, ...] | None) -> None:
        self._types = types
        self.of_user = self._compiled(events.c.user_id == bindparam("owner"), "bucket")
        of_session = events.c.session_id == bindparam("owner")
        self.of_session = self._compiled(of_session)  # events of it may be a user's
        both = ("bucket", "user_bucket")
        self.of_session_with_user = self._compiled(and_(of_session, _UNOWNED), *both)
        self.of_users = self._compiled_of_each(_OWNED_USER)
        self.of_sessions_with_user = self._compiled_of_each(_OWNED_SESSION)

    def _compiled(self, condition: ColumnElement[bool], *buckets: str) -> CompiledSelect:
        """The newest events under `condition`, all of which lie in one of the named `buckets`.

        PostgreSQL then looks into the partitions of those alone. SQLite has one table, and is not
        told: it might take the index of buckets for the better one.
        """
        limit: Any = bindparam("row_limit")
        within = events.c.user_bucket.in_([bindparam(name) for name in buckets])
        narrow = _newest(and_(condition, within), limit, self._types) if buckets else None
        return CompiledSelect(_newest(condition, limit, self._types), narrow)

    def _compiled_of_each(self, condition: ColumnElement[bool]) -> CompiledSelect:
        limit: Any = bindparam("row_limit")
        each = _of_each(_newest(condition, limit, self._types))
        latest = [each.selected_columns[name].desc() for name in ("timestamp_us", "id")]
        return CompiledSelect(each.order_by(*latest).limit(limit))


@lru_cache(maxsize=64)
def _statements(types: tuple[str, ...] | None) -> _Statements:
    """Built once: the statement cache then knows them by identity, and a request compiles nothing."""
    return _Statements(types)


_ALIASES = CompiledSelect(
    select(aliases.c.alias_key).where(aliases.c.user_id == bindparam("owner"))
)


def merged_into(connection: Connection, user_id: str) -> tuple[str, ...]:
    """Keys of what was merged into a user: 's:<session_id>' and 'u:<user_id>'."""
    return tuple(key for (key,) in _ALIASES(connection, owner=user_id))


def owned_keys(connection: Connection, owner: Owner) -> list[str]:
    """'u:<user_id>' and 's:<session_id>' of all whose events are a user's, each once."""
    user_id, merged = owner.user_id or "", owner.merged
    if merged is None:
        merged = merged_into(connection, user_id)
    session = [] if owner.session_id is None else [f"s:{owner.session_id}"]
    return list(dict.fromkeys([f"u:{user_id}", *merged, *session]))


def history(
    connection: Connection, owner: Owner, limit: int = 50, types: EventTypes = None
) -> History:
    """The newest `limit` events of `owner` of these types."""
    statements = _statements(None if types is None else tuple(sorted(types)))
    user_id, session_id = owner.user_id, owner.session_id
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
        users, sessions = users_and_sessions(owned_keys(connection, owner))
        read(statements.of_user, users, statements.of_users)
        read(statements.of_session_with_user, sessions, statements.of_sessions_with_user)
    elif session_id is not None:
        read(statements.of_session, [session_id])
    if reads == 1:
        rows.reverse()
    else:  # a row may come twice, as the user's and as the session's
        unique = {row[_FIELDS]: row for row in rows}.values()
        rows = sorted(unique, key=lambda row: (row[2], row[_FIELDS]))
    return History([HistoryEvent._make(row[:_FIELDS]) for row in rows[-limit:]], len(rows) < limit)


def seen_items(connection: Connection, owner: Owner, types: EventTypes) -> set[str]:
    """Items of the newest events of these types, `MAX_SEEN_EVENTS` of each id at most."""
    user_id, session_id = owner.user_id, owner.session_id

    def newest(condition: ColumnElement[bool]) -> Select[Any]:
        part = select(events.c.item_id).where(condition)
        if types is not None:
            part = part.where(events.c.event_type.in_(types))
        return part.order_by(events.c.timestamp_us.desc()).limit(MAX_SEEN_EVENTS)

    if user_id is None:
        of_session = newest(events.c.session_id == session_id)
        return set() if session_id is None else set(connection.execute(of_session).scalars())
    users, sessions = users_and_sessions(owned_keys(connection, owner))
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


def history_statements() -> dict[str, tuple[Select[tuple[object, ...]], str]]:
    """What a request reads a history with, by owner, and the index that should serve it."""
    return {
        "user": (_newest(events.c.user_id == "u", 50), "ix_events_user"),
        "session": (_newest(events.c.session_id == "s", 50), "ix_events_session"),
    }
