"""The data that a downgrade of the schema would lose."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, column, create_engine, func, inspect, select, table

from recsys.errors import InputError
from recsys.storage.engine.database import Database
from recsys.storage.schema import migrate, recorded_tables

BASE = "base"  # no table at all


@dataclass(frozen=True)
class DowngradeLoss:
    """The rows and values that a downgrade would delete."""

    before: str  # the revision that is there
    tables: dict[str, int]  # name -> rows
    columns: dict[str, int]  # table.column -> rows with a value


def losses(database: Database, revision: str) -> DowngradeLoss:
    """What going back to `revision` ('base': none) would lose; nothing is changed.

    Raises InputError where it is not an older one than the database's, RecsysError where that is of
    a newer release.
    """
    before = migrate.current(database)
    migrate.refuse_newer(before)
    older = migrate.older(before)
    if before is None or revision not in (BASE, before, *older):
        expected = f"one before {before}: {', '.join([*older, BASE])}" if before else "no schema"
        raise InputError("REVISION", revision, f"expected {expected}")
    kept = _schema_of(revision)
    tables, columns = {}, {}
    with database.connect() as connection:
        for name, names in _columns(connection).items():
            if name not in kept:
                tables[name] = connection.execute(
                    select(func.count()).select_from(table(name))
                ).scalar_one()
                continue
            for lost in sorted(names - kept[name]):
                counted = select(func.count(column(lost))).select_from(table(name, column(lost)))
                columns[f"{name}.{lost}"] = connection.execute(counted).scalar_one()
    return DowngradeLoss(before, tables, columns)


def _schema_of(revision: str) -> dict[str, set[str]]:
    """The columns of each table at `revision`: the migrations, run in memory."""
    if revision == BASE:
        return {}
    engine = create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            migrate.move(connection, revision)
            return _columns(connection)
    finally:
        engine.dispose()


def _columns(connection: Connection) -> dict[str, set[str]]:
    found = inspect(connection)
    return {
        name: {one["name"] for one in found.get_columns(name)}
        for name in sorted(recorded_tables.present(connection))
    }
