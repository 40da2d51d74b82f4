"""Feedback of Gorse clients: events of the log, beside its one row a (type, user, item).

    write        an event is appended; one that is put says that what came before it counts no more
    in future    what has a time to come waits in `deferred_events`, out of histories and sequences
    delete       the events go, and sequence files are told which

How it is read, `feedback_views` says.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, and_, delete, literal, select, text, tuple_

from recsys.events.fields import Event
from recsys.events.identity import user_bucket
from recsys.events.times import SECOND_US
from recsys.ingest.gorse_objects import ADDED, put_id
from recsys.storage.engine import advisory_lock
from recsys.storage.entities import conversion_rows, experiment_unit_rows
from recsys.storage.entities.event_rows import insert_events
from recsys.storage.entities.feedback_views import Key, feedback_of, key_of, of_pair
from recsys.storage.entities.tombstone_rows import is_erased
from recsys.storage.schema.tables import deferred_events, events, removed_events, users
from recsys.storage.schema.tables.event_tables import FEEDBACK

AHEAD_US = 5 * SECOND_US  # a client's clock may be ahead by so much
MOST = 10_000  # rows that a transaction moves or deletes
CHUNK = 200  # keys a statement


@dataclass(frozen=True)
class Written:
    """What became of some feedback."""

    accepted: tuple[Event, ...]  # stored as events
    deferred: int = 0
    duplicates: int = 0  # put before with the same content
    rejected: int = 0  # of users who were erased


def write_feedback(
    connection: Connection, given: Sequence[Event], overwrite: bool, now_us: int
) -> Written:
    """Store feedback, of equal keys the first alone; `overwrite`: what is stored of a key counts no more."""
    if not given:
        return Written(())
    by_key: dict[Key, Event] = {}
    for event in given:
        by_key.setdefault(key_of(event), event)
    advisory_lock.lock_shared(connection)
    erased = is_erased(connection, {f"u:{key.user_id}" for key in by_key})
    kept = {key: one for key, one in by_key.items() if f"u:{key.user_id}" not in erased}
    if overwrite:
        newest = _newest_ids(connection, list(kept))
        kept = {
            key: replace(one, event_id=put_id(one, newest.get(key))) for key, one in kept.items()
        }
        _delete_deferred(connection, list(kept))
    later = [one for one in kept.values() if one.timestamp_us > now_us + AHEAD_US]
    _defer(connection, later)
    due = [one for one in kept.values() if one.timestamp_us <= now_us + AHEAD_US]
    stored = _insert(connection, due, now_us)
    accepted = tuple(one for one, is_new in zip(due, stored, strict=True) if is_new)
    return Written(
        accepted, len(later), len(due) - len(accepted), len(by_key) - len(later) - len(due)
    )


def enter_due(connection: Connection, now_us: int, user_id: str | None = None) -> int:
    """Append to the log what was deferred and whose time has come, some MOST at once; how many."""
    due = deferred_events.c.timestamp_us <= now_us
    if user_id is not None:
        due &= deferred_events.c.user_id == user_id
    statement = select(deferred_events).where(due).order_by(deferred_events.c.id).limit(MOST)
    rows = connection.execute(statement.with_for_update(skip_locked=True)).all()
    if not rows:
        return 0
    erased = is_erased(connection, {f"u:{row.user_id}" for row in rows})
    names = ("item_id", "event_type", "timestamp_us", "event_id", "value", "properties")
    entering = [
        Event(user_id=row.user_id, session_id=None, **{name: getattr(row, name) for name in names})
        for row in rows
        if f"u:{row.user_id}" not in erased
    ]
    insert_events(connection, entering, now_us)
    for at in range(0, len(rows), CHUNK):
        ids = [row.id for row in rows[at : at + CHUNK]]
        connection.execute(delete(deferred_events).where(deferred_events.c.id.in_(ids)))
    return len(entering)


def is_due(connection: Connection, now_us: int, user_id: str | None = None) -> bool:
    """Whether `enter_due` has something to do."""
    due = deferred_events.c.timestamp_us <= now_us
    if user_id is not None:
        due &= deferred_events.c.user_id == user_id
    return connection.execute(select(deferred_events.c.id).where(due).limit(1)).first() is not None


def is_known(connection: Connection, user_id: str) -> bool:
    """Whether there is such a user: with attributes, or with events."""
    named = select(literal(1)).where(users.c.user_id == user_id)
    seen = select(literal(1)).where(
        events.c.user_id == user_id, events.c.user_bucket == user_bucket(user_id)
    )
    return any(connection.execute(one.limit(1)).first() is not None for one in (named, seen))


def delete_pair(
    connection: Connection, user_id: str, item_id: str, feedback_type: str | None, now_us: int
) -> int:
    """Delete the feedback of a user and an item; how many rows it was, deferred ones among them."""
    gone = len(of_pair(connection, user_id, item_id, feedback_type))
    later = deferred_events.c
    waiting = and_(later.user_id == user_id, later.item_id == item_id)
    if feedback_type is not None:
        waiting = and_(waiting, later.event_type == feedback_type)
    connection.execute(delete(deferred_events).where(waiting))
    while _delete_events(connection, feedback_of(user_id, item_id, feedback_type), now_us) == MOST:
        pass
    return gone


def delete_of_item(connection: Connection, item_id: str, now_us: int) -> int:
    """Delete at most MOST events that are feedback of an item; how many went."""
    connection.execute(delete(deferred_events).where(deferred_events.c.item_id == item_id))
    return _delete_events(connection, feedback_of(None, item_id, None), now_us)


def removed_events_since(connection: Connection, last: int) -> tuple[int, list[int]]:
    """The number of the latest removal of a single event, and the rows of those after number `last`."""
    rows = removed_events.c
    statement = select(rows.id, rows.event_row).where(rows.id > last).order_by(rows.id)
    found = connection.execute(statement).all()
    return (int(found[-1].id) if found else last), [int(row.event_row) for row in found]


def _newest_ids(connection: Connection, keys: Sequence[Key]) -> dict[Key, str]:
    """The id of the newest event of each of `keys`."""
    columns = (events.c.event_type, events.c.user_id, events.c.item_id)
    found: dict[Key, str] = {}
    for at in range(0, len(keys), CHUNK):
        wanted = tuple_(*columns).in_(keys[at : at + CHUNK])
        statement = select(*columns, events.c.event_id).where(text(FEEDBACK), wanted)
        for row in connection.execute(statement.order_by(events.c.id)):
            found[Key(*row[:3])] = row[3]
    return found


def _insert(connection: Connection, given: Sequence[Event], now_us: int) -> list[bool]:
    """Append `given`; whether each was new."""
    named = [replace(one, event_id=one.event_id or _new_id()) for one in given]
    return [one.accepted for one in insert_events(connection, named, now_us)]


def _new_id() -> str:
    return f"{ADDED}{secrets.token_hex(12)}"


def _defer(connection: Connection, given: Iterable[Event]) -> None:
    names = ("user_id", "item_id", "event_type", "timestamp_us", "value", "properties")
    rows = [
        {**{name: getattr(one, name) for name in names}, "event_id": one.event_id or _new_id()}
        for one in given
    ]
    if rows:
        connection.execute(deferred_events.insert(), rows)


def _delete_deferred(connection: Connection, keys: Sequence[Key]) -> None:
    later = deferred_events.c
    for at in range(0, len(keys), CHUNK):
        wanted = tuple_(later.event_type, later.user_id, later.item_id).in_(keys[at : at + CHUNK])
        connection.execute(delete(deferred_events).where(wanted))


def _delete_events(connection: Connection, condition: Any, now_us: int) -> int:
    """Delete at most MOST events under `condition`, and write down which."""
    advisory_lock.lock_shared(connection)
    rows = connection.execute(
        select(events.c.id, events.c.user_bucket).where(condition).limit(MOST)
    ).all()
    for at in range(0, len(rows), CHUNK):
        some = rows[at : at + CHUNK]
        chosen = and_(
            events.c.id.in_([row.id for row in some]),
            events.c.user_bucket.in_({row.user_bucket for row in some}),
        )
        conversion_rows.take_back(connection, chosen)
        experiment_unit_rows.take_back(connection, chosen)
        connection.execute(delete(events).where(chosen))
    if rows:
        experiment_unit_rows.read_again_from(connection)
        gone = [{"event_row": row.id, "removed_at_us": now_us} for row in rows]
        connection.execute(removed_events.insert(), gone)
    return len(rows)
