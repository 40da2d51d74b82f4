"""How long a database is waited for, and whether a PostgreSQL that accepts says anything at all."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import closing
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Dialect

from recsys.config import Settings
from recsys.errors import StorageUnavailableError
from recsys.storage.engine.watchdog import hang_up

LEAST_SECONDS = 2.0  # for which a server that says nothing is waited for


class Timeouts(NamedTuple):
    """Seconds that a request waits for a database that is slow.

    For one that says nothing at all it waits no longer than for a `read`.
    """

    read: float  # `Database.read`
    transaction: float  # `Database.begin`
    query: float  # `Database.connect`
    erasure: float  # `Database.begin(long=True)`

    @property
    def probe(self) -> float:
        """After which the server is asked whether it says anything, and for which that may take."""
        return self.read / 2

    @classmethod
    def of(cls, settings: Settings) -> Timeouts:
        """For processes that serve: short reads may take as long as a lock may, and as what is
        asked of a mapped table and a standby meanwhile.
        """
        short = max(LEAST_SECONDS, settings.database.busy_timeout_seconds)
        short += 3 * settings.events.timeout_seconds if settings.events.mapped else 0
        short += LEAST_SECONDS if settings.database.replica_url.get_secret_value() else 0
        return cls(short, 3 * short, 12 * short, 60 * short)


def is_silent(
    dialect: Dialect, url: URL, connect_args: Mapping[str, object], seconds: float
) -> bool:
    """Whether the server lets a new connection wait for `seconds`; one that refuses is not silent."""
    arguments, options = dialect.create_connect_args(url)
    options = {**options, **connect_args, "connect_timeout": max(2, round(seconds))}
    waited = threading.Event()

    def give_up(descriptor: int) -> None:
        waited.set()
        hang_up(descriptor)

    try:
        with closing(dialect.connect(*arguments, **options)) as driver:
            end = threading.Timer(seconds, give_up, [driver.fileno()])
            end.start()
            try:
                driver.cursor().execute("SELECT 1")
            finally:
                end.cancel()
                end.join()
    except Exception as error:  # whatever it is, a server that says so is there
        timed_out = dialect.loaded_dbapi.errors.ConnectionTimeout
        return waited.is_set() or isinstance(error, timed_out)
    return False


def descriptor_of(connection: Connection | Any) -> int:
    """The socket under a connection of SQLAlchemy's or psycopg's own.

    Raises StorageUnavailableError where it is closed.
    """
    driver = connection.connection if isinstance(connection, Connection) else connection
    try:
        return int(getattr(driver, "driver_connection", driver).fileno())
    except Exception as error:  # psycopg's own, which SQLAlchemy does not see here
        raise StorageUnavailableError("the connection to the database is lost") from error
