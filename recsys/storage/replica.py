"""A standby of the service's own PostgreSQL, from which the histories of users are read.

Freshness is exact: the primary says up to where its log is written, and the standby is believed once it
has replayed as much. So an answer holds every event that was acknowledged before the request, whoever
took it, as it does without a standby. One that is behind for longer than the wait, or away, is passed
over, and the primary answers. (With synchronous_commit off an acknowledged event may not be written
yet, and is then not waited for.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, func, literal_column, select

from recsys.config import DatabaseSettings
from recsys.errors import ConfigError, StorageUnavailableError
from recsys.storage.database import Database, HotSelect

RETRY_SECONDS = 2.0  # for which a standby is left alone that was away
POLL_SECONDS = 0.0005
_START: ColumnElement[Any] = literal_column("'0/0'::pg_lsn")
_WRITTEN = HotSelect(select(func.pg_wal_lsn_diff(func.pg_current_wal_flush_lsn(), _START)))
_REPLAYED = HotSelect(select(func.pg_wal_lsn_diff(func.pg_last_wal_replay_lsn(), _START)))

Found = TypeVar("Found")


class Replica:
    """Reads from the standby where it is as new as the primary. Nothing connects at construction."""

    def __init__(self, settings: DatabaseSettings) -> None:
        """Raises ConfigError where an address is not one of PostgreSQL."""
        url = settings.replica_url.get_secret_value()
        self.database = Database(url, settings.pool_size, settings.busy_timeout_seconds)
        if self.database.dialect != "postgresql":
            raise ConfigError("database.replica_url", "…", "expected a postgresql:// address")
        if not settings.url.get_secret_value().startswith("postgres"):
            raise ConfigError("database.replica_url", "…", "database.url is not of PostgreSQL")
        self._wait_seconds = settings.replica_wait_ms / 1e3
        self._away_until = 0.0
        self.note: Callable[[str], None] = lambda outcome: None  # 'replica', 'behind' or 'away'

    def read(self, primary: Connection, ask: Callable[[Connection], Found]) -> Found:
        """What `ask` finds in the standby, or in the primary where that is newer.

        `primary`: a connection without a transaction. Raises what `ask` raises of the primary.
        """
        if time.monotonic() < self._away_until:
            return ask(primary)
        written = _WRITTEN(primary)[0][0]
        try:
            with self.database.read() as standby:
                if self._has_replayed(standby, written):
                    found = ask(standby)
                    self.note("replica")
                    return found
            self.note("behind")
        except StorageUnavailableError:
            self._away_until = time.monotonic() + RETRY_SECONDS
            self.note("away")
        return ask(primary)

    def _has_replayed(self, standby: Connection, written: object) -> bool:
        until = time.monotonic() + self._wait_seconds
        while True:
            replayed = _REPLAYED(standby)[0][0]
            if replayed is None:  # it is no standby, or one no longer
                return False
            if replayed >= written:
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_SECONDS)

    def lag_bytes(self, primary: Connection) -> int:
        """How much of the primary's log is not replayed. Raises StorageUnavailableError; ConfigError
        where it is no standby.
        """
        written = _WRITTEN(primary)[0][0]
        with self.database.read() as standby:
            replayed = _REPLAYED(standby)[0][0]
        if replayed is None:
            raise ConfigError("database.replica_url", "…", "that server is not a standby")
        return max(0, int(written - replayed))

    def close(self) -> None:
        self.database.close()
