"""What is shown to a cold user, or with no model: popular items, then the newest ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from recsys.errors import StorageUnavailableError
from recsys.events.times import DAY_US, MINUTE_US
from recsys.models.bundle import Bundle
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows
from recsys.storage.event_source import EventSource

KEEP_SECONDS = 60.0
RETRY_SECONDS = 5.0  # for which nothing is counted after a count has failed
LONGEST = 2_000  # items counted for one window
MAX_CACHED = 1_000
Counts = list[tuple[str, int]]  # (item id, events), most first


@dataclass
class _Window:
    """What was last counted in one window, and when."""

    counting: threading.Lock = field(default_factory=threading.Lock)
    last: tuple[float, Counts] | None = None


class Popularity:
    """Popular items by window and category, counted at most once a minute and kept after that.

    One thread counts; the others go by the last count meanwhile, as all do while the database is
    away. Only item counts are held, no user's state.
    """

    def __init__(self, clock: Callable[[], float], days: int, source: EventSource) -> None:
        self._clock = clock
        self._source = source
        self._days = days
        self._lock = threading.Lock()
        self._windows: dict[object, _Window] = {}
        self._failure: str | None = None  # of the last count
        self._retry_at = 0.0

    def counts(self, database: Database, now_us: int, days: int, category: str | None) -> Counts:
        """(item id, events) in the last `days`, most first; up to LONGEST.

        Raises StorageUnavailableError where there is no last count and none can be had.
        """

        def count() -> Counts:
            since_us = max(0, now_us - days * DAY_US)
            with database.connect() as connection:
                return self._source.popular_items(connection, since_us, category, LONGEST)

        return self._latest((days, category), self._clock(), KEEP_SECONDS, count)

    def recent(self, database: Database, now_us: int, days: int) -> Counts:
        """(item id, events) of the `days` before the last whole minute, up to LONGEST.

        Every worker counts the same events, so that a ranking built on them is the same everywhere.
        The list is the same object until it is counted anew. Raises as `counts`.
        """
        until_us = now_us - now_us % MINUTE_US

        def count() -> Counts:
            since_us = max(0, until_us - days * DAY_US)
            with database.connect() as connection:
                return self._source.popular_items(connection, since_us, None, LONGEST, until_us)

        return self._latest(days, until_us, MINUTE_US, count)

    def _latest(
        self, name: object, now: float, lasts: float, count: Callable[[], Counts]
    ) -> Counts:
        """What was counted less than `lasts` ago, or is by `count`; else the last that there is."""
        with self._lock:
            if len(self._windows) >= MAX_CACHED and name not in self._windows:
                self._windows.clear()
            window = self._windows.setdefault(name, _Window())
        last = window.last
        if last is not None and now - last[0] < lasts:
            return last[1]
        # The first count is waited for, unless it is likely to fail.
        waits = last is None and self._failure is None
        if window.counting.acquire(blocking=waits):
            try:
                if window.last is last and self._clock() >= self._retry_at:
                    window.last, self._failure = (now, count()), None
            except StorageUnavailableError as error:
                self._failure, self._retry_at = str(error), self._clock() + RETRY_SECONDS
            finally:
                window.counting.release()
        if window.last is None:
            raise StorageUnavailableError(self._failure or "popular items are being counted")
        return window.last[1]

    def chain(
        self,
        database: Database,
        bundle: Bundle | None,
        now_us: int,
        categories: Collection[str],
        count: int,
    ) -> Iterator[tuple[str, float, str]]:
        """(item id, score, source): popular lately, popular in the model's data, newest."""
        for category in sorted(categories) or [None]:  # type: ignore[list-item]
            for item_id, events in self._recent(database, now_us, category):
                yield item_id, float(events), "popular"
        if bundle is not None:
            ranker = bundle.rankers["popular"]
            items, votes = ranker.votes(bundle.vocabulary.encode([]))
            for place in (-votes).argsort(kind="stable"):
                yield bundle.vocabulary.item_id(int(items[place])), float(votes[place]), "popular"
        try:
            with database.connect() as connection:
                newest = item_rows.latest_items(connection, min(count, LONGEST))
        except StorageUnavailableError:
            newest = []
        for item_id in newest:
            yield item_id, 0.0, "latest"

    def _recent(self, database: Database, now_us: int, category: str | None) -> Counts:
        try:
            return self.counts(database, now_us, self._days, category)
        except StorageUnavailableError:
            return []
