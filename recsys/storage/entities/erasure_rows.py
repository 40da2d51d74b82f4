"""Erasing a user for good: rows of every table, the quarantine, and what sequence files must follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select

from recsys.events.identity import hash_texts
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Database
from recsys.storage.entities import event_rows, history_rows, impression_rows
from recsys.storage.entities.stamps import bump
from recsys.storage.entities.tombstone_rows import add_tombstones, plain_values
from recsys.storage.schema.tables import (
    aliases,
    events,
    impressions,
    rejected_events,
    removed_sequences,
    users,
)

CHUNK = 500  # row ids a statement
QUARANTINE_PAGE = 10_000


@dataclass(frozen=True)
class QuarantineScan:
    """The rows in quarantine, as far as `last_id`, in which any of `names` stands as a value."""

    names: frozenset[str]
    found: tuple[int, ...] = ()
    last_id: int = 0


def settled_quarantine(connection: Connection) -> int:
    """The id up to which no row comes into quarantine any more.

    Raises StorageUnavailableError where some other write takes too long to wait for.
    """
    advisory_lock.lock_exclusive(connection)
    return connection.execute(select(func.max(rejected_events.c.id))).scalar() or 0


def scan_quarantine(connection: Connection, user_id: str, until: int) -> QuarantineScan:
    """What `erase` needs of the quarantine, as far as the id `until`, of `settled_quarantine`.

    Reading all of it takes long, so that is done before.
    """
    keys = [f"u:{user_id}", *history_rows.merged_into(connection, user_id)]
    return _scan_on(connection, QuarantineScan(frozenset(key[2:] for key in keys)), until)


def erase(
    connection: Connection, user_id: str, now_us: int, scan: QuarantineScan | None = None
) -> dict[str, int]:
    """Delete all that is stored of a user and leave a tombstone; rows removed, by kind.

    `scan`: of a moment before; what has come into quarantine since is read here. Raises
    StorageUnavailableError where some other write takes too long to wait for.
    """
    advisory_lock.lock_exclusive(connection)
    merged = history_rows.merged_into(connection, user_id)
    keys = [f"u:{user_id}", *merged]
    ids = [key[2:] for key in keys if key.startswith("u:")]
    sessions = [key[2:] for key in keys if key.startswith("s:")]
    gone = {
        "events": connection.execute(
            delete(events).where(event_rows.events_of(user_id, merged))
        ).rowcount
    }
    seen: list[ColumnElement[bool]] = [impressions.c.user_id.in_(ids)]
    if sessions:
        unowned = or_(impressions.c.user_id.is_(None), impressions.c.user_id.in_(ids))
        seen.append(and_(impressions.c.session_id.in_(sessions), unowned))
    answers = connection.execute(select(impressions.c.recommendation_id).where(or_(*seen)))
    gone["impressions"] = impression_rows.forget(connection, list(answers.scalars()))
    gone["aliases"] = connection.execute(
        delete(aliases).where(or_(aliases.c.user_id == user_id, aliases.c.alias_key.in_(keys)))
    ).rowcount
    gone["profiles"] = connection.execute(delete(users).where(users.c.user_id.in_(ids))).rowcount
    names = frozenset([*ids, *sessions])
    known = scan if scan is not None and scan.names == names else QuarantineScan(names)
    gone["quarantine"] = _delete_rejected(connection, _scan_on(connection, known).found)
    add_tombstones(connection, keys, now_us)
    _note_removed(connection, keys, now_us)
    bump(connection, "tombstones")
    bump(connection, "aliases")
    return gone


def _scan_on(
    connection: Connection, scan: QuarantineScan, until: int | None = None
) -> QuarantineScan:
    """`scan` with the rows that came after it, as far as the id `until`."""
    found, last = list(scan.found), scan.last_id
    newer = select(rejected_events.c.id, rejected_events.c.raw).order_by(rejected_events.c.id)
    if until is not None:
        newer = newer.where(rejected_events.c.id <= until)
    while page := connection.execute(
        newer.where(rejected_events.c.id > last).limit(QUARANTINE_PAGE)
    ).all():
        last = page[-1].id
        found += [row.id for row in page if not scan.names.isdisjoint(plain_values(row.raw))]
    return replace(scan, found=tuple(found), last_id=last)


def _delete_rejected(connection: Connection, row_ids: Sequence[int]) -> int:
    gone = 0
    for at in range(0, len(row_ids), CHUNK):
        chosen = rejected_events.c.id.in_(row_ids[at : at + CHUNK])
        gone += connection.execute(delete(rejected_events).where(chosen)).rowcount
    return gone


def removed_since(database: Database, last: int) -> tuple[int, list[int]]:
    """The number of the latest removal, and the unsigned hashes of those after number `last`."""
    statement = (
        select(removed_sequences.c.id, removed_sequences.c.sequence_hash)
        .where(removed_sequences.c.id > last)
        .order_by(removed_sequences.c.id)
    )
    with database.connect() as connection:
        rows = connection.execute(statement).all()
    hashes = np.array([row.sequence_hash for row in rows], np.int64).view(np.uint64)
    return (int(rows[-1].id) if rows else last), hashes.tolist()


def _note_removed(connection: Connection, keys: Sequence[str], now_us: int) -> None:
    """Write down that the sequences of `keys` ('u:<user_id>', 's:<session_id>') are gone."""
    hashes = hash_texts(list(keys)).view(np.int64).tolist()
    rows = [{"sequence_hash": number, "removed_at_us": now_us} for number in hashes]
    connection.execute(removed_sequences.insert(), rows)
