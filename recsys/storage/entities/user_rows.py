"""Users: a summary of what is stored of one, and merging another's events into one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from recsys.errors import ConflictError
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import upsert
from recsys.storage.entities import attribute_rows, conversion_rows, event_rows, history_rows
from recsys.storage.entities.stamps import bump
from recsys.storage.entities.tombstone_rows import is_erased
from recsys.storage.schema.tables import (
    aliases,
    events,
)


@dataclass(frozen=True)
class UserSummary:
    """What is stored of a user."""

    user_id: str
    events: int
    first_event_us: int | None
    last_event_us: int | None
    merged: tuple[str, ...]  # 'u:<user_id>' and 's:<session_id>'


def user_summary(connection: Connection, user_id: str) -> UserSummary:
    """Counts over the user's own events and those merged into it."""
    merged = history_rows.merged_into(connection, user_id)
    row = connection.execute(
        select(
            func.count(), func.min(events.c.timestamp_us), func.max(events.c.timestamp_us)
        ).where(event_rows.events_of(user_id, merged))
    ).one()
    return UserSummary(user_id, int(row[0]), row[1], row[2], merged)


class Merged(NamedTuple):
    """The user that a merge ended at."""

    user_id: str
    attributes_left_out: int  # of the other user, for which there was no room


def merged_to(connection: Connection, keys: Collection[str]) -> dict[str, str]:
    """The user into whom each of `keys` ('u:<user_id>', 's:<session_id>') was merged, of those that were."""
    statement = select(aliases.c.alias_key, aliases.c.user_id).where(
        aliases.c.alias_key.in_(list(keys))
    )
    return dict(connection.execute(statement).all())


def merge(connection: Connection, user_id: str, other: str, now_us: int) -> Merged:
    """Count the events of `other` ('u:<user_id>' or 's:<session_id>') as the user's from now on, and
    its attributes where the user has none of their names.

    Merging into a user who was merged elsewhere goes to where that one went. Raises ConflictError
    where that would be a circle, or where the user was erased.
    """
    advisory_lock.lock_shared(connection)  # an erasure sees this merge, or this sees the tombstone
    advisory_lock.take_turns(connection, "merges")  # two at once could close a circle
    if is_erased(connection, [f"u:{user_id}", other]):
        raise ConflictError("the user was erased")
    final = connection.execute(
        select(aliases.c.user_id).where(aliases.c.alias_key == f"u:{user_id}")
    ).scalar()
    target = final or user_id
    if other == f"u:{target}":
        raise ConflictError("a user cannot be merged into itself")
    statement = upsert(connection, aliases).values(
        alias_key=other, user_id=target, created_at_us=now_us
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["alias_key"], set_={"user_id": statement.excluded.user_id}
        )
    )
    left_out = 0
    if other.startswith("u:"):  # what had been merged into the other one comes along
        connection.execute(
            aliases.update().where(aliases.c.user_id == other[2:]).values(user_id=target)
        )
        left_out = attribute_rows.merge_attributes(connection, target, other[2:], now_us)
    conversion_rows.note_due(connection, [f"u:{target}"])
    bump(connection, "aliases")
    return Merged(target, left_out)
