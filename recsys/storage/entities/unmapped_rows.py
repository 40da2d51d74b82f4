"""Names of tracked events that map to nothing here, and how often each came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from recsys.events.times import DAY_US
from recsys.storage.engine.database import upsert
from recsys.storage.schema.tables import unmapped_names

MAX_NAMES = 200  # of a source; those beyond are counted together
OTHERS = "(other names)"
KEPT_DAYS = 30  # after which a name that did not come again makes room for another


@dataclass(frozen=True)
class UnmappedName:
    """A name, and how often it came."""

    source: str
    name: str
    number: int
    first_seen_us: int
    last_seen_us: int


def count_names(
    connection: Connection, source: str, counted: Mapping[str, int], now_us: int
) -> None:
    """Add to the counts of a source's names, in their order, so that two writers cannot lock each other."""
    if not counted:
        return
    table = unmapped_names.c
    known = set(connection.execute(select(table.name).where(table.source == source)).scalars())
    fresh = sorted(set(counted) - known)
    if fresh and len(known) + len(fresh) > MAX_NAMES:
        old = (table.source == source) & (table.last_seen_us < now_us - KEPT_DAYS * DAY_US)
        gone = connection.execute(delete(unmapped_names).where(old).returning(table.name))
        known -= set(gone.scalars())
        fresh = sorted(set(counted) - known)
    taken = known.union(fresh[: max(0, MAX_NAMES - len(known))])
    sums: dict[str, int] = {}
    for name, number in counted.items():
        name = name if name in taken else OTHERS
        sums[name] = sums.get(name, 0) + number
    statement = upsert(connection, unmapped_names)
    statement = statement.on_conflict_do_update(
        index_elements=["source", "name"],
        set_={
            "number": table.number + statement.excluded.number,
            "last_seen_us": statement.excluded.last_seen_us,
        },
    )
    rows = [
        {
            "source": source,
            "name": name,
            "number": number,
            "first_seen_us": now_us,
            "last_seen_us": now_us,
        }
        for name, number in sorted(sums.items())
    ]
    connection.execute(statement, rows)


def list_names(connection: Connection, limit: int = 50) -> list[UnmappedName]:
    """The names that came most often, most first."""
    table = unmapped_names.c
    statement = (
        select(unmapped_names).order_by(table.number.desc(), table.source, table.name).limit(limit)
    )
    return [UnmappedName(**row._mapping) for row in connection.execute(statement)]
