"""How large the database and the registry were, a row a day, and how they grow."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from recsys.events.times import DAY_US
from recsys.storage.engine.database import upsert
from recsys.storage.schema.tables import storage_sizes

LOOK_BACK_DAYS = 30


@dataclass(frozen=True)
class SizeRow:
    """Sizes in bytes, as last measured on one day."""

    day_us: int
    database_bytes: int
    registry_bytes: int
    free_bytes: int | None


@dataclass(frozen=True)
class Growth:
    """The newest sizes, and what a day adds to them; None where one day alone was measured."""

    newest: SizeRow
    bytes_a_day: float | None

    @property
    def days_left(self) -> float | None:
        """Until the disk is full at this rate; None where that is unknown, or nothing grows."""
        free = self.newest.free_bytes
        if free is None or self.bytes_a_day is None or self.bytes_a_day <= 0:
            return None
        return free / self.bytes_a_day


def put_size(
    connection: Connection, now_us: int, registry_bytes: int, free_bytes: int | None
) -> None:
    """Write down the sizes of today; the database's own is asked for."""
    values = {
        "database_bytes": database_bytes(connection),
        "registry_bytes": registry_bytes,
        "free_bytes": free_bytes,
    }
    day_us = now_us - now_us % DAY_US
    statement = upsert(connection, storage_sizes).values(day_us=day_us, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["day_us"], set_=values))


def database_bytes(connection: Connection) -> int:
    if connection.dialect.name == "postgresql":
        statement = text("SELECT pg_database_size(current_database())")
    else:
        statement = text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
    return int(connection.execute(statement).scalar_one())


def growth(connection: Connection) -> Growth | None:
    """Over the last LOOK_BACK_DAYS; None where nothing was measured."""
    newest = connection.execute(
        select(storage_sizes).order_by(storage_sizes.c.day_us.desc()).limit(1)
    ).one_or_none()
    if newest is None:
        return None
    since = newest.day_us - LOOK_BACK_DAYS * DAY_US
    first_day = select(func.min(storage_sizes.c.day_us)).where(storage_sizes.c.day_us >= since)
    first = connection.execute(
        select(storage_sizes).where(storage_sizes.c.day_us == first_day.scalar_subquery())
    ).one()
    days = (newest.day_us - first.day_us) / DAY_US
    if days < 1:
        return Growth(SizeRow(*newest), None)
    more = newest.database_bytes + newest.registry_bytes
    more -= first.database_bytes + first.registry_bytes
    return Growth(SizeRow(*newest), more / days)
