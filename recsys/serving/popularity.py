"""What everyone did lately: popular items, and what followed items that are newer than the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from recsys.errors import StorageUnavailableError
from recsys.events.times import DAY_US, HOUR_US, MINUTE_US
from recsys.serving.byte_cache import ByteCache, bytes_of
from recsys.serving.long_work import long_work
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import item_rows
from recsys.storage.entities.event_rows import ItemCounts, PopularityQuery
from recsys.storage.events_source import EventsSource

KEEP_SECONDS = 60.0
RETRY_SECONDS = 5.0  # for which nothing is counted after a count has failed
LONGEST = 2_000  # items counted for one window
COUNT_BYTES = 32 * 2**20  # of counts that are kept
Followers = Mapping[str, Sequence[tuple[str, float]]]  # item id -> (next item id, share 0..1)


@dataclass
class _CachedCount:
    """The last count of one window of time."""

    counting: threading.Lock = field(default_factory=threading.Lock)
    last: tuple[float, ItemCounts] | None = None  # when, and what


def _size_of(window: _CachedCount) -> int:
    return 500 + (bytes_of(window.last[1]) if window.last is not None else 0)


class Popularity:
    """Popular items by window and category, counted at most once a minute and kept after that.

    One thread counts; the others go by the last count meanwhile, as all do while the database is
    away. Only item counts are held, no user's state.
    """

    def __init__(self, clock: Callable[[], float], source: EventsSource) -> None:
        self._clock = clock
        self._source = source
        self._lock = threading.Lock()
        self.windows: ByteCache[object, _CachedCount] = ByteCache(COUNT_BYTES, _size_of)
        self._failure: str | None = None  # of the last count
        self._retry_at = 0.0

    def counts(
        self, database: Database, now_us: int, days: int, category: str | None
    ) -> ItemCounts:
        """(item id, users and sessions) in the last `days`, most first; up to LONGEST.

        Where there is a catalogue, what is not in it counts by what users did alone: a page's sessions
        may post any text.

        Raises StorageUnavailableError where there is no last count and none can be had.
        """

        return self._since(database, (days, category), now_us - days * DAY_US, category)

    def trending(self, database: Database, now_us: int, hours: int) -> ItemCounts:
        """As `counts`, in the last `hours`."""
        return self._since(database, ("hours", hours), now_us - hours * HOUR_US, None)

    def _since(
        self, database: Database, name: object, since_us: int, category: str | None
    ) -> ItemCounts:
        def count() -> ItemCounts:
            query = PopularityQuery(max(0, since_us), None, category, LONGEST, known_only=True)
            with database.connect() as connection:
                return self._source.popular_items(connection, query)

        return self._latest(name, self._clock(), KEEP_SECONDS, count)

    def recent(self, database: Database, now_us: int, days: int) -> ItemCounts:
        """(item id, users and sessions) of the `days` before the last whole minute, up to LONGEST.

        Every worker counts the same events, so that a ranking built on them is the same everywhere.
        The list is the same object until it is counted anew. Raises as `counts`.
        """
        until_us = now_us - now_us % MINUTE_US

        def count() -> ItemCounts:
            since_us = max(0, until_us - days * DAY_US)
            query = PopularityQuery(since_us, until_us, limit=LONGEST)
            with database.connect() as connection:
                return self._source.popular_items(connection, query)

        return self._latest(days, until_us, MINUTE_US, count)

    def _latest(
        self, name: object, now: float, lasts: float, count: Callable[[], ItemCounts]
    ) -> ItemCounts:
        """The last count if it is younger than `lasts`, else a new one by `count`, else the last."""
        with self._lock:
            window = self.windows.get(name)
            if window is None:
                window = _CachedCount()
                self.windows.put(name, window)
        last = window.last
        if last is not None and now - last[0] < lasts:
            return last[1]
        if last is None or not window.counting.locked():
            long_work()
        # The first count is waited for, unless it is likely to fail.
        waits = last is None and self._failure is None
        if window.counting.acquire(blocking=waits):
            try:
                if window.last is last and self._clock() >= self._retry_at:
                    window.last, self._failure = (now, count()), None
                    self.windows.put(name, window)  # with its size as it is now
            except StorageUnavailableError as error:
                self._failure, self._retry_at = str(error), self._clock() + RETRY_SECONDS
            finally:
                window.counting.release()
        if window.last is None:
            raise StorageUnavailableError(self._failure or "popular items are being counted")
        return window.last[1]


class FollowerTable:
    """What lately followed which item, among items newer than the champion; kept until counted anew."""

    def __init__(self) -> None:
        self._held: tuple[int, Followers] = (0, {})  # 0: none were ever counted

    @property
    def latest(self) -> Followers:
        """The followers read last, for when the database is away."""
        return self._held[1]

    def at(self, connection: Connection, stamp: int) -> Followers:
        """The followers counted at `stamp`, which was read from the database before this call."""
        if self._held[0] != stamp:
            long_work()
            self._held = (stamp, item_rows.all_followers(connection))
        return self._held[1]
