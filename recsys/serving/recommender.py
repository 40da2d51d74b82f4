"""History -> candidates -> filters -> top k, with the source of each item.

The chain always answers: the version's ranking, with what lately followed the last item and is newer
than the version sorted in; then transitions of the last known item, then what is popular, then what
is newest. An item takes its place from the first of them that has it.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from recsys.config import Settings
from recsys.data.event_check import Event
from recsys.data.random_ids import RandomIds
from recsys.data.sequences import Histories
from recsys.data.vocabulary import FIRST_ITEM
from recsys.errors import NotFoundError, SourceUnavailableError, StorageUnavailableError
from recsys.registry import Bundle, sweep_parts, sweep_unregistered
from recsys.serving.active_model import ActiveModel, Models
from recsys.serving.answers import Answer, HeldBack, RankedItem, Reason, Request
from recsys.serving.catalogue import EMPTY, Catalogue, Shelf
from recsys.serving.explanation import contributions
from recsys.serving.fallback import LONGEST, Popularity
from recsys.serving.filters import Filters
from recsys.serving.ranking import (
    LSTM,
    Read,
    best,
    encode_history,
    read_history,
    top_k,
)
from recsys.serving.seen import seen_types
from recsys.storage import event_rows, follower_rows, item_rows, version_rows
from recsys.storage.database import Connection, Database
from recsys.storage.event_rows import History, HistoryEvent
from recsys.storage.event_source import EventSource
from recsys.storage.item_rows import StoredItem
from recsys.storage.model_files import open_model_files
from recsys.storage.stamps import Stamps, read_stamps

RECENT_DAYS = 7  # as `recsys.rankers.popular.PopularRecent` counts
REASONS = 3  # past events named for an item
EXTRA_HISTORY = 50  # events read beyond the model's length: some are of types it does not read
GROWTH = 8  # how many times more items are ranked where filters left too few
LOOK_AHEAD = 200  # items whose categories are fetched together
MAX_READINGS = 2_000  # histories kept as the models have read them
MAX_MERGED = 10_000  # users whose merged ids are kept
CHAMPION, CONTROL = "champion", "control"

Followers = Mapping[str, Sequence[tuple[str, float]]]


class Recommender:
    """Answers requests from one database and the active models.

    What it keeps of a user is kept under the ids of the events it was made of, which are read from
    the database at each request, so it cannot be stale.
    """

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back, such as time.monotonic."""
        self.settings = settings
        self.database = database
        serving = settings.serving
        self._files = open_model_files(settings, database)
        self.active = ActiveModel(
            settings.registry.path,
            serving.reload_seconds,
            clock,
            serving.item_matrix,
            control=serving.control_share > 0,
            files=self._files,
        )
        self.source = EventSource(settings, database)
        self.popularity = Popularity(clock, serving.popular_days, self.source)
        self.catalogue = Catalogue()
        self._recent_rows: dict[str, tuple[object, np.ndarray]] = {}
        self._readings: OrderedDict[tuple[object, ...], Read] = OrderedDict()
        self._readings_lock = threading.Lock()
        # Rankings of several threads at once would hand the interpreter's lock to and fro at each
        # product; one after the other they are quicker, each and together. Nobody waits for the
        # database meanwhile.
        self._turn = threading.Lock()
        self._new_id = RandomIds()
        self._followers_held: tuple[int, Followers] = (0, {})  # 0: none were ever counted
        self._merged: tuple[int, dict[str, tuple[str, ...]]] = (-1, {})

    def models(self) -> Models:
        """The models to answer with; those in memory where the database cannot be asked."""
        try:
            return self.active.current(self.deployed)
        except StorageUnavailableError:
            return self.active.models

    def deployed(self) -> list[tuple[str, str]]:
        """Names and manifests of the versions that should serve."""
        with self.database.connect() as connection:
            return version_rows.deployed_names(connection)

    def tidy_cache(self) -> None:
        """Delete from the folder of versions what was fetched into it and is needed no more.

        Nothing where `registry.store` says that the folder is all there is. What is in memory stays
        there, whatever becomes of its files. Raises StorageUnavailableError.
        """
        if self._files is None:
            return
        with self.database.connect() as connection:
            kept = version_rows.kept_names(connection)
        root, now = self.settings.registry.path, datetime.now(UTC)
        sweep_parts(root, now)
        sweep_unregistered(root, kept, (now - timedelta(days=1)).timestamp())

    def bundle(self) -> Bundle | None:
        """The champion."""
        return self.models().champion

    def recommend(self, request: Request, now_us: int, stamps: Stamps | None = None) -> Answer:
        """The best k items for the history as it stands in the database at this moment.

        `stamps`: as read from the database for this very request, where they were. Where the
        database cannot be reached, events in the request and the last known popular items still
        give an answer, marked degraded.
        """
        bundle, arm = self._choose(request)
        degraded: str | None = None
        try:
            with self.database.read() as connection:
                stamps = stamps or read_stamps(connection)
                shelf = self.catalogue.at(connection, stamps.items)
                history, degraded = self._history(connection, request, bundle, stamps)
                filters = self._filters(connection, request, history, shelf)
                followers = self._followers_at(connection, stamps.followers)
            past = history.events
        except StorageUnavailableError:
            degraded = "the database cannot be reached: stored history and filters are left out"
            past = _given(request.events)
            filters = self._bare_filters(request)
            followers = self._followers_held[1]
        if bundle is None and degraded is None:
            degraded = "no model has been promoted yet: popular items are shown"
        new = _newcomers(bundle, past, followers)
        items = self._fill(request, bundle, past, filters, now_us, new)
        found = self._look_up(filters.shelf, [item_id for item_id, _, _ in items])
        reasons = self._reasons(bundle, past, items, now_us) if request.explain else None
        return Answer(
            recommendation_id=self._new_id(),
            user_id=request.user_id,
            session_id=request.session_id,
            model_version=bundle.version if bundle else None,
            generated_at_us=now_us,
            sequence_length=len(past),
            last_event_id=past[-1].event_id if past else None,
            degraded=degraded,
            items=[
                RankedItem(
                    item_id,
                    rank,
                    score,
                    source,
                    found.get(item_id),
                    None if reasons is None else reasons.get(item_id, ()),
                )
                for rank, (item_id, score, source) in enumerate(
                    items, 1 + len(request.shown_before)
                )
            ],
            arm=arm,
            fallback=_fallback(bundle, past, items, degraded),
            scenario=request.scenario,
            page_of=request.page_of,
        )

    def _choose(self, request: Request) -> tuple[Bundle | None, str | None]:
        """The model for whoever asks, and the arm that it is."""
        models = self.models()
        if models.champion is None:
            return None, None
        share = self.settings.serving.control_share
        who = request.user_id or request.session_id
        if models.control is not None and who is not None and in_control(who, share):
            return models.control, CONTROL
        return models.champion, CHAMPION

    def similar(self, item_id: str, k: int, now_us: int) -> list[RankedItem]:
        """Items whose vectors point the same way (cosine).

        For an item newer than the model: what is popular in its category. Raises NotFoundError for
        an item that neither the model nor the catalogue knows.
        """
        bundle = self._bundle_with(item_id)
        if bundle is None:
            return self._of_its_category(item_id, k, now_us)
        if bundle.scorer is None:
            return self.following(item_id, k, now_us)
        index = bundle.vocabulary.index(item_id)
        cosines = bundle.scorer.similar(index)
        cosines[:FIRST_ITEM] = -np.inf
        cosines[index] = -np.inf
        return self._shown(bundle, cosines, k, "lstm")

    def following(self, item_id: str, k: int, now_us: int) -> list[RankedItem]:
        """What most often came right after the item; otherwise as `similar`."""
        bundle = self._bundle_with(item_id)
        if bundle is None:
            return self._of_its_category(item_id, k, now_us)
        row = np.full(len(bundle.vocabulary), -np.inf, np.float32)
        history = np.array([bundle.vocabulary.index(item_id)], np.int32)
        places, votes = bundle.rankers["transitions"].votes(history)
        row[places] = votes
        row[:FIRST_ITEM] = -np.inf
        return self._shown(bundle, row, k, "transitions")

    def popular(self, days: int, category: str | None, k: int, now_us: int) -> list[RankedItem]:
        """The items with most events in the last `days`."""
        with self.database.connect() as connection:
            shelf = self.catalogue.at(connection, read_stamps(connection).items)
        counts = self.popularity.counts(self.database, now_us, days, category)
        shown = [(item_id, count) for item_id, count in counts if item_id not in shelf.hidden][:k]
        found = self._look_up(shelf, [item_id for item_id, _ in shown])
        return [
            RankedItem(item_id, rank, float(count), "popular", found.get(item_id))
            for rank, (item_id, count) in enumerate(shown, 1)
        ]

    def held_back(self, request: Request, now_us: int) -> list[HeldBack]:
        """Which of the best k items, if nothing were filtered, the filters of `request` take out.

        Raises StorageUnavailableError.
        """
        bundle, _ = self._choose(request)
        with self.database.read() as connection:
            stamps = read_stamps(connection)
            shelf = self.catalogue.at(connection, stamps.items)
            history, _ = self._history(connection, request, bundle, stamps)
            filters = self._filters(connection, request, history, shelf)
            followers = self._followers_at(connection, stamps.followers)
        bare = replace(request, max_per_category=None)
        new = _newcomers(bundle, history.events, followers)
        everything = Filters(EMPTY, frozenset(), (), filters.factors)
        ranked = self._fill(bare, bundle, history.events, everything, now_us, new)
        gone = [
            (rank, item_id, source)
            for rank, (item_id, _, source) in enumerate(ranked, 1)
            if not filters.keeps(item_id)
        ]
        found = self._look_up(shelf, [item_id for _, item_id, _ in gone])
        types = seen_types(request.exclude_seen)
        seen = {
            event.item_id: event.event_type
            for event in history.events
            if types is None or event.event_type in types
        }
        return [
            HeldBack(item_id, rank, source, filters.why(item_id, seen), found.get(item_id))
            for rank, item_id, source in gone
        ]

    def _bundle_with(self, item_id: str) -> Bundle | None:
        bundle = self.bundle()
        return None if bundle is None or item_id not in bundle.vocabulary else bundle

    def _of_its_category(self, item_id: str, k: int, now_us: int) -> list[RankedItem]:
        with self.database.connect() as connection:
            item = item_rows.get_items(connection, [item_id]).get(item_id)
        if item is None:
            raise NotFoundError("item that the model or the catalogue knows", item_id)
        category = item.categories[0] if item.categories else None
        popular = self.popular(self.settings.serving.popular_days, category, k + 1, now_us)
        others = [one for one in popular if one.item_id != item_id][:k]
        return [replace(one, rank=rank) for rank, one in enumerate(others, 1)]

    def _history(
        self, connection: Connection, request: Request, bundle: Bundle | None, stamps: Stamps
    ) -> tuple[History, str | None]:
        """The events to go by, and why some may be missing."""
        stored, degraded = History([], True), None
        if request.user_id is not None or request.session_id is not None:
            limit = (bundle.max_length if bundle else 0) + EXTRA_HISTORY
            merged = self._merged_into(connection, request.user_id, stamps.aliases)
            try:
                stored = self.source.history(
                    connection, request.user_id, request.session_id, limit, merged
                )
            except SourceUnavailableError as error:
                degraded = f"{error}: stored history is left out"
        if not request.events:
            return stored, degraded
        known = {event.event_id for event in stored.events}
        given = [event for event in _given(request.events) if event.event_id not in known]
        return replace(stored, events=stored.events + given), degraded

    def _merged_into(
        self, connection: Connection, user_id: str | None, stamp: int
    ) -> tuple[str, ...]:
        """What was merged into a user, kept until any merge happens."""
        if user_id is None:
            return ()
        if self._merged[0] != stamp or len(self._merged[1]) >= MAX_MERGED:
            self._merged = (stamp, {})
        kept = self._merged[1]
        found = kept.get(user_id)
        if found is None:
            found = kept[user_id] = event_rows.merged_into(connection, user_id)
        return found

    def _followers_at(self, connection: Connection, stamp: int) -> Followers:
        """What follows items that are newer than the champion, kept until it is counted anew."""
        if self._followers_held[0] != stamp:
            self._followers_held = (stamp, follower_rows.all_followers(connection))
        return self._followers_held[1]

    def _filters(
        self, connection: Connection, request: Request, history: History, shelf: Shelf
    ) -> Filters:
        excluded = set(request.exclude_items).union(request.shown_before)
        types = seen_types(request.exclude_seen)
        if types is None or types:
            excluded.update(
                event.item_id
                for event in history.events
                if types is None or event.event_type in types
            )
            if not history.complete:
                with suppress(SourceUnavailableError):  # what was read a moment ago is left out
                    excluded |= self.source.seen_items(
                        connection, request.user_id, request.session_id, types
                    )
        allowed = [frozenset(request.candidates)] if request.candidates else []
        if request.categories:
            allowed.append(shelf.within(connection, request.categories))
        allowed += [shelf.meeting(connection, condition) for condition in request.conditions]
        factors = tuple(
            (shelf.meeting(connection, boost.condition), boost.factor) for boost in request.boosts
        )
        return Filters(shelf, frozenset(excluded), tuple(allowed), factors)

    def _bare_filters(self, request: Request) -> Filters:
        """What can be filtered without the database."""
        excluded = frozenset(request.exclude_items).union(request.shown_before)
        allowed = (frozenset(request.candidates),) if request.candidates else ()
        return Filters(self.catalogue.latest, excluded, allowed)

    def _fill(
        self,
        request: Request,
        bundle: Bundle | None,
        past: list[HistoryEvent],
        filters: Filters,
        now_us: int,
        new: list[tuple[str, float, str]],
    ) -> list[tuple[str, float, str]]:
        """(item id, score, source) of the answer, each item once."""
        chosen: dict[str, tuple[str, float, str]] = {}
        room: dict[str, int] = {}
        chain = self._chain(request, bundle, past, filters, now_us, new)
        if request.max_per_category is not None:
            chain = self._held(chain, filters.shelf)
        for item_id, score, source in chain:
            if item_id in chosen or not filters.keeps(item_id):
                continue
            if request.max_per_category is not None:
                found = filters.shelf.known([item_id]).get(item_id)
                categories = found.categories if found else []
                if any(room.get(one, 0) >= request.max_per_category for one in categories):
                    continue
                for one in categories:
                    room[one] = room.get(one, 0) + 1
            chosen[item_id] = (item_id, score, source)
            if len(chosen) == request.k:
                break
        return list(chosen.values())

    def _held(
        self, chain: Iterator[tuple[str, float, str]], shelf: Shelf
    ) -> Iterator[tuple[str, float, str]]:
        """The chain as it is, the metadata of its items fetched some hundred at a time."""
        while part := list(itertools.islice(chain, LOOK_AHEAD)):
            self._look_up(shelf, [item_id for item_id, _, _ in part])
            yield from part

    def _chain(
        self,
        request: Request,
        bundle: Bundle | None,
        past: list[HistoryEvent],
        filters: Filters,
        now_us: int,
        new: list[tuple[str, float, str]],
    ) -> Iterator[tuple[str, float, str]]:
        history = _encoded(bundle, past) if bundle is not None and past else None
        if bundle is not None and history is not None and (history[0] >= FIRST_ITEM).any():
            ranked = self._ranked(bundle, history, past, request.k, filters, now_us)
            # Both are shares of what comes next, so they may be compared.
            yield from heapq.merge(ranked, new, key=lambda found: -found[1])
            yield from self._followers(bundle, history)
        else:
            yield from new
        choosy = filters.allowed or request.max_per_category is not None
        yield from self.popularity.chain(
            self.database,
            bundle,
            now_us,
            request.categories,
            LONGEST if choosy else request.k + len(filters.excluded),
        )
        # What was asked for and nothing above knows still belongs into the answer.
        asked: Sequence[str] = request.candidates
        if filters.allowed and not asked:
            asked = sorted(frozenset.intersection(*filters.allowed))
        for item_id in asked:
            yield item_id, 0.0, "latest"

    def _ranked(
        self,
        bundle: Bundle,
        history: Histories,
        past: list[HistoryEvent],
        k: int,
        filters: Filters,
        now_us: int,
    ) -> Iterator[tuple[str, float, str]]:
        """The version's ranking, lazily: more of it is ranked only where more of it is asked for."""
        recent, bounds = self._recent(bundle, now_us), filters.bounds(bundle)
        factors = filters.row_factors(bundle)
        read = self._read(bundle, history, past)
        given, wanted = 0, k
        while True:
            with self._turn:
                ranked = best(bundle, history, wanted, recent, bounds, factors, read)
            for row, score, source in ranked[given:]:
                yield bundle.vocabulary.item_id(row), score, source
            if len(ranked) < wanted:
                return
            given, wanted = len(ranked), wanted * GROWTH

    def _read(self, bundle: Bundle, history: Histories, past: list[HistoryEvent]) -> Read | None:
        """The history as the bundle reads it, kept under the version and the events just read.

        So it is never older than the database.
        """
        key = (bundle.version, *past)
        with self._readings_lock:
            found = self._readings.get(key)
            if found is not None:
                self._readings.move_to_end(key)
                return found
        with self._turn:
            made = read_history(bundle, history)
        if made is not None:
            with self._readings_lock:
                self._readings[key] = made
                if len(self._readings) > MAX_READINGS:
                    self._readings.popitem(last=False)
        return made

    def _recent(self, bundle: Bundle, now_us: int) -> np.ndarray | None:
        """log(1 + events of the last days) by row, as they stand now; None for the bundle's own.

        Those are taken where the ranking does not ask, nothing is recent, or the database is away.
        """
        blend = bundle.blends.get(bundle.ranking)
        if blend is None or blend.recency == 0:
            return None
        try:
            counts = self.popularity.recent(self.database, now_us, RECENT_DAYS)
        except StorageUnavailableError:
            return None
        known = self._recent_rows.get(bundle.version)
        if known is None or known[0] is not counts:
            rows = np.zeros(len(bundle.vocabulary), np.float32)
            index = bundle.vocabulary.encode(item_id for item_id, _ in counts)
            rows[index] = np.log1p([events for _, events in counts]).astype(np.float32)
            rows[:FIRST_ITEM] = 0
            known = (counts, rows)
            # Replaced whole, so that another thread reads the old ones or the new ones.
            others = {v: kept for v, kept in self._recent_rows.items() if kept[0] is counts}
            self._recent_rows = {**others, bundle.version: known}
        return known[1] if known[1].any() else None

    def _reasons(
        self,
        bundle: Bundle | None,
        past: list[HistoryEvent],
        items: list[tuple[str, float, str]],
        now_us: int,
    ) -> dict[str, tuple[Reason, ...]]:
        """The past events that raised each item most; nothing for what came from popularity."""
        if bundle is None or not past:
            return {}
        read = past_read(bundle, past)
        history = _encoded(bundle, read)
        asked = [(i, score) for i, score, source in items if source in (*bundle.rankers, LSTM)]
        asked = [(i, score) for i, score in asked if i in bundle.vocabulary]
        if not asked or len(read) == 0:
            return {}
        index = bundle.vocabulary.encode(item_id for item_id, _ in asked).astype(np.int64)
        added = contributions(bundle, history, index, self._recent(bundle, now_us))  # (N, T)
        read = read[-added.shape[1] :]
        reasons = {}
        for row, (item_id, score) in enumerate(asked):
            best = np.argsort(-added[row], kind="stable")[:REASONS]
            reasons[item_id] = tuple(
                Reason(
                    read[at].item_id,
                    read[at].event_id,
                    read[at].timestamp_us,
                    round(min(1.0, float(added[row, at]) / max(score, 1e-12)), 4),
                )
                for at in best
                if added[row, at] > 0
            )
        return reasons

    def _followers(self, bundle: Bundle, history: Histories) -> Iterator[tuple[str, float, str]]:
        known = history[0][history[0] >= FIRST_ITEM]
        items, votes = bundle.rankers["transitions"].votes(known)
        for place in np.argsort(-votes, kind="stable"):
            if items[place] >= FIRST_ITEM and items[place] != known[-1]:
                yield (
                    bundle.vocabulary.item_id(int(items[place])),
                    float(votes[place]),
                    "transitions",
                )

    def _look_up(self, shelf: Shelf, item_ids: Sequence[str]) -> dict[str, StoredItem]:
        if shelf.holds(item_ids):
            return shelf.known(item_ids)
        try:
            with self.database.read() as connection:
                return shelf.items(connection, item_ids)
        except StorageUnavailableError:
            return shelf.known(item_ids)

    def _shown(self, bundle: Bundle, row: np.ndarray, k: int, source: str) -> list[RankedItem]:
        with self.database.connect() as connection:
            shelf = self.catalogue.at(connection, read_stamps(connection).items)
        row[shelf.rows(bundle, "hidden", shelf.hidden)] = -np.inf
        chosen = [(bundle.vocabulary.item_id(int(i)), float(row[i])) for i in top_k(row, k)]
        found = self._look_up(shelf, [item_id for item_id, _ in chosen])
        return [
            RankedItem(item_id, rank, score, source, found.get(item_id))
            for rank, (item_id, score) in enumerate(chosen, 1)
        ]


def _fallback(
    bundle: Bundle | None,
    past: list[HistoryEvent],
    items: list[tuple[str, float, str]],
    degraded: str | None,
) -> str | None:
    """Which of FALLBACKS says why the version's ranking did not give every item, or None."""
    if bundle is None:
        return "database" if degraded and not degraded.startswith("no model") else "no_model"
    if degraded:
        return "database"
    if all(source in (LSTM, *bundle.rankers) and source != "popular" for _, _, source in items):
        return None
    if not past:
        return "no_history"
    known = any(event.item_id in bundle.vocabulary for event in past_read(bundle, past))
    return "too_few" if known else "unknown_items"


def _newcomers(
    bundle: Bundle | None, past: list[HistoryEvent], followers: Followers
) -> list[tuple[str, float, str]]:
    """(item id, score, source) of what lately followed the last item and the model cannot say."""
    if not past:
        return []
    last = past[-1].item_id
    unknown = bundle is None or last not in bundle.vocabulary
    return [
        (item_id, share, "transitions")
        for item_id, share in followers.get(last, ())
        if unknown or (bundle is not None and item_id not in bundle.vocabulary)
    ]


def in_control(who: str, share: float) -> bool:
    """Whether a user or session is in the control arm: the same ones at every call.

    >>> in_control("u1", 0.0), in_control("u1", 1.0)
    (False, True)
    """
    digest = hashlib.blake2b(who.encode(), digest_size=8, person=b"control").digest()
    return int.from_bytes(digest, "big") < share * 2**64


def past_read(bundle: Bundle, past: list[HistoryEvent]) -> list[HistoryEvent]:
    """The events of `past` whose type the bundle's model reads."""
    inputs = set(bundle.input_event_types)
    return [event for event in past if not inputs or event.event_type in inputs]


def _encoded(bundle: Bundle, past: list[HistoryEvent]) -> Histories:
    items, types, times, sessions, _ = zip(*past, strict=True) if past else ((),) * 5
    return encode_history(bundle, items, types, times, sessions)


def _given(events: Iterable[Event]) -> list[HistoryEvent]:
    """The events of a request, in the order of their times, equal times as given."""
    ordered = sorted(events, key=lambda event: event.timestamp_us)
    return [
        HistoryEvent(e.item_id, e.event_type, e.timestamp_us, e.session_id, e.event_id or "")
        for e in ordered
    ]
