"""How often things have changed, so that what a process keeps in memory is never stale.

A change raises its stamp in its own transaction. Whoever keeps something reads the stamps first and
the thing after them, and keeps it under the number it read: at worst it is read once too often.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from sqlalchemy import Connection, select

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


COLUMNS = tuple(tables.stamps.c[name] for name in Stamps._fields)
_READ = CompiledSelect(select(*COLUMNS))


def read_stamps(connection: Connection) -> Stamps:
    """Raises RecsysError where the tables are not there."""
    return Stamps._make(_READ(connection)[0])


def bump(
    connection: Connection,
    name: Literal[
        "items",
        "keys",
        "deployments",
        "aliases",
        "tombstones",
        "followers",
        "scenarios",
        "experiments",
    ],
) -> None:
    """Say that something of this kind changes in this transaction."""
    column = tables.stamps.c[name]
    connection.execute(tables.stamps.update().values({column: column + 1}))
