"""How long a database is waited for, and who cuts connections that wait longer: a server that is stopped
keeps no time-out itself.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Dialect

from recsys.config import Settings
from recsys.errors import StorageUnavailableError

LOOK_SECONDS = 0.25
ASK_AGAIN_SECONDS = 1.0


class BoundedBlock(NamedTuple):
    """A block of work on a socket, with its deadline; times are of time.monotonic."""

    descriptor: int
    begun: float
    until: float


class Watchdog:
    """Looks after the sockets of blocks that are bounded, from a thread of its own.

    A block that takes long may wait for a server that is slow, or for one that says nothing at all.
    Where it is told how to ask, the watchdog finds out which: blocks that wait for a silent server are
    cut before their time, and `silent` holds until the server answers again.
    """

    def __init__(
        self, is_silent: Callable[[], bool] | None = None, ask_seconds: float = math.inf
    ) -> None:
        """`is_silent` is called once a block has taken `ask_seconds`; it must end by itself."""
        self.silent = False
        self._is_silent, self._ask_seconds = is_silent, ask_seconds
        self._asked_at = -math.inf
        self._doubted = threading.Event()
        self._blocks: dict[object, BoundedBlock] = {}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def bounded(self, descriptor: int, seconds: float) -> Iterator[None]:
        """What the block does on the socket fails, once it has taken `seconds` (and a look)."""
        block, now = object(), time.monotonic()
        with self._lock:
            self._blocks[block] = BoundedBlock(descriptor, now, now + seconds)
            self._begin()
        try:
            yield
        finally:
            with self._lock:
                self._blocks.pop(block, None)

    def doubt(self) -> None:
        """Something waited in vain and without a socket: find out whether the server is silent."""
        self._doubted.set()
        with self._lock:
            self._begin()

    def close(self) -> None:
        """End the thread; nothing is cut any more."""
        self._done.set()

    def _begin(self) -> None:
        if self._thread is None:  # a worker's own: threads do not survive a fork
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()

    def _look(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            if self._is_silent is not None and self._must_ask():
                self._doubted.clear()
                self.silent = self._is_silent()
                self._asked_at = time.monotonic()
            self._cut()

    def _must_ask(self) -> bool:
        now = time.monotonic()
        if now < self._asked_at + ASK_AGAIN_SECONDS:
            return False
        if self.silent or self._doubted.is_set():
            return True
        with self._lock:
            return any(now > one.begun + self._ask_seconds for one in self._blocks.values())

    def _cut(self) -> None:
        now = time.monotonic()
        with self._lock:  # a block that ends meanwhile would leave its descriptor to another
            for block, one in list(self._blocks.items()):
                if now > one.until or (self.silent and now > one.begun + self._ask_seconds):
                    del self._blocks[block]
                    hang_up(one.descriptor)


def hang_up(descriptor: int) -> None:
    """End the conversation on a socket, which stays open; whoever waits there goes on at once."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as other:
        other.shutdown(socket.SHUT_RDWR)


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
        asked of an external table and a standby meanwhile.
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
