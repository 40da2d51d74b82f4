"""The `installation` table: one text per key, for what an installation has to remember of itself."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from enum import StrEnum

from sqlalchemy import Connection, delete, select

from recsys.storage.engine.database import Database, upsert
from recsys.storage.schema.tables import installation


class InstallationKey(StrEnum):
    """Every key there is."""

    TABLES = "tables"  # names of this project's tables, as the newest migration left them (JSON)
    DATABASE_ID = "database_id"  # by which sequence files know their database
    TOMBSTONE_KEY = "tombstone_key"  # of the keyed hash of those who were erased (hex)
    ARM_KEY = "arm_key"  # of the keyed hash that draws users into the control arm (hex)
    ATTRIBUTED_UNTIL_US = "attributed_until_us"  # receipt time up to which clicks are attributed
    CONVERSIONS_SINCE_US = (
        "conversions_since_us"  # time of the oldest event that may be a conversion
    )
    CONVERSIONS_SETTLED = "conversions_settled"  # row id up to which none needs a second look
    EVENTS_COUNTED_TO = "events_counted_to"  # row id up to which events need no second look
    EVENTS_COUNTED_NEWEST = "events_counted_newest"  # the newest row id that was counted
    OUTCOMES_COUNTED = "outcomes_counted"  # how far experiments' events are counted (JSON)
    QUARANTINE_COLUMNS = "quarantine_columns"  # source -> columns its owners stand in (JSON)
    EXTERNAL_COUNTED = "mapped_counted"  # how far an external table's events are counted (JSON)


def get_text(connection: Connection, key: InstallationKey) -> str | None:
    """The value of `key`; None where it was never put."""
    statement = select(installation.c.value).where(installation.c.name == key.value)
    found: str | None = connection.execute(statement).scalar_one_or_none()
    return found


def get_number(connection: Connection, key: InstallationKey) -> int:
    """The value of `key` as a number; 0 where it was never put."""
    return int(get_text(connection, key) or 0)


def get_or_put(connection: Connection, key: InstallationKey, make: Callable[[], str]) -> str:
    """The value of `key`, which is that of `make` where there was none. For a transaction.

    Of several that put one at once, all get the value of the first.
    """
    found = get_text(connection, key)
    if found is None:
        statement = upsert(connection, installation).values(name=key.value, value=make())
        connection.execute(statement.on_conflict_do_nothing(index_elements=["name"]))
        found = get_text(connection, key)
        assert found is not None
    return found


def put(connection: Connection, key: InstallationKey, value: str | int) -> None:
    """Put `value` in place of what was there."""
    statement = upsert(connection, installation).values(name=key.value, value=str(value))
    replaced = {"value": statement.excluded.value}
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=replaced))


def forget(connection: Connection, *keys: InstallationKey) -> None:
    """Delete the values of `keys`."""
    names = [key.value for key in keys]
    connection.execute(delete(installation).where(installation.c.name.in_(names)))


def database_id(database: Database) -> str:
    """A name of this very database, by which sequence files know it; made when it is first asked for."""
    return _made_once(database, InstallationKey.DATABASE_ID, lambda: uuid.uuid4().hex)


def arm_key(database: Database) -> str:
    """The secret that draws users into arms; made when it is first asked for."""
    return _made_once(database, InstallationKey.ARM_KEY, lambda: secrets.token_hex(32))


def _made_once(database: Database, key: InstallationKey, make: Callable[[], str]) -> str:
    with database.connect() as connection:
        known = get_text(connection, key)
    if known is not None:
        return known
    with database.begin() as connection:
        return get_or_put(connection, key, make)
