"""The database of the user's own event table: read, and never written.

Every transaction is read only by the session's own setting, so that not even trusted SQL of the
operator's can change a row. `connect()` is one transaction for reflection and counting, `read()` the
calling thread's connection for requests, with a time-out, `batches()` a stream of columns in bulk.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from recsys.errors import ConfigError, MissingExtraError, SourceDataError, SourceUnavailableError
from recsys.storage.external.mapped_column import MappedColumn
from recsys.storage.external.row_judge import batch_of
from recsys.storage.external.source_failures import stream_translated, translated
from recsys.storage.external.source_sessions import only_read

KEY = "events.url"
BATCH_ROWS = 65_536
BULK_SECONDS = 600  # a writer may hold a SQLite file that long before a bulk read gives up
CONNECT_SECONDS = 5
COUNT_TIMES = 5  # how many times longer than a history a count over days may take
IDLE_SECONDS = 1.0  # after which a connection is probed before it is used
RETRY_SECONDS = 2.0  # for which requests leave a database alone that was away
_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
}
# What SQL is written for that takes no parameters: without the percent signs of a driver doubled.
PLAIN_DIALECTS: dict[str, Dialect] = {
    "sqlite": sqlite.dialect(paramstyle="named"),
    "postgresql": postgresql.dialect(paramstyle="named"),  # type: ignore[no-untyped-call]
    "mysql": mysql.dialect(paramstyle="named"),
}


class ExternalDatabase:
    """One database that is only read. Nothing connects at construction."""

    def __init__(self, url: str, timeout_seconds: float = 2.0, pool_size: int = 5) -> None:
        """Raises ConfigError where `url` is none of SQLite, PostgreSQL, MySQL; MissingExtraError."""
        self.url = parse_source_url(url)
        self._local = threading.local()
        self._held: set[Connection] = set()  # of all threads
        self._away_until = 0.0
        self._bulk = self._engine(BULK_SECONDS, poolclass=NullPool)
        self._counts = self._engine(COUNT_TIMES * timeout_seconds, poolclass=NullPool)
        self._count_ms = max(1, round(COUNT_TIMES * timeout_seconds * 1_000))
        more = {"poolclass": QueuePool, "pool_size": pool_size, "max_overflow": pool_size}
        more |= {"isolation_level": "AUTOCOMMIT", "pool_timeout": timeout_seconds}
        self._hot = self._engine(timeout_seconds, **more)

    @property
    def dialect(self) -> str:
        """'sqlite', 'postgresql' or 'mysql' (MariaDB too)."""
        return self._bulk.dialect.name

    @property
    def plain_dialect(self) -> Dialect:
        """What SQL for `batches` is compiled with."""
        return PLAIN_DIALECTS[self.dialect]

    @contextmanager
    def connect(self, *, counting: bool = False) -> Iterator[Connection]:
        """One read-only transaction. `counting`: a request waits for it, so that it has a time-out
        and is not tried of a database that was away just now.

        Raises SourceUnavailableError where it cannot be had.
        """
        if counting:
            self.refuse_if_away()
        engine = self._counts if counting else self._bulk
        with translated(), engine.connect() as connection:
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN")
            yield connection
            connection.rollback()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """The calling thread's own connection for short reads; each statement sees the newest rows.

        Raises SourceUnavailableError where it cannot be reached or is slower than the time-out. For
        RETRY_SECONDS after that it is not asked again, so that requests do not queue up for it.
        """
        self.refuse_if_away()
        now = time.monotonic()
        try:
            with translated():
                held: Connection | None = getattr(self._local, "connection", None)
                if held is not None and now - self._local.used_at > IDLE_SECONDS:
                    held = held if _answers(held) else None
                if held is None or held.closed:
                    self._let_go()
                    held = self._local.connection = self._hot.connect()
                    self._held.add(held)
                yield held
                self._local.used_at = time.monotonic()
        except SourceDataError:  # the database is there: nobody else is to go without it
            raise
        except SourceUnavailableError:
            self._let_go()
            self.leave()
            raise

    def leave(self) -> None:
        """Leave the database alone for RETRY_SECONDS: it was away."""
        self._away_until = time.monotonic() + RETRY_SECONDS

    def refuse_if_away(self) -> None:
        """Raise SourceUnavailableError where it was away just now."""
        if time.monotonic() < self._away_until:
            raise SourceUnavailableError("the database of the mapped event table was away just now")

    def _let_go(self) -> None:
        held: Connection | None = getattr(self._local, "connection", None)
        if held is not None:
            self._local.connection = None
            self._held.discard(held)
            held.invalidate()
            held.close()

    def close(self) -> None:
        """Close all connections, those of other threads too: nobody asks any more."""
        self._let_go()
        while self._held:
            held = self._held.pop()
            held.invalidate()
            held.close()
        self._hot.dispose()
        self._bulk.dispose()

    def batches(
        self, query: str, columns: dict[str, MappedColumn], waited_for: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a SELECT without parameters, in bounded batches of columns.

        Through ADBC where PostgreSQL is read; of SQLite there may be one library in a process alone (see
        `recsys.storage.entities.event_batches.read_batches`). `columns`: what is selected, by meaning and in order. `waited_for`: a request waits for it, so that it has a time-out and is not tried of a
        database that was away just now. Raises SourceUnavailableError.
        """
        if waited_for:
            self.refuse_if_away()
        with translated(), stream_translated():
            if self.dialect == "postgresql":
                yield from self._through_adbc(query, waited_for)
            else:
                yield from self._streamed(query, columns, waited_for)

    def _through_adbc(self, query: str, waited_for: bool) -> Iterator[pa.RecordBatch]:
        # Here, for it brings pandas along, which takes long to load and a request never needs.
        from adbc_driver_postgresql import dbapi

        address = self.url.set(drivername="postgresql")
        if "connect_timeout" not in address.query:
            address = address.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)})
        connection = dbapi.connect(address.render_as_string(hide_password=False))
        with connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
            cursor.execute("SET LOCAL TIME ZONE 'UTC'")
            if waited_for:
                cursor.execute(f"SET LOCAL statement_timeout = {self._count_ms}")
            cursor.execute(query)
            yield from cursor.fetch_record_batch()

    def _streamed(
        self, query: str, columns: dict[str, MappedColumn], waited_for: bool
    ) -> Iterator[pa.RecordBatch]:
        with self.connect(counting=waited_for) as connection:
            options = {"stream_results": True, "no_parameters": True}
            result = connection.execution_options(**options).exec_driver_sql(query)
            for rows in result.partitions(BATCH_ROWS):
                yield batch_of([tuple(row) for row in rows], columns)

    def _engine(self, timeout_seconds: float, **pool: Any) -> Engine:
        backend = self.url.get_backend_name()
        if backend == "sqlite":
            uri = sqlite_uri(self.url)

            def open_file() -> sqlite3.Connection:
                wait = min(timeout_seconds, CONNECT_SECONDS)
                return sqlite3.connect(uri, uri=True, timeout=wait, check_same_thread=False)

            engine = create_engine("sqlite://", creator=open_file, **pool)
        else:
            connect = max(2, round(min(timeout_seconds, CONNECT_SECONDS)))
            try:
                arguments: dict[str, Any] = {"connect_timeout": connect}
                if backend == "mysql":
                    arguments["read_timeout"] = max(1, round(timeout_seconds + 1))
                    arguments["charset"] = "utf8mb4"
                else:
                    from recsys.storage.engine.renewed_plans import RenewingCursor

                    arguments |= {"client_encoding": "utf8", "cursor_factory": RenewingCursor}
                engine = create_engine(self.url, connect_args=arguments, **pool)
            except ModuleNotFoundError:
                raise MissingExtraError("mysql", "to read from MySQL or MariaDB") from None

        def prepare(connection: Any, _record: Any) -> None:
            only_read(backend, connection, timeout_seconds)

        event.listen(engine, "connect", prepare)
        return engine


def parse_source_url(url: str) -> URL:
    """`url` with the driver this project uses. Raises ConfigError; the password is never shown."""
    expected = "expected: sqlite:///file.db, postgresql://user:password@host/name or mysql://…"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError(KEY, "…", expected) from None
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS or (backend == "sqlite" and parsed.database in (None, ":memory:")):
        raise ConfigError(KEY, backend, expected)
    return parsed.set(drivername=_DRIVERS[backend])


def sqlite_uri(url: URL) -> str:
    """A SQLite file, to be opened for reading alone.

    >>> sqlite_uri(make_url("sqlite:////data/a b.db"))
    'file:/data/a%20b.db?mode=ro'
    """
    return f"file:{quote(str(Path(url.database or '').resolve()))}?mode=ro"


def _answers(connection: Connection) -> bool:
    try:
        connection.exec_driver_sql("SELECT 1")
    except DBAPIError:
        return False
    return True
