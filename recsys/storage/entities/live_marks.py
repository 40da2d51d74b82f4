"""What tells whoever follows the event log that it must be read anew, in one short statement."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, func, select

from recsys.storage.engine.short_selects import CompiledSelect
from recsys.storage.entities import version_rows
from recsys.storage.schema import tables


class LiveMarks(NamedTuple):
    """How often things have changed, and where the deployed versions' data end."""

    items: int
    aliases: int
    tombstones: int
    deployments: int
    removals: int  # the latest erasure or undone import
    data_end_us: int | None  # of the oldest version deployed; 0 unknown, None where none is


_STAMPS = [tables.stamps.c[name] for name in LiveMarks._fields[:4]]
_REMOVALS = select(func.coalesce(func.max(tables.removed_sequences.c.id), 0)).scalar_subquery()
_READ = CompiledSelect(select(*_STAMPS, _REMOVALS))


def read_live_marks(connection: Connection, known: LiveMarks | None = None) -> LiveMarks:
    """`known`: as read before; its versions stand where nothing was deployed since.

    Raises RecsysError where the tables are not there.
    """
    items, aliases, tombstones, deployments, removals = _READ(connection)[0]
    if known is not None and known.deployments == deployments:
        end_us = known.data_end_us
    else:
        names = [name for name, _ in version_rows.deployed_names(connection)]
        ends = [version_rows.get_version(connection, name).data_end_us for name in names]
        end_us = min(ends, default=None)
    return LiveMarks(items, aliases, tombstones, deployments, removals, end_us)
