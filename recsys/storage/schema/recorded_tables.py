"""The list of this project's tables, which each migration writes into the database.

An older release does not know the tables that a newer one has added, and must never touch those of
somebody else in the same database. From this list it knows what a restore may drop.
"""

from __future__ import annotations

import orjson
from sqlalchemy import Connection, MetaData, inspect
from sqlalchemy.exc import DBAPIError, IntegrityError

from recsys.errors import ConflictError
from recsys.storage.entities import key_values
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.schema.tables import installation, metadata


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
