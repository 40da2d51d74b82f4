"""API keys as rows: the secret is stored as its SHA-256 alone.

A key reads `rk_<key id>_<secret>`. The secret holds 256 random bits, so a plain hash is enough:
there is no dictionary to try.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select, update

from recsys.errors import InputError, NotFoundError
from recsys.storage.tables import api_keys

SCOPES = ("read", "write", "admin")
SHAPE = re.compile(r"rk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class KeyRow:
    """A key without its secret."""

    key_id: str
    name: str
    scopes: frozenset[str]
    created_at_us: int
    revoked_at_us: int | None


def create_key(connection: Connection, name: str, scopes: list[str], now_us: int) -> str:
    """Store a new key and return it whole, this once. Raises InputError for an unknown scope."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise InputError("scopes", unknown or scopes, f"expected some of {', '.join(SCOPES)}")
    if not 1 <= len(name) <= 100:
        raise InputError("name", name, "expected 1 to 100 characters")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    connection.execute(
        api_keys.insert(),
        {
            "key_id": key_id,
            "secret_sha256": _digest(secret),
            "name": name,
            "scopes": ",".join(dict.fromkeys(scopes)),
            "created_at_us": now_us,
        },
    )
    return f"rk_{key_id}_{secret}"


_BY_ID = select(api_keys).where(api_keys.c.key_id == bindparam("key_id"))


def find_key(connection: Connection, key: str) -> KeyRow | None:
    """The live key that `key` is, or None."""
    shape = SHAPE.fullmatch(key)
    if shape is None:
        return None
    row = connection.execute(_BY_ID, {"key_id": shape[1]}).one_or_none()
    known = row.secret_sha256 if row is not None else "0" * 64
    if not secrets.compare_digest(_digest(shape[2]), known):
        return None
    if row is None or row.revoked_at_us is not None:
        return None
    return KeyRow(row.key_id, row.name, frozenset(row.scopes.split(",")), row.created_at_us, None)


def list_keys(connection: Connection) -> list[KeyRow]:
    """All keys, oldest first, revoked ones too."""
    rows = connection.execute(
        select(api_keys).order_by(api_keys.c.created_at_us, api_keys.c.key_id)
    )
    return [
        KeyRow(r.key_id, r.name, frozenset(r.scopes.split(",")), r.created_at_us, r.revoked_at_us)
        for r in rows
    ]


def revoke_key(connection: Connection, key_id: str, now_us: int) -> None:
    """Raises NotFoundError where no live key has this id."""
    statement = (
        update(api_keys)
        .where(api_keys.c.key_id == key_id, api_keys.c.revoked_at_us.is_(None))
        .values(revoked_at_us=now_us)
    )
    if connection.execute(statement).rowcount == 0:
        raise NotFoundError("live key", key_id)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
