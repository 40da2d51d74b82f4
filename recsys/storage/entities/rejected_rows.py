"""The quarantine: rows that could not become events, with their reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection, func, select, update

from recsys.ingest.raw_rows import Rejection
from recsys.ingest.row_owners import OwnerColumns
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import upsert
from recsys.storage.entities import key_values
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.entities.tombstone_rows import Tombstones
from recsys.storage.schema.tables import rejected_events

MAX_SOURCE = 256  # characters kept of a source's name


def add_rejections(
    connection: Connection,
    source: str,
    rejections: Iterable[Rejection],
    now_us: int,
    owners: OwnerColumns | None = None,
    import_id: int | None = None,
) -> int:
    """Put rows into quarantine, but for those of someone who was erased; how many.

    A row of the same source and place is there only once. `owners`: the columns in which the rows
    name theirs, where they are known.
    """
    advisory_lock.lock_shared(connection)
    erased = Tombstones(connection)
    statement = upsert(connection, rejected_events).on_conflict_do_nothing(
        index_elements=["source", "position", "raw_hash"]
    )
    rows = [
        {
            "source": source[:MAX_SOURCE],
            "position": rejection.position,
            "reason": rejection.reason,
            "raw": rejection.raw,
            "raw_hash": hashlib.blake2b(rejection.raw.encode(), digest_size=16).hexdigest(),
            "rejected_at_us": now_us,
            "import_id": import_id,
        }
        for rejection in rejections
        if not erased.in_raw(rejection.raw, None if owners is None else [owners])
    ]
    if rows:
        if owners is not None:
            note_columns(connection, source, owners)
        connection.execute(statement, rows)
    return len(rows)


def note_columns(connection: Connection, source: str, owners: OwnerColumns) -> None:
    """Write down in which columns rows of a source name their owners, beside those known before."""
    source = source[:MAX_SOURCE]
    if owners in owner_columns(connection).get(source, ()):
        return
    advisory_lock.take_turns(connection, "quarantine")
    known = owner_columns(connection)
    known[source] = [*known.get(source, ()), owners]
    key_values.put(connection, InstallationKey.QUARANTINE_COLUMNS, json.dumps(known))


def owner_columns(connection: Connection) -> dict[str, list[OwnerColumns]]:
    """Where rows in quarantine name their owners, by source; a source of before is not there."""
    found = key_values.get_text(connection, InstallationKey.QUARANTINE_COLUMNS) or "{}"
    return {
        source: [OwnerColumns(*names) for names in written]
        for source, written in json.loads(found).items()
    }


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
