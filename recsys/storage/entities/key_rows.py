"""API keys as rows: the secret is stored as its SHA-256 alone.

A key reads `rk_<key id>_<secret>`. The secret holds 256 random bits, so a plain hash is enough:
there is no dictionary to try.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from recsys.errors import ConflictError, InputError, NotFoundError
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.short_selects import CompiledSelect
from recsys.storage.entities.stamps import COLUMNS, Stamps, bump
from recsys.storage.schema.tables import api_keys, stamps

SCOPES = ("read", "write", "admin", "collect")
ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]{1,253}(:\d{1,5})?")
SHAPE = re.compile(r"rk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class KeyRow:
    """A key without its secret."""

    key_id: str
    name: str
    scopes: frozenset[str]
    created_at_us: int
    revoked_at_us: int | None
    allowed_origins: frozenset[str] = frozenset()


def create_key(
    connection: Connection,
    name: str,
    scopes: list[str],
    now_us: int,
    allowed_origins: Sequence[str] = (),
) -> str:
    """Store a new key and return it whole, this once.

    A key of scope `collect` may be published in a page, so it holds no other scope and says which
    origins (`https://shop.example`) may use it. Raises InputError for what cannot be.
    """
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise InputError("scopes", unknown or scopes, f"expected some of {', '.join(SCOPES)}")
    if not 1 <= len(name) <= 100:
        raise InputError("name", name, "expected 1 to 100 characters")
    if "collect" in scopes and len(set(scopes)) > 1:
        raise InputError("scopes", scopes, "a key of scope collect is public: no other scope fits")
    if ("collect" in scopes) != bool(allowed_origins):
        raise InputError(
            "allowed_origins", list(allowed_origins), "scope collect needs some, others take none"
        )
    for origin in allowed_origins:
        if not ORIGIN.fullmatch(origin):
            raise InputError("allowed_origins", origin, "expected such as https://shop.example")
    advisory_lock.take_turns(connection, "keys")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    connection.execute(
        api_keys.insert(),
        {
            "key_id": key_id,
            "secret_sha256": _digest(secret),
            "name": name,
            "scopes": ",".join(dict.fromkeys(scopes)),
            "allowed_origins": " ".join(dict.fromkeys(allowed_origins)),
            "created_at_us": now_us,
        },
    )
    bump(connection, "keys")
    return f"rk_{key_id}_{secret}"


def key_id_of(key: str) -> str:
    """The id in a key that `create_key` gave; the rest of it is secret."""
    return key.split("_")[1]


_NAMES = [column.name for column in api_keys.c]


def find_key(connection: Connection, key: str) -> KeyRow | None:
    """The active key that `key` is, or None."""
    found, _ = find_key_and_stamps(connection, key)
    return found


_BY_ID = CompiledSelect(
    select(*COLUMNS, api_keys).select_from(
        stamps.outerjoin(api_keys, api_keys.c.key_id == bindparam("key"))
    )
)


def find_key_and_stamps(connection: Connection, key: str) -> tuple[KeyRow | None, Stamps]:
    """The active key that `key` is, or None, and the stamps: all that a request asks for at first."""
    shape = SHAPE.fullmatch(key)
    found = _BY_ID(connection, key=shape[1] if shape else "")[0]
    now = Stamps._make(found[: len(COLUMNS)])
    row = SimpleNamespace(**dict(zip(_NAMES, found[len(COLUMNS) :], strict=True)))
    known = row.secret_sha256 or "0" * 64
    if shape is None or not secrets.compare_digest(_digest(shape[2]), known):
        return None, now
    return (None if row.revoked_at_us is not None else _key(row)), now


def list_keys(connection: Connection) -> list[KeyRow]:
    """All keys, oldest first, revoked ones too."""
    statement = select(api_keys).order_by(api_keys.c.created_at_us, api_keys.c.key_id)
    return [_key(row) for row in connection.execute(statement)]


def origins(connection: Connection) -> frozenset[str]:
    """Every origin that some active key allows."""
    return frozenset(
        origin
        for key in list_keys(connection)
        if key.revoked_at_us is None
        for origin in key.allowed_origins
    )


def _key(row: Any) -> KeyRow:
    return KeyRow(
        key_id=row.key_id,
        name=row.name,
        scopes=frozenset(row.scopes.split(",")),
        created_at_us=row.created_at_us,
        revoked_at_us=row.revoked_at_us,
        allowed_origins=frozenset(row.allowed_origins.split()),
    )


def revoke_key(connection: Connection, key_id: str, now_us: int) -> str:
    """Refuse a key from now on; its name. Raises NotFoundError where no active key has this id."""
    statement = (
        update(api_keys)
        .where(api_keys.c.key_id == key_id, api_keys.c.revoked_at_us.is_(None))
        .values(revoked_at_us=now_us)
        .returning(api_keys.c.name)
    )
    name: str | None = connection.execute(statement).scalar_one_or_none()
    if name is None:
        raise NotFoundError("active key", key_id)
    bump(connection, "keys")
    return name


def check_new_name(connection: Connection, name: str) -> None:
    """Raises ConflictError where an active key has the name; no other key comes until this
    transaction ends.
    """
    advisory_lock.take_turns(connection, "keys")
    live = api_keys.c.revoked_at_us.is_(None)
    if connection.execute(
        select(api_keys.c.key_id).where(api_keys.c.name == name, live).limit(1)
    ).first():
        raise ConflictError(
            f"An active key is already named {name}: revoke it, or choose another name"
        )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
