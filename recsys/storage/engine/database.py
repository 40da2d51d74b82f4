"""The engine, and its two ways in: `begin()` is one transaction, `connect()` only reads.

SQLite runs in WAL mode with foreign keys on; a write transaction takes the lock at its start
(BEGIN IMMEDIATE), so that two writers wait for each other instead of failing halfway, and readers
take none. synchronous=FULL: a commit is on the disk before it is told. With NORMAL it survives the death
of the process alone; a power cut may take the last moments with it, but never the consistency of the
file.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import URL, Engine, Table, create_engine, event, make_url
from sqlalchemy import Connection as Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
)

from recsys.config import Settings
from recsys.errors import ConfigError, StorageUnavailableError
from recsys.storage.engine.failures import translated
from recsys.storage.engine.watchdog import Timeouts, Watchdog, descriptor_of, is_silent

IDLE_SECONDS = 1.0  # after which a pooled connection is probed before it is used


class Database:
    """One database. Nothing connects at construction."""

    def __init__(
        self,
        url: str,
        pool_size: int = 5,
        busy_timeout_seconds: float = 5.0,
        connect_args: Mapping[str, object] | None = None,
        timeouts: Timeouts | None = None,
        synchronous: Literal["full", "normal"] = "full",
        read_only: bool = False,
    ) -> None:
        """`pool_size`: connections that are kept; as many again open where those are in use.
        `connect_args`: for PostgreSQL's driver, beside its own. `timeouts`: with a PostgreSQL that
        accepts and never answers; without them it is waited for. `synchronous`: of SQLite. `read_only`:
        every write is refused by the database.

        Raises ConfigError where `url` is not one of SQLite or PostgreSQL.
        """
        self.url = parse_url(url)
        self._connect_args = connect_args or {}
        self._busy_timeout_seconds = busy_timeout_seconds
        self._synchronous = synchronous
        self._read_only = read_only
        self._local = threading.local()
        self._generation = 0
        self._timeouts = None if self.url.get_backend_name() == "sqlite" else timeouts
        self._watchdog = (
            Watchdog(self._is_silent, self._timeouts.probe) if self._timeouts else Watchdog()
        )
        self.engine = self._engine(pool_size)

    @property
    def dialect(self) -> str:
        """'sqlite' or 'postgresql'."""
        return self.engine.dialect.name

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database."""
        name = self.url.database
        is_sqlite = self.url.get_backend_name() == "sqlite"
        return Path(name) if is_sqlite and name and name != ":memory:" else None

    @contextmanager
    def begin(self, long: bool = False) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back by an exception.

        `long`: one of minutes, such as an erasure. Raises StorageUnavailableError where the database
        is locked, full, read-only or cannot be reached, InputError for a value that it cannot hold.
        """
        timeouts = self._timeouts
        seconds = timeouts and (timeouts.erasure if long else timeouts.transaction)
        with (
            translated(),
            self._watched(),
            self.engine.connect() as connection,
            self._bounded(connection, seconds),
            connection.begin(),
        ):
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection for reading. In SQLite all of the block sees one view of the data, in
        PostgreSQL each statement the newest.
        """
        seconds = self._timeouts and self._timeouts.query
        with (
            translated(),
            self._watched(),
            self.engine.connect() if self.dialect == "sqlite" else self._autocommit() as connection,
            self._bounded(connection, seconds),
        ):
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN")
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """The calling thread's own connection for short reads, held open between them.

        Each statement sees the newest data. A connection on which a read fails is let go, and one
        that lay idle is probed first, so that a restart of the database is noticed.
        """
        with translated(), self._watched():
            held: Connection | None = getattr(self._local, "connection", None)
            if held is None or not self._is_usable(held):
                self._let_go()
                self._refuse_silent()
                held = self._autocommit()
                self._local.connection, self._local.generation = held, self._generation
            try:
                with self._bounded(held, self._timeouts and self._timeouts.read):
                    yield held
            except (DBAPIError, StorageUnavailableError):
                self._let_go()
                raise
            self._local.used_at = time.monotonic()

    def _autocommit(self) -> Connection:
        """For reading alone: without a transaction PostgreSQL is asked once, not thrice."""
        connection = self.engine.connect()
        try:
            return connection.execution_options(isolation_level="AUTOCOMMIT")
        except BaseException:  # it is dead: its place in the pool is free at once
            connection.invalidate()
            connection.close()
            raise

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """A server that says nothing is not waited for until it answers again."""
        self._refuse_silent()
        started = time.monotonic()
        try:
            yield
        except (OperationalError, InterfaceError, DisconnectionError):
            timeouts = self._timeouts
            if timeouts is not None and time.monotonic() - started >= timeouts.probe:
                self._watchdog.doubt()
            raise

    def _refuse_silent(self) -> None:
        if self._watchdog.silent:
            raise StorageUnavailableError("the database does not answer")

    def _is_silent(self) -> bool:
        assert self._timeouts is not None
        arguments = (self.engine.dialect, self.url, self._connect_args, self._timeouts.probe)
        return is_silent(*arguments)

    @contextmanager
    def _bounded(self, connection: Connection, seconds: float | None) -> Iterator[None]:
        if seconds is None:
            yield
            return
        try:
            descriptor = descriptor_of(connection)
        except StorageUnavailableError:
            if isinstance(connection, Connection):
                connection.invalidate()  # the pool makes another
            raise
        with self._watchdog.bounded(descriptor, seconds):
            yield

    def _is_usable(self, held: Connection) -> bool:
        """Whether the thread's own connection still leads to the database."""
        if held.closed or held.invalidated or self._local.generation != self._generation:
            return False
        used_at: float = getattr(self._local, "used_at", 0.0)
        if self.dialect == "sqlite" or time.monotonic() - used_at <= IDLE_SECONDS:
            return True
        try:
            with self._bounded(held, self._timeouts and self._timeouts.read):
                held.exec_driver_sql("SELECT 1")
        except (DBAPIError, StorageUnavailableError):
            return False
        return True

    def _let_go(self) -> None:
        held: Connection | None = getattr(self._local, "connection", None)
        if held is not None:
            self._local.connection = None
            held.invalidate()
            held.close()

    def close(self) -> None:
        """Close what is not in use now; connections that threads hold open end at their next use."""
        self._generation += 1
        self._watchdog.close()
        self._let_go()
        self.engine.dispose()

    def make_folder(self) -> None:
        """Create the folder of a SQLite file, and the file, for its owner alone.

        SQLite gives the files beside it (-wal, -shm, -journal) the file's own mode.
        """
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(OSError):  # it is there, or connecting tells why it cannot be
                os.close(os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def _engine(self, pool_size: int) -> Engine:
        is_sqlite = self.url.get_backend_name() == "sqlite"
        pool: dict[str, Any] = {
            "pool_size": pool_size,
            "max_overflow": pool_size,
            "pool_timeout": self._busy_timeout_seconds,
        }
        if is_sqlite and self.file is None:  # in memory: of each thread's own connection
            pool = {}
        if is_sqlite:
            url = self.url
            if self._read_only and self.file is not None:  # a file that is not there is not made
                name = f"file:{quote(str(self.file.resolve()))}"
                url = url.set(database=name, query={"mode": "rw", "uri": "true"})
            engine = create_engine(
                url,
                hide_parameters=True,  # values in an error's text would end in the log
                **pool,
                connect_args={
                    "timeout": self._busy_timeout_seconds,
                    "check_same_thread": False,
                },
            )
            event.listen(engine, "connect", self._prepare_sqlite)
            return engine
        # Where the database is SQLite, PostgreSQL's driver is not loaded.
        from recsys.storage.engine.renewed_plans import RenewingCursor

        only = {"options": "-c default_transaction_read_only=on"} if self._read_only else {}
        engine = create_engine(
            self.url,
            hide_parameters=True,
            **pool,
            connect_args={
                "connect_timeout": max(2, round(self._busy_timeout_seconds)),
                "cursor_factory": RenewingCursor,
                **only,
                **self._connect_args,
            },
        )
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", self._probe_if_idle)
        return engine

    def _probe_if_idle(self, connection: Any, record: Any, _proxy: Any) -> None:
        """Ask a connection that has lain idle whether it still lives; the pool replaces a dead one.

        One used a moment ago is taken at its word, which spares each request a round trip.
        """
        used_at = record.info.get("used_at")
        if used_at is None or time.monotonic() - used_at < IDLE_SECONDS:
            return
        seconds = self._timeouts.read if self._timeouts else None
        try:
            with self._bounded(connection, seconds), connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            connection.rollback()
        except Exception as error:
            self._refuse_silent()  # else the pool would try again, and wait
            raise DisconnectionError from error

    def _prepare_sqlite(self, connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where this project says so
        cursor = connection.cursor()
        for pragma in (
            "query_only=ON" if self._read_only else "journal_mode=WAL",
            f"synchronous={self._synchronous}",
            "foreign_keys=ON",
            "cache_size=-65536",
            "mmap_size=268435456",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()


def open_database(settings: Settings, held: int = 0) -> Database:
    """The configured database; nothing connects yet.

    `held`: threads that serve, each with a connection of its own and with `Timeouts`.
    """
    chosen = settings.database
    return Database(
        chosen.url.get_secret_value(),
        chosen.pool_size + held,
        chosen.busy_timeout_seconds,
        timeouts=Timeouts.of(settings) if held else None,
        synchronous=chosen.synchronous,
    )


def open_read_only(settings: Settings) -> Database:
    """The configured database, every write to which is refused; nothing connects yet."""
    chosen = settings.database
    return Database(
        chosen.url.get_secret_value(),
        chosen.pool_size,
        chosen.busy_timeout_seconds,
        read_only=True,
    )


def upsert(connection: Connection, table: Table) -> Any:
    """An INSERT into `table` that knows ON CONFLICT, in the connection's dialect."""
    dialects = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    return dialects[connection.dialect.name](table)


def parse_url(url: str) -> URL:
    """`url` with the driver this project uses. Raises ConfigError; the password is never shown."""
    expected = "expected: sqlite:///path/to/file.db or postgresql://user:password@host/name"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("database.url", "…", expected) from None
    backend = parsed.get_backend_name()
    if backend in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return parsed.set(drivername="sqlite")
    raise ConfigError("database.url", backend, expected)


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used_at"] = time.monotonic()
