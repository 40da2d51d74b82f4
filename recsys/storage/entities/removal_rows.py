"""What sequence files must follow: who was erased, and which database they are of."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np
from sqlalchemy import Connection, select

from recsys.events.identity import hash_texts
from recsys.storage.engine.database import Database
from recsys.storage.entities import key_values
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.schema.tables import removed_sequences


def note_removed(connection: Connection, keys: Sequence[str], now_us: int) -> None:
    """Write down that the sequences of `keys` ('u:<user_id>', 's:<session_id>') are gone."""
    hashes = hash_texts(list(keys)).view(np.int64).tolist()
    rows = [{"sequence_hash": number, "removed_at_us": now_us} for number in hashes]
    connection.execute(removed_sequences.insert(), rows)


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


def database_id(database: Database) -> str:
    """A name of this very database, made when it is first asked for."""
    with database.connect() as connection:
        known = key_values.get_text(connection, InstallationKey.DATABASE_ID)
    if known is not None:
        return known
    with database.begin() as connection:
        return key_values.get_or_put(
            connection, InstallationKey.DATABASE_ID, lambda: uuid.uuid4().hex
        )
