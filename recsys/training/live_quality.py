"""Live quality: what would have been answered just before each click, judged hour by hour.

A sample of a finished hour's positions is ranked as it would have been served then: by the champion of
that moment, with the live log as it stood twice `serving.live_seconds` before, the visitor's own events
at once, and what was popular in the ten minutes before. Beside it the version that stands still, and
what is popular alone. The target is what the visitor had next.

Near, not equal: events count from their own times, whenever they arrived; merges and erasures are as they
are now; the control arm, fallbacks and filters of requests are left out, and so are positions of a
version whose files are gone. The live log is read as serving processes read it, so own and external
tables give the same.

Cost: the events since the version's data are read once an hour (`serving.live_events` at most, some
10 us each), and POSITIONS ranked three times, some 3 ms each, for SECONDS at most.

Legend: P positions.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recsys.config import Settings
from recsys.errors import ModelFileError
from recsys.events.frame import EventFrameBuilder
from recsys.events.identity import Owner
from recsys.events.time_split import Positions
from recsys.events.times import HOUR_US
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.bundle import Bundle, compacted
from recsys.models.live_log import BEGINS_US_BEFORE
from recsys.progress import Say, quiet
from recsys.registry import read_version
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows, version_rows
from recsys.storage.entities.event_rows import ItemCounts, PopularityQuery
from recsys.storage.entities.live_events import LiveBatch
from recsys.storage.entities.live_quality_rows import LiveQuality
from recsys.storage.entities.model_files import open_model_files
from recsys.storage.events_source import EventsSource
from recsys.training.evaluate import seen_left_out, window_positions
from recsys.training.event_log import EventLog, read_log
from recsys.training.replay import (
    RECENT_US,
    Replay,
    delay_of,
    popular_rank,
    served_rank,
)
from recsys.training.report import recall, reciprocal_rank

POSITIONS = 1_000  # of an hour, about
OWNER_POSITIONS = 20  # of one owner, so that no robot is the figure
OWNER_EVENTS = 1_000  # of one owner that are read, at most, beyond the version's history
SECONDS = 60.0  # that ranking takes at most; what is left is left out
POPULAR_ITEMS = 2_000  # as `recsys.serving.popularity` counts
K = 20


@dataclass(frozen=True)
class _Served:
    """A version, and the part of the hour in which it answered."""

    bundle: Bundle
    from_us: int
    until_us: int


def rank_hour(
    settings: Settings,
    database: Database,
    source: EventsSource,
    hour_us: int,
    now_us: int,
    say: Say = quiet,
    clock: Callable[[], float] = time.monotonic,
) -> LiveQuality:
    """The sums over a sample of the positions in the hour that begins at `hour_us`.

    Raises StorageUnavailableError, SourceUnavailableError, and ConfigError where an external table
    cannot be followed or served from.
    """
    end_us, found = hour_us + HOUR_US, LiveQuality(hour_us)
    served = _served_between(settings, database, hour_us, end_us, say)
    if not served:
        return found
    since_us = min(one.bundle.facts.data_end_us for one in served) - BEGINS_US_BEFORE
    events = _Events(settings, database, hour_us)
    with closing(source.follow(since_us, settings.serving.live_events)) as follower:
        more = True
        while more:
            batch = follower.read(now_us)
            events.add(batch)
            more = batch.more
    drawn = _drawn(events.in_hour, np.random.default_rng(hour_us // HOUR_US))
    if not drawn:
        return found
    events.add_older(source, drawn, max(one.bundle.max_length for one in served))
    log = read_log(database, events.builder.build(), settings)
    recent, follows = _counter(database, source), settings.serving.live_seconds > 0
    ranks: list[tuple[int, int, int]] = []  # as LiveQuality's systems
    unknown, until = 0, clock() + SECONDS
    for one in served:
        since_us = one.bundle.facts.data_end_us + 1
        seen = seen_left_out(one.bundle, settings)
        replay = Replay(log, one.bundle, since_us, delay_of(settings), recent, seen)
        positions = _positions(log, one, drawn)
        moments = zip(replay.moments(positions), replay.moments(positions, live=False), strict=True)
        for live, still in moments:
            if clock() > until:
                say(f"live quality: {len(ranks):,} positions in {SECONDS:.0f} s, others left out")
                break
            still_rank = served_rank(still)
            served_now = served_rank(live) if follows else still_rank
            ranks.append((served_now, still_rank, popular_rank(live)))
            unknown += int(positions.targets[live.number] < FIRST_ITEM)
    return _summed(hour_us, ranks, unknown)


def _served_between(
    settings: Settings, database: Database, since_us: int, until_us: int, say: Say
) -> list[_Served]:
    """The champions in [since_us, until_us), less the time whose events they have learned."""
    with database.connect() as connection:
        spans = [
            (version_rows.get_version(connection, version), start_us, end_us)
            for version, start_us, end_us in version_rows.champions_between(
                connection, since_us, until_us
            )
        ]
    root, files = settings.registry.path, open_model_files(settings, database)
    bundles: dict[str, Bundle] = {}
    found = []
    for row, start_us, end_us in spans:
        if row.version not in bundles:
            try:
                bundle = read_version(root, row.version, row.manifest_sha256, files)
            except ModelFileError as error:
                say(f"live quality: {row.version} is left out: {error}")
                continue
            bundles[row.version] = compacted(bundle, settings.serving.item_matrix)
        bundle = bundles[row.version]
        found.append(_Served(bundle, max(start_us, bundle.facts.data_end_us + 1), end_us))
    return found


class _Events:
    """The events that a version's data lack, up to the end of an hour, and older ones of some owners."""

    def __init__(self, settings: Settings, database: Database, hour_us: int) -> None:
        self._database, self._hour_us, self._end_us = database, hour_us, hour_us + HOUR_US
        inputs = settings.sequences.input_event_types
        self._targets = frozenset(settings.sequences.target_event_types)
        self._types = frozenset({*inputs, *self._targets} if inputs else ())  # empty: all
        self._first_us = hour_us  # of what was read
        self._count = 0
        self._outside: dict[str, bool] = {}  # item id -> whether the catalogue lacks it
        self.builder = EventFrameBuilder()
        self.in_hour: Counter[str] = Counter()  # owner -> events of the hour that may be targets

    def add(self, batch: LiveBatch) -> None:
        """Take in what came next of the log, by the rules of `recsys.serving.live_state`."""
        batch = batch.chosen(batch.times_us < self._end_us)
        batch = batch.chosen(self._trusted(batch))
        if len(batch) == 0:
            return
        self._first_us = min(self._first_us, int(batch.times_us.min()))
        self._append(
            batch.owners, batch.item_ids, batch.event_types, batch.times_us, batch.session_ids
        )
        for place in np.flatnonzero(batch.times_us >= self._hour_us).tolist():
            if not self._targets or batch.event_types[place] in self._targets:
                self.in_hour[batch.owners[place]] += 1

    def add_older(self, source: EventsSource, owners: Collection[str], length: int) -> None:
        """Add what each of `owners` did before the first event read: `length` events at most."""
        types = self._types or None
        with self._database.connect() as connection:
            for key in owners:
                limit = length + min(self.in_hour[key], OWNER_EVENTS)
                older = [
                    event
                    for event in source.history(connection, Owner.of(key), limit, types).events
                    if event.timestamp_us < self._first_us
                    and (key.startswith("u:") or event.user_id is None)
                ]
                if older:
                    items, kinds, times, sessions, *_ = zip(*older, strict=True)
                    self._append([key] * len(older), items, kinds, times, sessions)

    def _append(
        self,
        owners: Sequence[str],
        item_ids: Sequence[str],
        event_types: Sequence[str],
        times_us: Sequence[int] | np.ndarray,
        session_ids: Sequence[str | None],
    ) -> None:
        users = [key[2:] if key.startswith("u:") else None for key in owners]
        positions = np.arange(self._count, self._count + len(owners))
        self._count += len(owners)
        columns = {
            "user_id": pa.array(users, pa.string()),
            "session_id": pa.array(session_ids, pa.string()),
            "item_id": pa.array(item_ids, pa.string()),
            "event_type": pa.array(event_types, pa.string()),
            "timestamp_us": pa.array(times_us, pa.int64()),
            "position": pa.array(positions, pa.int64()),
        }
        self.builder.append(pa.record_batch(columns))

    def _trusted(self, batch: LiveBatch) -> np.ndarray:
        """Events (n,) of users, and those of sessions whose item the catalogue does not lack."""
        of_sessions = np.flatnonzero(~batch.of_users).tolist()
        names = {batch.item_ids[place] for place in of_sessions} - self._outside.keys()
        if names:
            with self._database.connect() as connection:
                lacking = item_rows.outside(connection, sorted(names))
            self._outside.update((name, name in lacking) for name in names)
        kept = np.ones(len(batch), np.bool_)
        kept[[place for place in of_sessions if self._outside[batch.item_ids[place]]]] = False
        return kept


def _drawn(in_hour: Counter[str], rng: np.random.Generator) -> list[str]:
    """Owners at random, of whose events of the hour about POSITIONS are ranked."""
    owners = sorted(in_hour)
    counts = np.array([min(in_hour[key], OWNER_POSITIONS) for key in owners], np.int64)
    order = rng.permutation(len(owners))
    enough = int(np.searchsorted(np.cumsum(counts[order]), POSITIONS)) + 1
    return [owners[at] for at in order[:enough]]


def _positions(log: EventLog, served: _Served, drawn: Collection[str]) -> Positions:
    """The first OWNER_POSITIONS of each owner of `drawn` while the version answered."""
    positions = window_positions(log, served.bundle, served.from_us, served.until_us)
    chosen, owners = set(drawn), positions.owners  # which ascend
    wanted = np.array([key in chosen for key in log.sequences.keys], np.bool_)
    number = np.arange(len(positions)) - np.searchsorted(owners, owners)
    return positions.where(wanted[owners] & (number < OWNER_POSITIONS))


def _counter(database: Database, source: EventsSource) -> Callable[[int], ItemCounts]:
    """What is popular lately as of a time, as serving processes count it."""

    def count(until_us: int) -> ItemCounts:
        query = PopularityQuery(max(0, until_us - RECENT_US), until_us, limit=POPULAR_ITEMS)
        with database.connect() as connection:
            return source.popular_items(connection, query)

    return count


def _summed(hour_us: int, ranks: Sequence[tuple[int, int, int]], unknown: int) -> LiveQuality:
    sums: list[float] = []
    for of_system in np.array(ranks, np.int64).reshape(-1, 3).T:
        sums += [int(recall(of_system, K).sum()), float(reciprocal_rank(of_system, K).sum())]
    return LiveQuality(hour_us, len(ranks), unknown, *sums)  # type: ignore[arg-type]
