"""Rank one history by a version, with what is popular lately; encoded histories are cached.

A history's state is cached under a digest of the encoded history, which is made of events that are
read from the database at each request, so it cannot be stale.

Legend: V vocabulary rows.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from recsys.errors import StorageUnavailableError
from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.bundle import Bundle
from recsys.models.catalogue_scan import HistoryState
from recsys.models.live_view import LiveMoment
from recsys.models.lstm.inference import NetworkState
from recsys.models.ranking import best, history_state, served_blend
from recsys.serving.answers import Candidate
from recsys.serving.byte_cache import ByteCache
from recsys.serving.filters import Filters
from recsys.serving.popularity import Popularity
from recsys.storage.engine.database import Database

RECENT_DAYS = 7  # as `recsys.models.popular.PopularRecent` counts
GROWTH = 8  # how many times more items are ranked where filters left too few
STATE_BYTES = 32 * 2**20  # of history states that are cached
STATE_OBJECTS = 400  # bytes of a network's state beside what its three arrays hold


class _RecentRows(NamedTuple):
    """Counts of the last days by a version's rows."""

    counts: object  # as they were read
    size: int  # rows there were
    rows: np.ndarray | None  # (V,); None where nothing is recent


class VersionRanking:
    """The ranking of a process: one history after the other; safe to share between threads."""

    def __init__(self, database: Database, popularity: Popularity) -> None:
        self._database = database
        self._popularity = popularity
        self._recent_rows: dict[str, _RecentRows] = {}
        self.states: ByteCache[bytes, HistoryState] = ByteCache(STATE_BYTES)
        self.network_states: ByteCache[bytes, NetworkState] = ByteCache(STATE_BYTES, _state_bytes)
        # Rankings of several threads at once would hand the interpreter's lock to and fro at each
        # product; one after the other they are quicker, each and together. Nobody waits for the
        # database meanwhile.
        self._turn = threading.Lock()

    def ranked(
        self,
        bundle: Bundle,
        history: Histories,
        k: int,
        filters: Filters,
        now_us: int,
    ) -> Iterator[Candidate]:
        """The candidates, best first and lazily: more is ranked only where more is asked for.

        history: the past as the bundle reads it, one history (B = 1).
        """
        recent, mask = self.recent(bundle, now_us), filters.mask(bundle)
        factors = filters.row_factors(bundle)
        state = self._state(bundle, history)
        given, wanted = 0, k
        while True:
            with self._turn:
                ranked = best(bundle, history, wanted, recent, mask, factors, state)
            item_id = bundle.vocabulary.item_id
            for row, score, source in ranked[given:] if given else ranked:
                yield Candidate(item_id(row), score, source)
            if len(ranked) < wanted:
                return
            given, wanted = len(ranked), wanted * GROWTH

    def recent(self, bundle: Bundle, now_us: int) -> np.ndarray | None:
        """(V,): log(1 + users and sessions of the last days), as they stand now; None for the bundle's own.

        Those are taken where the ranking does not ask, nothing is recent, or the database is away.
        """
        blend = served_blend(bundle)
        if blend is None or blend.recency == 0:
            return None
        try:
            counts = self._popularity.recent(self._database, now_us, RECENT_DAYS)
        except StorageUnavailableError:
            return None
        # What one request alone knows has no count, so that the rows are every request's.
        vocabulary = bundle.vocabulary if bundle.live is None else bundle.live.vocabulary.shared
        known = self._recent_rows.get(bundle.version)
        if known is None or known.counts is not counts or known.size != len(vocabulary):
            rows = np.zeros(len(vocabulary), np.float32)
            index = vocabulary.encode(item_id for item_id, _ in counts)
            rows[index] = np.log1p([events for _, events in counts]).astype(np.float32)
            rows[:FIRST_ITEM] = 0
            known = _RecentRows(counts, len(rows), rows if rows.any() else None)
            # Replaced whole, so that another thread reads the old ones or the new ones.
            others = {v: one for v, one in self._recent_rows.items() if one.counts is counts}
            self._recent_rows = {**others, bundle.version: known}
        return known.rows

    def _state(self, bundle: Bundle, history: Histories) -> HistoryState | None:
        """The state after the history, cached under a digest of it and of the version."""
        key = _digest(bundle.version, history)
        if bundle.live is not None:
            return self._live_state(bundle, bundle.live, history, key)
        found = self.states.get(key)
        if found is not None:
            return found
        with self._turn:
            made = history_state(bundle, history)
        if made is not None:
            self.states.put(key, made)
        return made

    def _live_state(
        self, bundle: Bundle, live: LiveMoment, history: Histories, key: bytes
    ) -> HistoryState | None:
        """The state where votes change with every event: of it the network's part alone is cached, and
        not where an item is newer than the network, since its vector moves too.
        """
        with self._turn:
            found = self.network_states.get(key)
            made = history_state(bundle, history, found)
        known = history[0].max(initial=0) < len(live.vocabulary.base)
        if made is not None and found is None and known:
            self.network_states.put(key, made.network)
        return made


def _state_bytes(state: NetworkState) -> int:
    """As `byte_cache.bytes_of` counts, in a tenth of the time."""
    return state.vector.nbytes + state.pointed.nbytes + state.shares.nbytes + STATE_OBJECTS


def _digest(version: str, history: Histories) -> bytes:
    """A digest of one history (B = 1): of fixed size, however long the history is."""
    at = slice(int(history.starts[0]), int(history.ends[0]))
    digest = hashlib.blake2b(version.encode(), digest_size=16)
    for column in (
        history.items,
        history.event_types,
        history.timestamps_us,
        history.session_starts,
    ):
        digest.update(np.ascontiguousarray(column[at]).tobytes())
    return digest.digest()
