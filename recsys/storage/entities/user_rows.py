"""Users: what is known of one, merging another's events into one, and erasing one for good."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select

from recsys.errors import ConflictError, InputError
from recsys.events.identity import sequence_key
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import upsert
from recsys.storage.entities import event_rows, impression_rows, key_values, removal_rows
from recsys.storage.entities.impression_rows import Impression
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.entities.stamps import bump
from recsys.storage.schema.tables import (
    aliases,
    events,
    impressions,
    rejected_events,
    tombstones,
    users,
)

CHUNK = 500
QUARANTINE_PAGE = 10_000


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
    merged = event_rows.merged_into(connection, user_id)
    row = connection.execute(
        select(
            func.count(), func.min(events.c.timestamp_us), func.max(events.c.timestamp_us)
        ).where(event_rows.events_of(user_id, merged))
    ).one()
    return UserSummary(user_id, int(row[0]), row[1], row[2], merged)


def merge(connection: Connection, user_id: str, other: str, now_us: int) -> str:
    """Count the events of `other` ('u:<user_id>' or 's:<session_id>') as the user's from now on.

    Merging into a user who was merged elsewhere goes to where that one went; the user it ends at is
    returned. Raises ConflictError where that would be a circle, or where the user was erased.
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
    if other.startswith("u:"):  # what had been merged into the other one comes along
        connection.execute(
            aliases.update().where(aliases.c.user_id == other[2:]).values(user_id=target)
        )
    bump(connection, "aliases")
    return str(target)


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
    keys = [f"u:{user_id}", *event_rows.merged_into(connection, user_id)]
    return _scan_on(connection, QuarantineScan(frozenset(key[2:] for key in keys)), until)


def erase(
    connection: Connection, user_id: str, now_us: int, scan: QuarantineScan | None = None
) -> dict[str, int]:
    """Delete all that is stored of a user and leave a tombstone; rows removed, by kind.

    `scan`: of a moment before; what has come into quarantine since is read here. Raises
    StorageUnavailableError where some other write takes too long to wait for.
    """
    advisory_lock.lock_exclusive(connection)
    merged = event_rows.merged_into(connection, user_id)
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
    key = _tombstone_key(connection)
    statement = upsert(connection, tombstones).on_conflict_do_nothing(index_elements=["user_hash"])
    rows = [{"user_hash": _hash(key, name), "erased_at_us": now_us} for name in keys]
    connection.execute(statement, rows)
    removal_rows.note_removed(connection, keys, now_us)
    bump(connection, "tombstones")
    bump(connection, "aliases")
    return gone


def allow_again(connection: Connection, user_id: str) -> None:
    """Take a user's tombstone away, so that new events are accepted. Raises InputError."""
    key = _tombstone_key(connection)
    statement = delete(tombstones).where(tombstones.c.user_hash == _hash(key, f"u:{user_id}"))
    if connection.execute(statement).rowcount == 0:
        raise InputError("user", user_id, "was not erased")
    bump(connection, "tombstones")


def is_erased(connection: Connection, keys: Iterable[str]) -> set[str]:
    """Which of `keys` ('u:<user_id>', 's:<session_id>') were erased."""
    if connection.execute(select(tombstones.c.user_hash).limit(1)).first() is None:
        return set()
    secret = _tombstone_key(connection)
    wanted = {_hash(secret, key): key for key in keys}
    found: set[str] = set()
    names = list(wanted)
    for at in range(0, len(names), CHUNK):
        statement = select(tombstones.c.user_hash).where(
            tombstones.c.user_hash.in_(names[at : at + CHUNK])
        )
        found.update(wanted[row] for row in connection.execute(statement).scalars())
    return found


def without_erased(connection: Connection, answers: Sequence[Impression]) -> list[Impression]:
    """Those that were not given to someone who was erased since."""
    keys = {
        one.recommendation_id: sequence_key(one.user_id, one.session_id)
        for one in answers
        if one.user_id is not None or one.session_id is not None
    }
    erased = is_erased(connection, set(keys.values())) if keys else set()
    return [one for one in answers if keys.get(one.recommendation_id) not in erased]


class Tombstones:
    """Every tombstone there is, for a whole import."""

    def __init__(self, connection: Connection) -> None:
        self._hashes = set(connection.execute(select(tombstones.c.user_hash)).scalars())
        self._key = _tombstone_key(connection) if self._hashes else b""

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tombstones) and self._hashes == other._hashes

    __hash__ = None  # type: ignore[assignment]

    def covers(self, key: str) -> bool:
        """Whether 'u:<user_id>' or 's:<session_id>' was erased."""
        return bool(self._hashes) and _hash(self._key, key) in self._hashes

    def in_raw(self, raw: str) -> bool:
        """Whether a value of a row in JSON names someone who was erased."""
        return bool(self._hashes) and any(
            self.covers(f"{kind}:{value}") for value in _values(raw) for kind in "us"
        )


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
        found += [row.id for row in page if not scan.names.isdisjoint(_values(row.raw))]
    return replace(scan, found=tuple(found), last_id=last)


def _delete_rejected(connection: Connection, row_ids: Sequence[int]) -> int:
    gone = 0
    for at in range(0, len(row_ids), CHUNK):
        chosen = rejected_events.c.id.in_(row_ids[at : at + CHUNK])
        gone += connection.execute(delete(rejected_events).where(chosen)).rowcount
    return gone


def _values(raw: str) -> list[str]:
    """The plain values of a row in JSON, as texts; of what is no JSON, its words."""
    try:
        row = json.loads(raw)
    except ValueError:
        return re.split(r"[^\w/@.+-]+", raw)
    found = row.values() if isinstance(row, dict) else row if isinstance(row, list) else [row]
    return [str(value).strip() for value in found if not isinstance(value, dict | list)]


def tombstone_name(connection: Connection, user_id: str) -> str:
    """What an erased user is called where one must be told from another."""
    return f"erased {_hash(_tombstone_key(connection), f'u:{user_id}')[:12]}"


def pseudonym(connection: Connection, user_id: str) -> str:
    """What a user is called in the audit log, which must not tell who it was after an erasure."""
    return f"user {_hash(_tombstone_key(connection), f'u:{user_id}')[:12]}"


def _tombstone_key(connection: Connection) -> bytes:
    """The installation's own key, made when it is first needed."""
    made = key_values.get_or_put(
        connection, InstallationKey.TOMBSTONE_KEY, lambda: secrets.token_hex(32)
    )
    return bytes.fromhex(made)


def _hash(key: bytes, name: str) -> str:
    return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()
