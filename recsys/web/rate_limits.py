"""Rate limits that hold over all workers of a machine, or of several machines through Redis.

Each caller has one number in memory that the workers share: the moment at which it would have used
up its allowance if it went on evenly (the generic cell rate algorithm). Two callers may fall on one
place of the table; they are then counted together, so a limit can be too strict, never too lax.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import struct
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import structlog

from recsys.errors import MissingExtraError

PLACES = 65_536
WINDOW_SECONDS = 60.0
REDIS_SECONDS = 0.25  # a request waits this long for Redis at most
REDIS_PAUSE_SECONDS = 5.0  # after a failure, before Redis is asked again
# By the server's own clock, so that those of the machines may differ.
GCRA = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1e6
local interval, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local used_up = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + interval
local wait = used_up - now - window
if wait > 1e-6 then return string.format('%.6f', wait) end
redis.call('SET', KEYS[1], string.format('%.6f', used_up), 'PX', math.ceil((used_up - now) * 1000) + 1000)
return '0'
"""

log = structlog.get_logger(__name__)


class Limits(Protocol):
    """What counts requests, events and bytes."""

    def seconds_to_wait(self, caller: str, per_minute: int, cost: int = 1) -> float:
        """0 where the caller may go on (and `cost` is counted), else how long until it may.

        What costs more than `per_minute` is never let through.
        """


class RateLimits:
    """Made before the workers are forked."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, PLACES * 8)
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the memory
        weakref.finalize(self, self._file.close)

    def seconds_to_wait(
        self, caller: str, per_minute: int, cost: int = 1, now: float | None = None
    ) -> float:
        """0 where the caller may go on (and `cost` is counted), else how long until it may.

        `per_minute` may come at once; after that they come back evenly. `now`: seconds of a clock
        that all processes share; default time.monotonic().
        """
        now = time.monotonic() if now is None else now
        digest = hashlib.blake2b(caller.encode(), digest_size=8).digest()
        offset = int.from_bytes(digest, "big") % PLACES * 8
        interval = WINDOW_SECONDS / per_minute * cost
        with self._alone_at(offset):
            (used_up,) = struct.unpack_from("d", self._memory, offset)
            used_up = max(used_up, now) + interval
            wait = used_up - now - WINDOW_SECONDS
            if wait > 1e-6:
                return float(wait)
            struct.pack_into("d", self._memory, offset, used_up)
        return 0.0

    @contextmanager
    def _alone_at(self, offset: int) -> Iterator[None]:
        """No other thread or process is at the place meanwhile.

        The kernel takes a file's lock back from a process that is killed, unlike a semaphore.
        """
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 8, offset)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 8, offset)


class RedisLimits:
    """The same count in Redis, for all machines that name the same server.

    Where Redis is away each machine counts by itself until it is back, so that an outage of it neither
    refuses requests nor lets all of them through.
    """

    def __init__(self, url: str) -> None:
        """Made before the workers are forked; nothing connects here. Raises MissingExtraError."""
        try:
            import redis
        except ImportError:
            raise MissingExtraError("redis", "for auth.limits = redis://…") from None
        self._error = redis.RedisError
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS
        )
        self._count = self._client.register_script(GCRA)
        self._alone = RateLimits()
        self._away_until = 0.0

    def seconds_to_wait(self, caller: str, per_minute: int, cost: int = 1) -> float:
        """As RateLimits has it."""
        if time.monotonic() >= self._away_until:
            name = hashlib.blake2b(caller.encode(), digest_size=16).hexdigest()
            values = [WINDOW_SECONDS / per_minute * cost, WINDOW_SECONDS]
            try:
                return float(self._count(keys=[f"recsys:limit:{name}"], args=values))
            except self._error as error:
                self._away_until = time.monotonic() + REDIS_PAUSE_SECONDS
                log.warning("rate limits are counted by machine", reason=type(error).__name__)
        return self._alone.seconds_to_wait(caller, per_minute, cost)


def open_limits(where: str) -> Limits:
    """What `auth.limits` says. Raises MissingExtraError."""
    return RateLimits() if where == "memory" else RedisLimits(where)
