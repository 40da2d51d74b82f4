"""Conversions as other changes move them: what is deleted, undone, erased, or due to be attributed again.

Whatever changes who somebody is, or what they bought before, notes them in `conversions_due`; the next
batch of `conversion_attribution` attributes their conversions again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, Connection, delete, select, update

from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import upsert
from recsys.storage.entities.conversion_touches import chunks
from recsys.storage.schema.tables import conversions, conversions_due, events


def note_due(connection: Connection, owner_keys: Iterable[str]) -> None:
    """Let `attribute_due` attribute the conversions of these users and sessions again."""
    rows = [{"owner_key": key} for key in sorted(set(owner_keys))]
    if not rows:
        return
    statement = upsert(connection, conversions_due)
    # Not 'do nothing': a batch that has just this row in hand is to be waited for.
    same = {"owner_key": statement.excluded.owner_key}
    statement = statement.on_conflict_do_update(index_elements=["owner_key"], set_=same)
    connection.execute(statement, rows)


def take_back(connection: Connection, chosen: ColumnElement[bool]) -> None:
    """Take the conversions back that the events under `chosen` are, which are about to be deleted.

    Returns that followed them are attributed again.
    """
    advisory_lock.take_turns(connection, "conversions")
    gone = conversions.c.event_row_id.in_(select(events.c.id).where(chosen))
    bought = select(conversions.c.owner_key).where(gone, conversions.c.is_return.is_(False))
    owners = connection.execute(bought.where(conversions.c.owner_key.is_not(None)).distinct())
    note_due(connection, list(owners.scalars()))
    connection.execute(delete(conversions).where(gone))


def erase(connection: Connection, owner_keys: Sequence[str], answers: Sequence[str]) -> int:
    """Delete the conversions of these users and sessions; how many rows.

    Others' that count for their `answers` are attributed again without those.
    """
    gone, others = 0, set[str]()
    for chunk in chunks(owner_keys):
        own = delete(conversions).where(conversions.c.owner_key.in_(chunk))
        gone += connection.execute(own).rowcount
        connection.execute(delete(conversions_due).where(conversions_due.c.owner_key.in_(chunk)))
    for chunk in chunks(answers):
        theirs = conversions.c.recommendation_id.in_(chunk) & conversions.c.owner_key.is_not(None)
        owners = select(conversions.c.owner_key).where(theirs).distinct()
        others |= set(connection.execute(owners).scalars())
        connection.execute(delete(conversions).where(theirs))
    note_due(connection, others)
    return gone


def forget_owners(connection: Connection, before_us: int, limit: int) -> int:
    """Forget whose at most `limit` of the conversions older than `before_us` were; how many.

    What they count for stays.
    """
    old = (
        select(conversions.c.event_row_id)
        .where(conversions.c.event_at_us < before_us, conversions.c.owner_key.is_not(None))
        .limit(limit)
    )
    ids = list(connection.execute(old).scalars())
    for some_ids in chunks(ids):
        chosen = conversions.c.event_row_id.in_(some_ids)
        connection.execute(update(conversions).where(chosen).values(owner_key=None))
    return len(ids)
