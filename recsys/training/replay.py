"""Rank positions in the order of time, each as a request at that moment would have been answered.

What the asker did before the moment is known at once. What others did is known as of `delay` before
it, by the live log, which begins a day before the version's data end. So every position counts, whether its
target was known to the training or is a day old.

Legend: P positions, V vocabulary rows, N new items.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.config import Settings
from recsys.events.array_types import Float32Array, Int32Array, Int64Array
from recsys.events.sequences import Histories, Sequences
from recsys.events.time_split import Positions
from recsys.events.times import DAY_US, MINUTE_US
from recsys.events.vocabulary import FIRST_ITEM, UNKNOWN
from recsys.models.bundle import Bundle
from recsys.models.catalogue_scan import Mask
from recsys.models.live_log import BEGINS_US_BEFORE, LiveLog
from recsys.models.live_view import LiveView
from recsys.models.live_vocabulary import LiveVocabulary
from recsys.models.ranking import best, votes_of
from recsys.training.blend_search import MISSED
from recsys.training.event_log import EventLog
from recsys.training.report import SeenTypes, barred_codes

K = 20
SERVED = "served"
RECENT_US = 7 * DAY_US  # as `recsys.models.popular.PopularRecent` counts
RECENT_EVERY_US = 10 * MINUTE_US  # how often recent counts are made anew
LIVE_EVENTS = 1_000_000  # as `serving.live_events`

NOTHING_SEEN: SeenTypes = frozenset()
NO_ITEMS: Int32Array = np.empty(0, np.int32)

# A time in us -> (item id, its users and sessions in the RECENT_US before).
CountRecent = Callable[[int], Sequence[tuple[str, int]]]


@dataclass(frozen=True)
class Moment:
    """One position at its moment: the bundle with the live log, and the history as it reads it."""

    number: int  # of the position
    bundle: Bundle
    history: Histories  # B = 1
    wanted: Int32Array  # rows any of which is a hit; UNKNOWN where nobody can know the item yet
    recent: Float32Array | None  # (V + N,) log(1 + owners of the last days); None: the bundle's
    left_out: Int32Array  # rows that were seen, where answers leave such out

    @property
    def can_hit(self) -> bool:
        """Whether the target can be ranked at all."""
        return bool((self.wanted != UNKNOWN).any())


def delay_of(settings: Settings) -> int:
    """Microseconds after which an event of another visitor surely counts: two turns of who follows."""
    return round(2 * settings.serving.live_seconds * 1e6)


class Replay:
    """The events of a log in the order of time, and positions among them."""

    def __init__(
        self,
        log: EventLog,
        bundle: Bundle,
        since_us: int,
        delay_us: int,
        recent: CountRecent | None = None,
        seen: SeenTypes = NOTHING_SEEN,
    ) -> None:
        """`bundle` was made from events before `since_us`; those and later ones reach the live log
        `delay_us` after they happened, from BEGINS_US_BEFORE on. `recent` counts what is popular lately where the log does not
        reach back RECENT_US. `seen`: the event types whose items answers leave out.
        """
        self._barred = None
        if seen is None or seen:
            self._barred = barred_codes(seen, bundle.event_types)
        self._log, self._bundle = log, bundle
        self._delay_us = max(1, delay_us)
        sequences = log.sequences
        self._owners = sequences.owners()
        self._sessions = np.cumsum(sequences.session_starts).astype(np.uint64)
        self._order = _by_time(sequences)
        self._times = sequences.timestamps_us[self._order]
        self._next = int(np.searchsorted(self._times, since_us - BEGINS_US_BEFORE))
        self._rows = bundle.vocabulary.encode(log.item_ids)  # (frame codes,)
        self.seconds = 0.0  # spent on bringing the live log up to date
        self.live = LiveLog(bundle.session_gap_seconds, LIVE_EVENTS)
        self.view = LiveView.of(bundle, since_us - 1)
        self.view.describe(self.view.priors(log.contents))
        self.view.catch_up(self.live)
        self._recent: _RecentCounts | None = None
        self._count_recent = recent
        self._codes = {name: code for code, name in enumerate(log.item_ids)}

    def moments(self, positions: Positions, live: bool = True) -> Iterator[Moment]:
        """The positions in the order of their targets' times; without `live` nothing is counted on.

        `positions` are those of the log in the bundle's rows.
        """
        ends = positions.histories.ends
        times = self._log.sequences.timestamps_us[ends]
        for number in np.argsort(times, kind="stable"):
            now_us = int(times[number])
            if live:
                self._follow(now_us - self._delay_us)
            yield self._moment(positions, int(number), now_us, live)

    def _follow(self, until_us: int) -> None:
        """Give the live log what happened until then."""
        last = int(np.searchsorted(self._times, until_us, side="right"))
        if last <= self._next:
            return
        at = self._order[self._next : last]
        self._next = last
        started = time.perf_counter()
        sequences, names = self._log.sequences, self._log.item_ids
        self.live = self.live.append(
            self._owners[at].tolist(),
            [names[code] for code in sequences.items[at]],
            sequences.timestamps_us[at],
            self._sessions[at],
        )
        self.view.catch_up(self.live)
        self.seconds += time.perf_counter() - started

    def _moment(self, positions: Positions, number: int, now_us: int, live: bool) -> Moment:
        bundle, log = self._bundle, self._log
        whole = positions.histories
        first, last = int(whole.starts[number]), int(whole.ends[number])
        first = max(first, last - bundle.max_length)
        at = slice(first, last)
        codes = log.sequences.items[at]
        rows = self._rows[codes]
        wanted_codes = self._wanted_codes(positions, number)
        wanted = self._rows[wanted_codes]
        history = Histories(
            items=rows,
            event_types=whole.event_types[at],
            timestamps_us=whole.timestamps_us[at],
            session_starts=whole.session_starts[at],
            starts=np.zeros(1, np.int64),
            ends=np.array([last - first]),
        )
        left_out = self._left_out(whole, number)
        rows_out = self._rows[left_out]
        if not live:
            return Moment(number, bundle, history, wanted, None, rows_out)
        owner = self.live.owner(int(positions.owners[number]))
        own = (log.item_ids[code] for code in codes[rows == UNKNOWN])
        moment = self.view.moment(own, owner, now_us)
        history = replace(history, items=_completed(rows, codes, moment.vocabulary, log.item_ids))
        wanted = _completed(wanted, wanted_codes, moment.vocabulary, log.item_ids)
        rows_out = _completed(rows_out, left_out, moment.vocabulary, log.item_ids)
        recent = self._recent_rows(now_us)
        return Moment(number, bundle.with_live(moment), history, wanted, recent, rows_out)

    def _left_out(self, histories: Histories, number: int) -> Int32Array:
        """Frame codes of the items of a history that answers leave out."""
        if self._barred is None:
            return NO_ITEMS
        at = slice(int(histories.starts[number]), int(histories.ends[number]))
        return np.unique(self._log.sequences.items[at][self._barred[histories.event_types[at]]])

    def _wanted_codes(self, positions: Positions, number: int) -> Int32Array:
        """Frame codes of the items any of which is a hit."""
        sequences, at = self._log.sequences, int(positions.histories.ends[number])
        if positions.baskets is None:
            return sequences.items[at : at + 1]
        owner = int(positions.owners[number])
        end = int(sequences.offsets[owner + 1])
        moment = sequences.timestamps_us[at:end] == sequences.timestamps_us[at]
        return np.unique(sequences.items[at:end][moment])

    def _recent_rows(self, now_us: int) -> Float32Array:
        """log(1 + owners) of each row's events in the days before, as of a moment ago."""
        until_us = (now_us - self._delay_us) // RECENT_EVERY_US * RECENT_EVERY_US
        new, held = self.view.new_ids, self._recent
        if held is None or held.until_us != until_us:
            held = self._counted(until_us)
        if len(new) > held.new:
            more = [np.log1p(held.owners_of(name)) for name in new[held.new :]]
            rows = np.concatenate((held.rows, np.array(more, np.float32)))
            held = replace(held, rows=rows, new=len(new))
        self._recent = held
        return held.rows

    def _counted(self, until_us: int) -> _RecentCounts:
        """What is popular lately as of then."""
        rows = np.zeros(len(self._bundle.vocabulary), np.float32)
        if self._count_recent is None:
            owners = self._owners_in_log(until_us)
            rows[self._rows] = np.log1p(owners)

            def owners_of(item_id: str) -> int:
                code = self._codes.get(item_id)
                return 0 if code is None else int(owners[code])
        else:
            counts = dict(self._count_recent(until_us))
            rows[self._bundle.vocabulary.encode(counts)] = np.log1p(list(counts.values()))

            def owners_of(item_id: str) -> int:
                return counts.get(item_id, 0)

        rows[:FIRST_ITEM] = 0
        return _RecentCounts(until_us, owners_of, rows, 0)

    def _owners_in_log(self, until_us: int) -> Int64Array:
        """Owners of each item in the days before, by frame code."""
        first, last = np.searchsorted(self._times, (until_us - RECENT_US, until_us))
        at = self._order[first:last]
        count = max(1, len(self._log.item_ids))
        pairs = np.sort(self._owners[at] * count + self._log.sequences.items[at].astype(np.int64))
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])] if len(pairs) else pairs
        return np.bincount(pairs % count, minlength=count)


@dataclass(frozen=True)
class _RecentCounts:
    """Owners of each item in the days before a time."""

    until_us: int
    owners_of: Callable[[str], int]  # by item id
    rows: Float32Array  # (V + N,) log(1 + owners)
    new: int  # N


def replayed_ranks(
    replay: Replay, positions: Positions, live: bool = True, rankers: Sequence[str] = ()
) -> dict[str, Int64Array]:
    """The rank (P,) of each position's target as SERVED, and by each of `rankers` alone.

    MISSED beyond the best K; ties count against.
    """
    found = {name: np.full(len(positions), MISSED, np.int64) for name in (SERVED, *rankers)}
    for moment in replay.moments(positions, live):
        if not moment.can_hit:
            continue
        found[SERVED][moment.number] = served_rank(moment)
        votes = votes_of(moment.bundle, moment.history[0], rankers)
        for name, (voted, shares) in votes.items():
            found[name][moment.number] = _voted_rank(moment, voted, shares)
    return found


def served_rank(moment: Moment) -> int:
    """The target's rank in what is served, or MISSED beyond the best K; ties count against."""
    if not moment.can_hit:
        return MISSED
    mask = Mask(excluded=moment.left_out[moment.left_out >= FIRST_ITEM].astype(np.int64))
    ranked = best(moment.bundle, moment.history, 2 * K, moment.recent, mask)
    rows = np.array([row for row, _, _ in ranked], np.int64)
    scores = np.array([score for _, score, _ in ranked], np.float32)
    return _rank(rows, scores, moment.wanted)


def popular_rank(moment: Moment) -> int:
    """The same of what is popular lately."""
    recent = moment.bundle.recent if moment.recent is None else moment.recent
    rows = np.flatnonzero(recent)
    return _voted_rank(moment, rows, recent[rows])


def _voted_rank(moment: Moment, rows: NDArray[np.integer[Any]], votes: Float32Array) -> int:
    """The same of `votes` (n,) for `rows` (n,)."""
    allowed = moment.bundle.repeats.allows(rows, moment.history[0]) & (rows >= FIRST_ITEM)
    allowed &= ~np.isin(rows, moment.left_out)
    return _rank(rows[allowed], votes[allowed], moment.wanted)


def _rank(
    rows: NDArray[np.integer[Any]], scores: Float32Array, wanted: NDArray[np.integer[Any]]
) -> int:
    """The rank of the best of `wanted` among `rows` (n,) by their scores (n,), or MISSED."""
    hits = np.isin(rows, wanted[wanted != UNKNOWN]) & (scores > 0)
    if not hits.any():
        return MISSED
    rank = int((scores >= scores[hits].max()).sum())
    return rank if rank <= K else MISSED


def _by_time(sequences: Sequences) -> Int64Array:
    """Events in the order of time; of one time, in the order of the log."""
    return np.argsort(sequences.timestamps_us, kind="stable").astype(np.int64)


def _completed(
    rows: Int32Array, codes: Int32Array, vocabulary: LiveVocabulary, names: Sequence[str]
) -> Int32Array:
    """`rows` (n,) of frame `codes` (n,), those that the version does not know looked up."""
    unknown = np.flatnonzero(rows == UNKNOWN)
    if len(unknown) == 0:
        return rows
    found = rows.copy()
    for at in unknown:
        found[at] = vocabulary.index(names[codes[at]])
    return found
