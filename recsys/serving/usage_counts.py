"""What a worker did, added up in memory and written every few seconds by a thread of its own.

Only sums leave the request's path: how long answers took, by bucket, where recommended items came
from, and why an answer was not the model's alone. Where the database is away they wait, and there
are never more of them than kinds of things to count.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

import structlog

from recsys.errors import RecsysError
from recsys.storage.dashboard import activity_rows
from recsys.storage.dashboard.activity_rows import Key
from recsys.storage.engine.database import Database

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 10.0
SLOT_US = 300 * 1_000_000
MAX_KEYS = 20_000  # counters in memory; beyond it nothing is counted until they are written
# Upper bounds in seconds. Percentiles are read off them, so they lie close together.
LATENCY_BOUNDS = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 60.0),
)
LAG_BOUNDS = (0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0, 3_600.0, 86_400.0, 604_800.0, 1e9)


class Activity:
    """The sums of one process. Its thread starts with the first, so after any fork."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: Counter[tuple[int, Key]] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def count(self, kind: str, name: str, number: int = 1, bucket: float = 0.0) -> None:
        """Add to one sum."""
        now_us = time.time_ns() // 1_000
        key = (now_us - now_us % SLOT_US, (kind, name, bucket))
        with self._lock:
            if len(self._counts) < MAX_KEYS or key in self._counts:
                self._counts[key] += number
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="activity", daemon=True)
                self._thread.start()

    def observe_latency(self, name: str, seconds: float) -> None:
        """How long an answer took."""
        self.count("latency", name, bucket=_bucket(seconds, LATENCY_BOUNDS))

    def observe_lags(self, lags: Iterable[float]) -> None:
        """How long after they happened events arrived, in seconds."""
        for bound, number in Counter(_bucket(lag, LAG_BOUNDS) for lag in lags).items():
            self.count("lag", "", number, bound)

    def flush(self) -> None:
        """Write what there is. Raises StorageUnavailableError; the sums then stay."""
        with self._lock:
            counted, self._counts = self._counts, Counter()
        if not counted:
            return
        try:
            with self._database.begin() as connection:
                activity_rows.add_service_counts(connection, counted)
        except BaseException:
            with self._lock:
                self._counts.update(counted)
            raise

    def close(self) -> None:
        """Write what there is and stop."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        try:
            self.flush()
        except RecsysError as error:
            log.warning("service counts were lost", reason=str(error))

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            try:
                self.flush()
            except RecsysError as error:
                log.debug("service counts wait to be stored", reason=str(error))
            except Exception:
                log.exception("storing service counts failed")


def _bucket(value: float, bounds: tuple[float, ...]) -> float:
    """The least bound that is not below `value`.

    >>> _bucket(0.004, LATENCY_BOUNDS), _bucket(1e6, LATENCY_BOUNDS)
    (0.005, 60.0)
    """
    return bounds[min(bisect_left(bounds, value), len(bounds) - 1)]
