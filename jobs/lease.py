"""One leader among all schedulers of a database, without trust in clocks.

The holder adds a beat to the lease's row at a third of its life. Whoever would follow watches the row:
where token and beats stand still for a whole life by the watcher's own monotonic clock, the holder is
gone, and the first to write a new token has the lease. A holder that could not write for a whole life
stops leading by itself, before anyone else can have begun.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable

import structlog

from recsys.errors import RecsysError
from recsys.storage.engine.database import Database
from recsys.storage.entities import lease_rows
from recsys.storage.entities.lease_rows import LeaseRow

log = structlog.get_logger(__name__)


def now_us() -> int:
    """The wall clock, in microseconds since 1970."""
    return time.time_ns() // 1_000


class Lease:
    """This process's side of the lease. Not for several threads."""

    def __init__(
        self,
        database: Database,
        seconds: float,
        clock: Callable[[], float],
        now_us: Callable[[], int],
    ) -> None:
        """`clock` gives seconds that never go back; `now_us` is for people to read."""
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.token: int | None = None  # of the lease held, until another is known to have it
        self._database, self._seconds = database, seconds
        self._clock, self._now_us = clock, now_us
        self._good_until = float("-inf")
        self._next_renewal = float("-inf")
        self._seen: tuple[LeaseRow, float] | None = None

    @property
    def leads(self) -> bool:
        """Whether this process may act as the leader at this moment."""
        return self.token is not None and self._clock() < self._good_until

    def step(self) -> None:
        """Renew the lease where that is due, or watch it and take it where it is free.

        `token` is None afterwards where another has it. A database that is away, or whatever else
        fails, changes nothing but that `leads` ends in time.
        """
        try:
            if self.token is not None:
                self._renew(self.token)
            else:
                self._watch()
        except RecsysError as error:
            log.warning("the lease cannot be reached", reason=str(error))
        except Exception:
            log.exception("renewing the lease failed")

    def release(self) -> None:
        """Let go, so that another need not wait."""
        if self.token is None:
            return
        token, self.token = self.token, None
        try:
            with self._database.begin() as connection:
                lease_rows.release_lease(connection, lease_rows.SCHEDULER, token)
        except RecsysError as error:
            log.warning("the lease was not released", reason=str(error))

    def _renew(self, token: int) -> None:
        started = self._clock()
        if started < self._next_renewal:
            return
        with self._database.begin() as connection:
            kept = lease_rows.renew_lease(connection, lease_rows.SCHEDULER, token, self._now_us())
        if kept:
            self._count_from(started)
        else:
            log.warning("another scheduler leads", token=token)
            self.token, self._seen = None, None

    def _watch(self) -> None:
        started = self._clock()
        with self._database.connect() as connection:
            found = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
        free = found.holder is None
        if not free:
            if self._seen is None or self._still(found) is False:
                self._seen = (found, started)
            free = started - self._seen[1] >= self._seconds
        if not free:
            return
        started = self._clock()
        with self._database.begin() as connection:
            token = lease_rows.take_lease(connection, found, self.holder, self._now_us())
        if token is not None:
            self.token = token
            self._count_from(started)
            log.info("this scheduler leads", token=token)

    def _still(self, found: LeaseRow) -> bool:
        assert self._seen is not None
        before = self._seen[0]
        return (found.token, found.beats) == (before.token, before.beats)

    def _count_from(self, started: float) -> None:
        """The lease is good for its life from before the write, when none can have seen it yet."""
        self._good_until = started + self._seconds
        self._next_renewal = started + self._seconds / 3
