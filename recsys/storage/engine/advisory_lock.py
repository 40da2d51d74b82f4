"""The advisory lock that keeps writers of what users did apart from those who need a moment without any.

SQLite has one writer at a time. On PostgreSQL writers hold the lock shared until their transactions end.
Erasing holds it exclusively, so that nothing of a user is written by somebody who looked for a tombstone
just before; and so does whoever reads the largest id, so that no smaller one appears afterwards.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import Connection, bindparam, text

Subject = Literal[
    "accounts",
    "conversions",
    "deployments",
    "experiments",
    "job runs",
    "keys",
    "log-ins",
    "merges",
    "quarantine",
    "schema",
    "streams",
    "scenarios",
]

LOCK = 4_719_203_315_027_646_201  # one number that nothing else uses
WAIT_MS = 5_000

_SUBJECTS: tuple[Subject, ...] = (
    *("accounts", "deployments", "job runs", "keys", "log-ins", "merges"),
    *("quarantine", "schema", "streams", "scenarios"),
    *("conversions", "experiments"),
)
_TURN = text("SELECT pg_advisory_xact_lock(:number)").bindparams(bindparam("number"))
_LOCK_SHARED = text(f"SELECT pg_advisory_xact_lock_shared({LOCK})")
_LOCK_EXCLUSIVE = text(f"SELECT pg_advisory_xact_lock({LOCK})")
_LIMIT_WAIT = text(f"SET LOCAL lock_timeout = {WAIT_MS}")


def lock_shared(connection: Connection) -> None:
    """Hold the lock as a writer until the end of the transaction.

    Call it first, before anything else is locked.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_SHARED)


def lock_exclusive(connection: Connection) -> None:
    """Wait until there is no writer, and keep it so until the end of the transaction.

    Raises StorageUnavailableError where a writer takes longer than `WAIT_MS`.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_LIMIT_WAIT)
        connection.execute(_LOCK_EXCLUSIVE)


def take_turns(connection: Connection, subject: Subject) -> None:
    """Wait until no other transaction changes `subject`, and keep it so until the end of this one.

    For a change that looks first and then acts: two at once would both see what was there before. On
    SQLite there is one writer anyway. Taken again in the same transaction it does nothing; call it
    after `lock_shared` and before a row is locked.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_TURN, {"number": LOCK + 1 + _SUBJECTS.index(subject)})
