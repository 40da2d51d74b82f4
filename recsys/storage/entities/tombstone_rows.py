"""Tombstones: who was erased, as a keyed hash under a key of the installation's own."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
from sqlalchemy import Connection, delete, select

from recsys.errors import InputError
from recsys.events.array_types import UInt64Array
from recsys.events.identity import sequence_key
from recsys.ingest.row_owners import OwnerColumns, owner_keys
from recsys.storage.engine.database import upsert
from recsys.storage.entities import key_values
from recsys.storage.entities.impression_rows import Impression
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.entities.stamps import bump
from recsys.storage.schema.tables import tombstones

CHUNK = 500  # hashes a statement
_ANY = select(tombstones.c.user_hash).limit(1)


def add_tombstones(connection: Connection, keys: Sequence[str], now_us: int) -> None:
    """Leave a tombstone for each of `keys` ('u:<user_id>', 's:<session_id>')."""
    key = _tombstone_key(connection)
    statement = upsert(connection, tombstones).on_conflict_do_nothing(index_elements=["user_hash"])
    rows = [{"user_hash": _hash(key, name), "erased_at_us": now_us} for name in keys]
    connection.execute(statement, rows)


def is_erased(connection: Connection, keys: Iterable[str]) -> set[str]:
    """Which of `keys` ('u:<user_id>', 's:<session_id>') were erased."""
    if connection.execute(_ANY).first() is None:
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

    def in_raw(self, raw: str, columns: Collection[OwnerColumns] | None) -> bool:
        """Whether a raw row is of someone who was erased; see `row_owners.owner_keys`."""
        return bool(self._hashes) and any(self.covers(key) for key in owner_keys(raw, columns))


def tombstone_name(connection: Connection, user_id: str) -> str:
    """What an erased user is called where one must be told from another."""
    return f"erased {_hash(_tombstone_key(connection), f'u:{user_id}')[:12]}"


def pseudonym(connection: Connection, user_id: str) -> str:
    """What a user is called in the audit log, which must not tell who it was after an erasure."""
    return f"user {_hash(_tombstone_key(connection), f'u:{user_id}')[:12]}"


def allow_again(connection: Connection, user_id: str) -> None:
    """Take a user's tombstone away, so that new events are accepted. Raises InputError."""
    key = _tombstone_key(connection)
    statement = delete(tombstones).where(tombstones.c.user_hash == _hash(key, f"u:{user_id}"))
    if connection.execute(statement).rowcount == 0:
        raise InputError("user", user_id, "was not erased")
    bump(connection, "tombstones")


def keyed_hashes(connection: Connection) -> Callable[[UInt64Array], UInt64Array]:
    """A keyed hash of 64-bit numbers (n,): even, and never 0; (n,)."""
    key = _tombstone_key(connection)

    def hashed(numbers: UInt64Array) -> UInt64Array:
        digests = b"".join(
            hashlib.blake2b(number, key=key, digest_size=8).digest()
            for (number,) in struct.iter_unpack("8s", numbers.astype("<u8").tobytes())
        )
        found = np.frombuffer(digests, "<u8").astype(np.uint64) & ~np.uint64(1)
        return np.where(found == 0, np.uint64(2), found)

    return hashed


def _tombstone_key(connection: Connection) -> bytes:
    """The installation's own key, made when it is first needed."""
    made = key_values.get_or_put(
        connection, InstallationKey.TOMBSTONE_KEY, lambda: secrets.token_hex(32)
    )
    return bytes.fromhex(made)


def _hash(key: bytes, name: str) -> str:
    # A row of a file may hold half a character, which has no UTF-8.
    return hmac.new(key, name.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
