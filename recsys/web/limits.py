"""Rate limits that hold over all workers of a machine.

Each caller has one number in memory that the workers share: the moment at which it would have used
up its allowance if it went on evenly (the generic cell rate algorithm). Two callers may fall on one
place of the table; they are then counted together, so a limit can be too strict, never too lax.
"""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing
import struct
import time

PLACES = 65_536
WINDOW_SECONDS = 60.0


class RateLimits:
    """Made before the workers are forked."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, PLACES * 8)
        self._lock = multiprocessing.get_context("fork").Lock()

    def seconds_to_wait(self, caller: str, per_minute: int, now: float | None = None) -> float:
        """0 where the caller may go on (and is counted), else how long until it may.

        `per_minute` may come at once; after that they come back evenly. `now`: seconds of a clock
        that all processes share; default time.monotonic().
        """
        now = time.monotonic() if now is None else now
        digest = hashlib.blake2b(caller.encode(), digest_size=8).digest()
        offset = int.from_bytes(digest, "big") % PLACES * 8
        interval = WINDOW_SECONDS / per_minute
        with self._lock:
            (used_up,) = struct.unpack_from("d", self._memory, offset)
            used_up = max(used_up, now) + interval
            wait = used_up - now - WINDOW_SECONDS
            if wait > 1e-6:
                return float(wait)
            struct.pack_into("d", self._memory, offset, used_up)
        return 0.0
