"""Those who write what users did, and those who must know for a moment that nobody does.

SQLite has one writer at a time. On PostgreSQL writers share a lock until their transactions end.
Erasing takes it alone, so that nothing of a user is written by somebody who looked for a tombstone
just before; and so does whoever reads the largest id, so that no smaller one appears afterwards.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import Connection, bindparam, text

Subject = Literal["accounts", "deployments", "job runs", "keys", "log-ins", "merges"]

LOCK = 4_719_203_315_027_646_201  # one number that nothing else uses
WAIT_MS = 5_000

_SUBJECTS: tuple[Subject, ...] = (
    *("accounts", "deployments", "job runs", "keys", "log-ins", "merges"),
)
_TURN = text("SELECT pg_advisory_xact_lock(:number)").bindparams(bindparam("number"))
_SHARE = text(f"SELECT pg_advisory_xact_lock_shared({LOCK})")
_EXCLUDE = text(f"SELECT pg_advisory_xact_lock({LOCK})")
_BOUND = text(f"SET LOCAL lock_timeout = {WAIT_MS}")


def share(connection: Connection) -> None:
    """Write until the end of the transaction. Call it first, before anything else is locked."""
    if connection.dialect.name == "postgresql":
        connection.execute(_SHARE)


def exclude(connection: Connection) -> None:
    """Wait until nobody writes, and keep it so until the end of the transaction.

    Raises StorageUnavailableError where a writer takes longer than `WAIT_MS`.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_BOUND)
        connection.execute(_EXCLUDE)


def take_turns(connection: Connection, subject: Subject) -> None:
    """Wait until no other transaction changes `subject`, and keep it so until the end of this one.

    For a change that looks first and then acts: two at once would both see what was there before. On
    SQLite there is one writer anyway. Taken again in the same transaction it does nothing; call it
    after `share` and before a row is locked.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_TURN, {"number": LOCK + 1 + _SUBJECTS.index(subject)})
