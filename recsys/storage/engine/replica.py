"""A standby of the service's own PostgreSQL, from which the histories of users are read.

Freshness is exact: the primary says up to where its log is written, and the standby is believed once it
has replayed as much. So an answer holds every event that was acknowledged before the request, whoever
took it, as it does without a standby. One that is behind for longer than the wait, slow, away, or no
standby of this database is passed over, and the primary answers. (With synchronous_commit off an
acknowledged event may not be written yet, and is then not waited for.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, case, func, literal_column, select
from sqlalchemy.exc import DBAPIError

from recsys.config import DatabaseSettings
from recsys.errors import ConfigError, RecsysError
from recsys.storage.engine.database import Database
from recsys.storage.engine.short_selects import CompiledSelect
from recsys.storage.engine.watchdog import Watchdog, descriptor_of

RETRY_SECONDS = 2.0  # for which a standby is left alone that was away
FOREIGN_SECONDS = 60.0  # or that is no standby of this database
BEHIND_SECONDS = 0.1  # or that was behind
READ_SECONDS = 1.0  # that a read may take, whatever the server does
POLL_SECONDS = 0.0005
_START: ColumnElement[Any] = literal_column("'0/0'::pg_lsn")
_WRITTEN = CompiledSelect(select(func.pg_wal_lsn_diff(func.pg_current_wal_flush_lsn(), _START)))
# Null on a server that is no standby, or is one no longer.
_REPLAYED = CompiledSelect(
    select(
        case(
            (
                func.pg_is_in_recovery(),
                func.pg_wal_lsn_diff(func.pg_last_wal_replay_lsn(), _START),
            )
        )
    )
)
_SYSTEM: ColumnElement[Any] = literal_column("(pg_control_system()).system_identifier")
_IDENTITY = CompiledSelect(select(_SYSTEM, func.current_database()))

Answer = TypeVar("Answer")


class Replica:
    """Reads from the standby where it is as new as the primary. Nothing connects at construction."""

    def __init__(self, settings: DatabaseSettings, threads: int = 1) -> None:
        """`threads`: that read at once, each by a connection of its own.

        Raises ConfigError where an address is not one of PostgreSQL.
        """
        self.database = Database(
            settings.replica_url.get_secret_value(),
            settings.pool_size + threads,
            settings.busy_timeout_seconds,
            connect_args={
                "connect_timeout": 2,  # the shortest that libpq takes
                "tcp_user_timeout": round(READ_SECONDS * 1e3),
                "options": f"-c statement_timeout={round(READ_SECONDS * 1e3)}",
            },
        )
        if self.database.dialect != "postgresql":
            raise ConfigError("database.replica_url", "…", "expected a postgresql:// address")
        if not settings.url.get_secret_value().startswith("postgres"):
            raise ConfigError("database.replica_url", "…", "database.url is not of PostgreSQL")
        self._wait_seconds = settings.replica_wait_ms / 1e3
        self._left_until = 0.0  # it is not asked before
        self._probing = threading.Lock()
        self._is_known = False  # to be a standby of this database that answers
        self._watch = Watchdog()
        self.note: Callable[[str], None] = lambda outcome: None  # 'replica', 'behind' or 'away'

    def read(self, primary: Connection, ask: Callable[[Connection], Answer]) -> Answer:
        """What `ask` finds in the standby, or in the primary where that is newer.

        `primary`: a connection without a transaction. Raises what `ask` raises of the primary.
        """
        if time.monotonic() < self._left_until:
            return ask(primary)
        written = _WRITTEN(primary)[0][0]
        # Of one that was away a single thread finds out whether it is back.
        probes = not self._is_known
        if probes and not self._probing.acquire(blocking=False):
            return ask(primary)
        try:
            with self.database.read() as standby, self._bounded(standby):
                if not self._is_known:
                    self._check(primary, standby)
                    self._is_known = True
                if self._has_replayed(standby, written):
                    found = ask(standby)
                    self.note("replica")
                    return found
            self._leave("behind", BEHIND_SECONDS)
        except ConfigError:
            self._is_known = False
            self._leave("away", FOREIGN_SECONDS)
        except (RecsysError, DBAPIError):
            self._is_known = False
            self._leave("away", RETRY_SECONDS)
        finally:
            if probes:
                self._probing.release()
        return ask(primary)

    def _bounded(self, standby: Connection) -> AbstractContextManager[object]:
        return self._watch.bounded(descriptor_of(standby), 1.5 * READ_SECONDS)

    def _leave(self, outcome: str, seconds: float) -> None:
        self._left_until = time.monotonic() + seconds
        self.note(outcome)

    def _check(self, primary: Connection, standby: Connection) -> None:
        """Raises ConfigError unless it replays this very database."""
        if _IDENTITY(primary) != _IDENTITY(standby):
            raise ConfigError("database.replica_url", "…", "that is another database")
        if _REPLAYED(standby)[0][0] is None:
            raise ConfigError("database.replica_url", "…", "that server is not a standby")

    def _has_replayed(self, standby: Connection, written: object) -> bool:
        until = time.monotonic() + self._wait_seconds
        while True:
            replayed = _REPLAYED(standby)[0][0]
            if replayed is None:
                raise ConfigError("database.replica_url", "…", "that server is not a standby")
            if replayed >= written:
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_SECONDS)

    def lag_bytes(self, primary: Connection) -> int:
        """How much of the primary's log is not replayed.

        Raises StorageUnavailableError; ConfigError where it is no standby of this database, or its
        events may not be read.
        """
        written = _WRITTEN(primary)[0][0]
        try:
            with self.database.read() as standby:
                self._check(primary, standby)
                replayed = _REPLAYED(standby)[0][0]
                standby.exec_driver_sql("SELECT id FROM events LIMIT 1").all()
        except DBAPIError:
            problem = "its events may not be read: the account lacks a GRANT"
            raise ConfigError("database.replica_url", "…", problem) from None
        return max(0, int(written - replayed))

    def close(self) -> None:
        self._watch.close()
        self.database.close()
