"""Feedback of Gorse clients as their lists show it: the events of a (type, user, item) as one row.

Values are added, from the event on that was put last; the time is the earliest, and the details are the
newest event's. Which events are feedback, their ids tell (`gorse_objects.ADDED`, `PUT`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
    union_all,
)

from recsys.events.fields import Event
from recsys.events.identity import user_bucket
from recsys.ingest.gorse_objects import PUT
from recsys.storage.schema.tables import deferred_events, events
from recsys.storage.schema.tables.event_tables import FEEDBACK

MOST = 10_000  # rows of a list that is not read page by page
_LATER = 2**62  # added to the numbers of what is deferred, which comes after all that is stored


class Key(NamedTuple):
    """What a row of feedback is known by."""

    feedback_type: str
    user_id: str
    item_id: str


@dataclass(frozen=True, slots=True)
class Feedback:
    """The events of a key as one row."""

    key: Key
    value: float
    timestamp_us: int  # of the earliest
    updated_us: int  # of the latest
    details: dict[str, Any]  # labels and comment of the newest


def key_of(event: Event) -> Key:
    return Key(event.event_type, event.user_id or "", event.item_id)


def page(
    connection: Connection, limit: int, start: Key | None, feedback_type: str | None = None
) -> tuple[list[Feedback], Key | None]:
    """The first `limit` rows by key from `start` on, and the key that the next page begins with."""
    key = (events.c.event_type, events.c.user_id, events.c.item_id)
    wanted: list[Any] = [text(FEEDBACK)]
    if feedback_type is not None:
        wanted.append(events.c.event_type == feedback_type)
    if start is not None:
        wanted.append(tuple_(*key) >= tuple_(*start))
    keys = select(*key).where(*wanted).group_by(*key).order_by(*key).limit(limit + 1)
    found = [Key(*row) for row in connection.execute(keys)]
    shown, following = found[:limit], found[limit:]
    if not shown:
        return [], None
    between = and_(tuple_(*key) >= tuple_(*shown[0]), tuple_(*key) <= tuple_(*shown[-1]))
    rows = _folded(connection, _stored(and_(text(FEEDBACK), between)), limit)
    return rows, following[0] if following else None


def of_user(
    connection: Connection, user_id: str, feedback_type: str | None = None
) -> list[Feedback]:
    """A user's rows by key, the first MOST."""
    return _folded(connection, _stored(feedback_of(user_id, None, feedback_type)), MOST)


def of_item(
    connection: Connection, item_id: str, feedback_type: str | None = None
) -> list[Feedback]:
    """An item's rows by key, the first MOST."""
    return _folded(connection, _stored(feedback_of(None, item_id, feedback_type)), MOST)


def of_pair(
    connection: Connection, user_id: str, item_id: str, feedback_type: str | None = None
) -> list[Feedback]:
    """The rows of a user and an item by type, with those that are deferred."""
    later = deferred_events.c
    waiting = and_(later.user_id == user_id, later.item_id == item_id)
    if feedback_type is not None:
        waiting = and_(waiting, later.event_type == feedback_type)
    deferred = select(
        (later.id + literal(_LATER, BigInteger)).label("id"),
        *(later[name] for name in _FOLDED[1:]),
    ).where(waiting)
    both = union_all(_stored(feedback_of(user_id, item_id, feedback_type)), deferred)
    return _folded(connection, both, MOST)


_FOLDED = (
    "id",
    "event_type",
    "user_id",
    "item_id",
    "value",
    "timestamp_us",
    "event_id",
    "properties",
)


def _stored(condition: Any) -> Select[Any]:
    return select(*(events.c[name] for name in _FOLDED)).where(condition)


def feedback_of(user_id: str | None, item_id: str | None, feedback_type: str | None) -> Any:
    wanted: list[Any] = [text(FEEDBACK)]
    if user_id is not None:  # the bucket for PostgreSQL, which then looks into one partition
        wanted += [events.c.user_id == user_id, events.c.user_bucket == user_bucket(user_id)]
    if item_id is not None:
        wanted.append(events.c.item_id == item_id)
    if feedback_type is not None:
        wanted.append(events.c.event_type == feedback_type)
    return and_(*wanted)


def _folded(connection: Connection, source: Any, limit: int) -> list[Feedback]:
    """The rows of `source` (_FOLDED) as one a key, by key."""
    given = source.subquery("given").c
    key = (given.event_type, given.user_id, given.item_id)
    put = case((func.substr(given.event_id, 1, len(PUT)) == PUT, given.id))
    numbered = select(
        *key,
        given.id,
        given.value,
        given.timestamp_us,
        given.properties,
        func.max(put).over(partition_by=key).label("since"),
        func.row_number().over(partition_by=key, order_by=given.id.desc()).label("age"),
    ).subquery("numbered")
    one = numbered.c
    columns = (one.event_type, one.user_id, one.item_id)
    statement = (
        select(
            *columns,
            func.sum(func.coalesce(one.value, 0.0)),
            func.min(one.timestamp_us),
            func.max(one.timestamp_us),
            func.max(case((one.age == 1, one.properties))),
        )
        .where(or_(one.since.is_(None), one.id >= one.since))
        .group_by(*columns)
        .order_by(*columns)
        .limit(limit)
    )
    return [
        Feedback(Key(*row[:3]), float(row[3]), row[4], row[5], orjson.loads(row[6] or "{}"))
        for row in connection.execute(statement)
    ]
