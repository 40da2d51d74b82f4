"""Which tables a database has of this project's, and what taking its schema back would lose."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import orjson
from sqlalchemy import Connection, MetaData, column, create_engine, func, inspect, select, table
from sqlalchemy.exc import DBAPIError, IntegrityError

from recsys.errors import ConflictError, InputError
from recsys.storage.engine.database import Database
from recsys.storage.entities import key_values
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.schema import downgrades, migrate
from recsys.storage.schema.tables import installation, metadata

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
        for name in sorted(downgrades.present(connection))
    }


def present(connection: Connection) -> set[str]:
    """This release's tables that are there."""
    return set(inspect(connection).get_table_names()) & set(metadata.tables)


def record(connection: Connection) -> None:
    """Write down the tables as they are now; nothing is written where that is so already."""
    names = present(connection)
    if installation.name not in names:  # it came with revision 0002
        return
    value = orjson.dumps(sorted(names)).decode()
    if key_values.get_text(connection, InstallationKey.TABLES) != value:
        key_values.put(connection, InstallationKey.TABLES, value)


def recorded(connection: Connection) -> list[str]:
    """The tables that the newest migration wrote down, whichever release's it was.

    Raises ConflictError where there is no such list.
    """
    columns = {"name", "value"}
    found = inspect(connection)
    if found.has_table(installation.name) and columns <= {
        column["name"] for column in found.get_columns(installation.name)
    }:
        value = key_values.get_text(connection, InstallationKey.TABLES)
        if value is not None:
            return [str(name) for name in orjson.loads(value)]
    raise ConflictError(
        "the database is of a newer release and does not say which tables are its own; "
        "restore into an empty database"
    )


def drop_recorded(connection: Connection) -> None:
    """In the transaction at hand: drop the tables written down, and the schema's revision.

    Raises ConflictError where something else, such as a view, needs one of them.
    """
    found = MetaData()
    names = {*recorded(connection), "alembic_version"}
    there = names & set(inspect(connection).get_table_names())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*expression-based index")  # goes with its table
        found.reflect(connection, only=sorted(there), resolve_fks=False)
    try:
        found.drop_all(connection, checkfirst=False)
    except DBAPIError as error:
        needed = isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", 0) == "2BP01"
        if not needed:
            raise
        raise ConflictError(
            "something else in the database, such as a view, needs the tables of the newer "
            "release; restore into an empty database"
        ) from None
