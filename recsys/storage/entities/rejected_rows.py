"""The quarantine: rows that could not become events, with their reason."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection, func, select, update

from recsys.ingest.raw_rows import Rejection
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import upsert
from recsys.storage.entities.tombstone_rows import Tombstones
from recsys.storage.schema.tables import rejected_events


def add_rejections(
    connection: Connection, source: str, rejections: Iterable[Rejection], now_us: int
) -> int:
    """Put rows into quarantine, but for those that name someone who was erased; how many.

    A row of the same source and place is there only once.
    """
    advisory_lock.lock_shared(connection)
    erased = Tombstones(connection)
    statement = upsert(connection, rejected_events).on_conflict_do_nothing(
        index_elements=["source", "position", "raw_hash"]
    )
    rows = [
        {
            "source": source[:256],
            "position": rejection.position,
            "reason": rejection.reason,
            "raw": rejection.raw,
            "raw_hash": hashlib.blake2b(rejection.raw.encode(), digest_size=16).hexdigest(),
            "rejected_at_us": now_us,
        }
        for rejection in rejections
        if not erased.in_raw(rejection.raw)
    ]
    if rows:
        connection.execute(statement, rows)
    return len(rows)


def list_rejected(
    connection: Connection,
    limit: int = 100,
    after_id: int = 0,
    source: str | None = None,
    waiting: bool = True,
) -> list[dict[str, Any]]:
    """A page in order of arrival; `waiting` leaves out rows that were replayed with success."""
    statement = (
        select(rejected_events)
        .where(rejected_events.c.id > after_id)
        .order_by(rejected_events.c.id)
        .limit(limit)
    )
    if source is not None:
        statement = statement.where(rejected_events.c.source == source)
    if waiting:
        statement = statement.where(rejected_events.c.replayed_at_us.is_(None))
    return [dict(row._mapping) for row in connection.execute(statement)]


def count_rejected(connection: Connection) -> int:
    """Rows that still wait in quarantine."""
    statement = (
        select(func.count())
        .select_from(rejected_events)
        .where(rejected_events.c.replayed_at_us.is_(None))
    )
    return int(connection.execute(statement).scalar_one())


def mark_replayed(connection: Connection, ids: Collection[int], now_us: int) -> None:
    connection.execute(
        update(rejected_events)
        .where(rejected_events.c.id.in_(list(ids)))
        .values(replayed_at_us=now_us)
    )


def rejected_since(connection: Connection, since_us: int, most: int = 10_000) -> int:
    """How many of the newest `most` rows came into quarantine since then."""
    newest = (
        select(rejected_events.c.rejected_at_us)
        .order_by(rejected_events.c.id.desc())
        .limit(most)
        .subquery()
    )
    statement = select(func.count()).where(newest.c.rejected_at_us >= since_us)
    return int(connection.execute(statement).scalar_one())
