"""Erasing a user for good: rows of every table, the quarantine, reports, and what sequence files must
follow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select, update

from recsys.events.array_types import BoolArray, UInt64Array
from recsys.events.identity import hash_texts, users_and_sessions
from recsys.ingest.row_owners import owner_keys
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    conversion_rows,
    event_rows,
    experiment_unit_rows,
    history_rows,
    impression_rows,
    rejected_rows,
)
from recsys.storage.entities.stamps import bump
from recsys.storage.entities.tombstone_rows import (
    Tombstones,
    add_tombstones,
    is_erased,
    keyed_hashes,
)
from recsys.storage.schema.tables import (
    aliases,
    conversions,
    deferred_events,
    events,
    experiment_testers,
    experiment_units,
    impressions,
    quality_reports,
    rejected_events,
    removed_sequences,
    users,
)

CHUNK = 500  # row ids a statement
QUARANTINE_PAGE = 10_000


@dataclass(frozen=True)
class QuarantineScan:
    """The rows in quarantine, as far as `last_id`, that are of any of `keys`."""

    keys: frozenset[str]
    found: tuple[int, ...] = ()
    last_id: int = 0


def person_keys(connection: Connection, user_id: str) -> list[str]:
    """The keys of whoever a user is: of the user that this one was merged into, or of this one, and of
    all that was merged into that one, however far. The one that the others count as comes first.
    """
    into = select(aliases.c.user_id).where(aliases.c.alias_key == f"u:{user_id}")
    final = connection.execute(into).scalar() or user_id
    return [f"u:{final}", *history_rows.merged_into(connection, final)]


def keep_writers_away(connection: Connection) -> None:
    """Let nothing be stored of anybody until this transaction ends.

    Raises StorageUnavailableError where some other write takes too long to wait for.
    """
    advisory_lock.lock_exclusive(connection)


def settled_quarantine(connection: Connection) -> int:
    """The id up to which no row comes into quarantine any more.

    Raises StorageUnavailableError where some other write takes too long to wait for.
    """
    keep_writers_away(connection)
    return connection.execute(select(func.max(rejected_events.c.id))).scalar() or 0


def scan_quarantine(connection: Connection, user_id: str, until: int) -> QuarantineScan:
    """What `erase` needs of the quarantine, as far as the id `until`, of `settled_quarantine`.

    Reading all of it takes long, so that is done before.
    """
    keys = frozenset(person_keys(connection, user_id))
    return _scan_on(connection, QuarantineScan(keys), until)


def erase(
    connection: Connection, user_id: str, now_us: int, scan: QuarantineScan | None = None
) -> dict[str, int]:
    """Delete all that is stored of a user and of whoever was merged with that user, and leave a
    tombstone of each; rows removed, by kind.

    `scan`: of a moment before; what has come into quarantine since is read here. Raises
    StorageUnavailableError where some other write takes too long to wait for.
    """
    keep_writers_away(connection)
    return erase_keys(connection, person_keys(connection, user_id), now_us, scan)


def erase_keys(
    connection: Connection, keys: Sequence[str], now_us: int, scan: QuarantineScan | None = None
) -> dict[str, int]:
    """`erase` of those that 'u:<user_id>' and 's:<session_id>' name, under the lock that it takes."""
    ids, sessions = users_and_sessions(keys)
    gone = {"events": 0, "impressions": 0, "aliases": 0, "attributes": 0}
    gone["experiments"] = experiment_unit_rows.forget_units(connection, keys)
    for at in range(0, len(keys), CHUNK):
        some = keys[at : at + CHUNK]
        own = delete(events).where(event_rows.owned_by(some))
        gone["events"] += connection.execute(own).rowcount
        merged = or_(
            aliases.c.alias_key.in_(some),
            aliases.c.user_id.in_(users_and_sessions(some)[0]),
        )
        gone["aliases"] += connection.execute(delete(aliases).where(merged)).rowcount
    for at in range(0, len(ids), CHUNK):
        some = ids[at : at + CHUNK]
        connection.execute(delete(deferred_events).where(deferred_events.c.user_id.in_(some)))
        chosen = users.c.user_id.in_(some)
        gone["attributes"] += connection.execute(delete(users).where(chosen)).rowcount
    answers = connection.execute(
        select(impressions.c.recommendation_id).where(given_to(ids, sessions))
    )
    names = list(answers.scalars())
    conversion_rows.erase(connection, keys, names)
    gone["impressions"] = impression_rows.forget(connection, names)
    experiment_unit_rows.read_again_from(connection)
    wanted = frozenset(keys)
    known = scan if scan is not None and scan.keys == wanted else QuarantineScan(wanted)
    gone["quarantine"] = _delete_rejected(connection, _scan_on(connection, known).found)
    gone["quality_reports"] = _take_out_of_reports(connection, wanted)
    add_tombstones(connection, keys, now_us)
    _note_removed(connection, keys, now_us)
    bump(connection, "tombstones")
    bump(connection, "aliases")
    return gone


def erase_again(connection: Connection, now_us: int) -> int:
    """Erase what is stored of those who have a tombstone, as after a backup from before was restored; how
    many users and sessions. For a transaction that nobody else writes beside.
    """
    erased = Tombstones(connection)
    if not erased:
        return 0
    sessions = select(events.c.session_id).where(events.c.user_id.is_(None))
    asked = select(impressions.c.session_id).where(impressions.c.user_id.is_(None))
    named = {
        "u:": (
            select(events.c.user_id),
            select(impressions.c.user_id),
            select(users.c.user_id),
            select(deferred_events.c.user_id),
            select(aliases.c.user_id),
        ),
        "s:": (sessions, asked),
        "": (
            select(aliases.c.alias_key),
            select(conversions.c.owner_key),
            select(experiment_units.c.unit),
            select(experiment_testers.c.unit),
        ),
    }
    keys: set[str] = set()
    for kind, statements in named.items():
        for statement in statements:
            names = connection.execute(statement.distinct()).scalars()
            keys.update(f"{kind}{name}" for name in names if name is not None)
    for facts in connection.execute(select(quality_reports.c.facts)).scalars():
        keys.update(one["key"] for one in _busiest(json.loads(facts)))
    found = sorted(key for key in keys if erased.covers(key))
    if found:
        erase_keys(connection, found, now_us)
    columns = rejected_rows.owner_columns(connection)
    rows = rejected_events.c
    page = select(rows.id, rows.source, rows.raw).order_by(rows.id).limit(QUARANTINE_PAGE)
    last = 0
    while some := connection.execute(page.where(rows.id > last)).all():
        last = some[-1].id
        theirs = [row.id for row in some if erased.in_raw(row.raw, columns.get(row.source))]
        _delete_rejected(connection, theirs)
    return len(found)


def given_to(ids: Sequence[str], sessions: Sequence[str]) -> ColumnElement[bool]:
    """Answers to these users, and to these sessions where no other user asked in them."""
    unowned = or_(impressions.c.user_id.is_(None), impressions.c.user_id.in_(ids))
    return or_(
        impressions.c.user_id.in_(ids), and_(impressions.c.session_id.in_(sessions), unowned)
    )


def _scan_on(
    connection: Connection, scan: QuarantineScan, until: int | None = None
) -> QuarantineScan:
    """`scan` with the rows that came after it, as far as the id `until`."""
    found, last = list(scan.found), scan.last_id
    columns = rejected_rows.owner_columns(connection)
    rows = rejected_events.c
    newer = select(rows.id, rows.source, rows.raw).order_by(rows.id)
    if until is not None:
        newer = newer.where(rows.id <= until)
    while page := connection.execute(newer.where(rows.id > last).limit(QUARANTINE_PAGE)).all():
        last = page[-1].id
        found += [
            row.id
            for row in page
            if not scan.keys.isdisjoint(owner_keys(row.raw, columns.get(row.source)))
        ]
    return replace(scan, found=tuple(found), last_id=last)


def _delete_rejected(connection: Connection, row_ids: Sequence[int]) -> int:
    gone = 0
    for at in range(0, len(row_ids), CHUNK):
        chosen = rejected_events.c.id.in_(row_ids[at : at + CHUNK])
        gone += connection.execute(delete(rejected_events).where(chosen)).rowcount
    return gone


def _take_out_of_reports(connection: Connection, keys: Collection[str]) -> int:
    """Reports of the events' quality name the busiest users; how many reports named these."""
    changed = 0
    for row in connection.execute(select(quality_reports)).all():
        facts = json.loads(row.facts)
        left = _without_busiest(facts, keys)
        if left is not facts:
            chosen = update(quality_reports).where(quality_reports.c.day_us == row.day_us)
            connection.execute(chosen.values(facts=json.dumps(left)))
            changed += 1
    return changed


def report_without_erased(connection: Connection, facts: dict[str, Any]) -> dict[str, Any]:
    """A report that is about to be stored in this transaction, without users who were erased."""
    advisory_lock.lock_shared(connection)  # an erasure sees the report, or this the tombstone
    named = [one["key"] for one in _busiest(facts)]
    return _without_busiest(facts, is_erased(connection, named))


def _without_busiest(facts: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """A report's facts without these users; `facts` itself where it names none of them."""
    named = _busiest(facts)
    left = [one for one in named if one.get("key") not in keys]
    if len(left) == len(named):
        return facts
    return {**facts, "newest": {**facts["newest"], "busiest": left}}


def _busiest(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return (facts.get("newest") or {}).get("busiest") or []


def removed_since(database: Database, last: int) -> tuple[int, list[int]]:
    """The number of the latest removal, and what is stored of those after number `last`, unsigned."""
    statement = (
        select(removed_sequences.c.id, removed_sequences.c.sequence_hash)
        .where(removed_sequences.c.id > last)
        .order_by(removed_sequences.c.id)
    )
    with database.connect() as connection:
        rows = connection.execute(statement).all()
    hashes = np.array([row.sequence_hash for row in rows], np.int64).view(np.uint64)
    return (int(rows[-1].id) if rows else last), hashes.tolist()


def removed_test(database: Database, removed: Sequence[int]) -> Callable[[UInt64Array], BoolArray]:
    """Which of the sequences (n,) of a sequence file are `removed`, given by `removed_since`: (n,).

    What is stored of a removed sequence is a keyed hash, even, of the hash that sequence files know it
    by, which is odd and can be computed from a name by anybody. Releases before wrote down that one.
    """
    stored = np.array(removed, np.uint64)
    with database.connect() as connection:
        keyed = keyed_hashes(connection)

    def is_removed(sequences: UInt64Array) -> BoolArray:
        known, place = np.unique(sequences, return_inverse=True)
        gone: BoolArray = np.isin(known, stored) | np.isin(keyed(known), stored)
        return gone[place]

    return is_removed


def _note_removed(connection: Connection, keys: Sequence[str], now_us: int) -> None:
    """Write down that the sequences of `keys` ('u:<user_id>', 's:<session_id>') are gone."""
    keyed = keyed_hashes(connection)
    rows = removed_sequences.c
    plain = select(rows.id, rows.sequence_hash).where(rows.sequence_hash % 2 != 0)
    for row in connection.execute(plain).all():  # of an older release
        hashed = keyed(np.array([row.sequence_hash], np.int64).view(np.uint64))
        changed = update(removed_sequences).where(rows.id == row.id)
        connection.execute(changed.values(sequence_hash=hashed.view(np.int64).item()))
    hashes = keyed(hash_texts(list(keys))).view(np.int64).tolist()
    written = [{"sequence_hash": number, "removed_at_us": now_us} for number in hashes]
    connection.execute(removed_sequences.insert(), written)
