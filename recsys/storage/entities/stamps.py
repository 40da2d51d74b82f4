"""How often things have changed, so that what a process keeps in memory is never stale.

A change raises its stamp in its own transaction. Whoever keeps something reads the stamps first and
the thing after them, and keeps it under the number it read: at worst it is read once too often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, NamedTuple, TypeVar

from sqlalchemy import Connection, select

from recsys.errors import StorageUnavailableError
from recsys.storage.engine.database import Database
from recsys.storage.engine.short_selects import CompiledSelect
from recsys.storage.schema import tables


class Stamps(NamedTuple):
    """The numbers at one moment."""

    items: int
    keys: int
    deployments: int
    aliases: int
    tombstones: int
    followers: int
    scenarios: int
    experiments: int


Stamp = Literal[
    "items",
    "keys",
    "deployments",
    "aliases",
    "tombstones",
    "followers",
    "scenarios",
    "experiments",
]
Kept = TypeVar("Kept")
COLUMNS = tuple(tables.stamps.c[name] for name in Stamps._fields)
_READ = CompiledSelect(select(*COLUMNS))


def read_stamps(connection: Connection) -> Stamps:
    """Raises RecsysError where the tables are not there."""
    return Stamps._make(_READ(connection)[0])


class StampedCache(Generic[Kept]):
    """What is read whole and kept in memory under its stamp; safe to share between threads."""

    def __init__(
        self, database: Database, name: Stamp, read: Callable[[Connection], Kept], empty: Kept
    ) -> None:
        """`empty`: what there is until it was read once."""
        self._database, self._name, self._read = database, name, read
        self._kept: tuple[int, Kept] = (-1, empty)

    @property
    def latest(self) -> Kept:
        """As it was read last."""
        return self._kept[1]

    def at(self, stamps: Stamps | None) -> Kept:
        """As it is; with the database away, as it was read last.

        `stamps`: as read from the database for this very request, where they were.
        """
        kept = self._kept
        if stamps is not None and getattr(stamps, self._name) == kept[0]:
            return kept[1]
        try:
            with self._database.connect() as connection:
                stamp: int = getattr(read_stamps(connection), self._name)
                if stamp != kept[0]:
                    self._kept = kept = stamp, self._read(connection)
        except StorageUnavailableError:
            pass
        return kept[1]


def bump(connection: Connection, name: Stamp) -> None:
    """Say that something of this kind changes in this transaction."""
    column = tables.stamps.c[name]
    connection.execute(tables.stamps.update().values({column: column + 1}))
