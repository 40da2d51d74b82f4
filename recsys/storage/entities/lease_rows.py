"""Leases as rows: one holder at a time, told apart by a token that only grows.

A token is a fence (Kleppmann, "How to do distributed locking", 2016): what a former holder still
wants to write is refused, because the row has a newer token by then.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from recsys.errors import LostLeaseError
from recsys.storage.engine.database import upsert
from recsys.storage.schema.tables import leases

SCHEDULER = "scheduler"  # the lease of who schedules


@dataclass(frozen=True)
class LeaseRow:
    """A lease as it stands."""

    name: str
    holder: str | None
    token: int
    beats: int
    renewed_at_us: int | None


def read_lease(connection: Connection, name: str) -> LeaseRow:
    """The lease; a free one with token 0 where nobody ever held it."""
    row = connection.execute(select(leases).where(leases.c.name == name)).one_or_none()
    return LeaseRow(name, None, 0, 0, None) if row is None else LeaseRow(**row._mapping)


def take_lease(connection: Connection, seen: LeaseRow, holder: str, now_us: int) -> int | None:
    """Take the lease if it still stands as `seen`; its new token, or None where it has moved on."""
    made = upsert(connection, leases).values(name=seen.name, token=0, beats=0)
    connection.execute(made.on_conflict_do_nothing(index_elements=["name"]))
    taken = connection.execute(
        update(leases)
        .where(
            leases.c.name == seen.name,
            leases.c.token == seen.token,
            leases.c.beats == seen.beats,
        )
        .values(holder=holder, token=seen.token + 1, beats=0, renewed_at_us=now_us)
    )
    return seen.token + 1 if taken.rowcount == 1 else None


def renew_lease(connection: Connection, name: str, token: int, now_us: int) -> bool:
    """Say that the holder of `token` lives; False where another has the lease by now."""
    renewed = connection.execute(
        update(leases)
        .where(leases.c.name == name, leases.c.token == token, leases.c.holder.is_not(None))
        .values(beats=leases.c.beats + 1, renewed_at_us=now_us)
    )
    return renewed.rowcount == 1


def release_lease(connection: Connection, name: str, token: int) -> None:
    """Let the lease go at once; nothing happens where another has it."""
    connection.execute(
        update(leases)
        .where(leases.c.name == name, leases.c.token == token)
        .values(holder=None, beats=leases.c.beats + 1)
    )


def check_fence(connection: Connection, name: str, token: int) -> None:
    """Raise LostLeaseError unless `token` is the lease's newest; nobody takes it until this
    transaction ends.
    """
    statement = select(leases.c.token).where(leases.c.name == name).with_for_update(read=True)
    found = connection.execute(statement).scalar_one_or_none()
    if found != token:
        raise LostLeaseError(
            f"another scheduler leads by now (token {found}, this run has {token})"
        )
