"""What is shown to a cold user, or with no model: popular items, then the newest ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator

from recsys.errors import StorageUnavailableError
from recsys.registry import Bundle
from recsys.storage import item_rows
from recsys.storage.database import Connection, Database
from recsys.storage.event_source import EventSource

DAY_US = 86_400 * 1_000_000
MINUTE_US = 60 * 1_000_000
KEEP_SECONDS = 60.0
LONGEST = 2_000  # items counted for one window
MAX_CACHED = 1_000


class Popularity:
    """Popular items by window and category, counted at most once a minute and kept after that.

    Only item counts are held, no user's state; while the database is away the last count answers.
    """

    def __init__(self, clock: Callable[[], float], days: int, source: EventSource) -> None:
        self._clock = clock
        self._source = source
        self._days = days
        self._lock = threading.Lock()
        self._counts: dict[tuple[int, str | None], tuple[float, list[tuple[str, int]]]] = {}
        self._recent_counts: tuple[int, list[tuple[str, int]]] | None = None

    def counts(
        self, connection: Connection, now_us: int, days: int, category: str | None
    ) -> list[tuple[str, int]]:
        """(item id, events) in the last `days`, most first; up to LONGEST."""
        key = (days, category)
        with self._lock:
            known = self._counts.get(key)
        if known is not None and self._clock() - known[0] < KEEP_SECONDS:
            return known[1]
        since_us = max(0, now_us - days * DAY_US)
        found = self._source.popular_items(connection, since_us, category, LONGEST)
        with self._lock:
            if len(self._counts) >= MAX_CACHED:
                self._counts.clear()
            self._counts[key] = (self._clock(), found)
        return found

    def recent(self, database: Database, now_us: int, days: int) -> list[tuple[str, int]]:
        """(item id, events) of the `days` before the last whole minute, up to LONGEST.

        Every worker counts the same events, so that a ranking built on them is the same everywhere.
        The list is the same object until it is counted anew.
        """
        until_us = now_us - now_us % MINUTE_US
        with self._lock:
            known = self._recent_counts
        if known is not None and known[0] == until_us:
            return known[1]
        since_us = max(0, until_us - days * DAY_US)
        with database.connect() as connection:
            found = self._source.popular_items(connection, since_us, None, LONGEST, until_us)
        with self._lock:
            self._recent_counts = (until_us, found)
        return found

    def forget(self) -> None:
        """Count anew at the next request."""
        with self._lock:
            self._counts.clear()
            self._recent_counts = None

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

    def _recent(
        self, database: Database, now_us: int, category: str | None
    ) -> list[tuple[str, int]]:
        try:
            with database.connect() as connection:
                return self.counts(connection, now_us, self._days, category)
        except StorageUnavailableError:
            with self._lock:
                known = self._counts.get((self._days, category))
            return known[1] if known else []
