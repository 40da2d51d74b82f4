"""History -> candidates -> filters -> top k, with the source of each item.

The chain always answers: the version's ranking, then transitions of the last known item, then what
is popular, then what is newest. An item takes its place from the first of them that has it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from recsys.config import Settings
from recsys.data.event_check import Event
from recsys.data.sequences import Histories
from recsys.data.vocabulary import FIRST_ITEM
from recsys.errors import NotFoundError, StorageUnavailableError
from recsys.registry import Bundle
from recsys.serving.active_model import ActiveModel, Champion
from recsys.serving.explanation import contributions
from recsys.serving.fallback import Popularity
from recsys.serving.ranking import LSTM, encode_history, scores_by_source, top_k
from recsys.storage import event_rows, item_rows, version_rows
from recsys.storage.database import Database
from recsys.storage.event_rows import HistoryEvent
from recsys.storage.item_rows import StoredItem

MAX_K = 1_000
RECENT_DAYS = 7  # as `recsys.rankers.popular.PopularRecent` counts
REASONS = 3  # past events named for an item
EXTRA_HISTORY = 50  # events read beyond the model's length: some are of types it does not read


@dataclass(frozen=True)
class Request:
    """What is asked for. `events` come after what is stored of the user or session."""

    user_id: str | None = None
    session_id: str | None = None
    events: tuple[Event, ...] = ()
    k: int = 20
    exclude_seen: str = "purchase"  # an event type, 'all' or 'none'
    exclude_items: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()  # any of them; empty = all
    candidates: tuple[str, ...] = ()  # rank these alone; empty = the catalogue
    scenario: str | None = None
    explain: bool = False


@dataclass(frozen=True)
class Reason:
    """A past event that moved an item up, and the share of the item's score that rests on it."""

    item_id: str
    event_id: str
    timestamp_us: int
    share: float  # 0..1


@dataclass(frozen=True)
class RankedItem:
    item_id: str
    rank: int  # 1-based
    score: float  # comparable within one answer and one source only
    source: str
    item: StoredItem | None
    reason: tuple[Reason, ...] | None = None  # None where no explanation was asked for


@dataclass(frozen=True)
class Answer:
    """What goes out. `degraded` says why the answer is less than it should be, or is None."""

    recommendation_id: str
    user_id: str | None
    session_id: str | None
    model_version: str | None
    generated_at_us: int
    sequence_length: int
    last_event_id: str | None
    degraded: str | None
    items: list[RankedItem] = field(default_factory=list)


@dataclass(frozen=True)
class _Filters:
    """What may be shown."""

    excluded: set[str]
    allowed: set[str] | None  # None = everything

    def keeps(self, item_id: str) -> bool:
        return item_id not in self.excluded and (self.allowed is None or item_id in self.allowed)


class Recommender:
    """Answers requests from one database and the active model. Holds no user's state."""

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back, such as time.monotonic."""
        self.settings = settings
        self.database = database
        serving = settings.serving
        self.active = ActiveModel(
            settings.registry.path, serving.reload_seconds, clock, serving.item_matrix
        )
        self.popularity = Popularity(clock, settings.serving.popular_days)
        self._recent_rows: tuple[str, object, np.ndarray] | None = None

    def bundle(self) -> Bundle | None:
        """The model to answer with; the one in memory where the database cannot be asked."""
        try:
            return self.active.current(self._champion)
        except StorageUnavailableError:
            return self.active.bundle

    def recommend(self, request: Request, now_us: int) -> Answer:
        """The best k items for the history as it stands in the database at this moment.

        Where the database cannot be reached, events in the request and the last known popular items
        still give an answer, marked degraded. Raises StorageUnavailableError where neither helps.
        """
        bundle = self.bundle()
        degraded: str | None = None
        try:
            past = self._history(request, bundle)
            filters = self._filters(request)
        except StorageUnavailableError:
            degraded = "the database cannot be reached: stored history and filters are left out"
            past = _given(request.events)
            filters = _Filters(set(request.exclude_items), set(request.candidates) or None)
        if bundle is None and degraded is None:
            degraded = "no model has been promoted yet: popular items are shown"
        items = self._fill(request, bundle, past, filters, now_us)
        found = self._look_up([item_id for item_id, _, _ in items])
        reasons = self._reasons(bundle, past, items, now_us) if request.explain else None
        return Answer(
            recommendation_id=secrets.token_urlsafe(16),
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
                for rank, (item_id, score, source) in enumerate(items, 1)
            ],
        )

    def similar(self, item_id: str, k: int) -> list[RankedItem]:
        """Items whose vectors point the same way (cosine). Raises NotFoundError."""
        bundle = self._bundle_with(item_id)
        if bundle.scorer is None:
            return self.following(item_id, k)
        vectors = bundle.scorer.item_vectors()
        norms = np.linalg.norm(vectors, axis=1) + 1e-9
        index = bundle.vocabulary.index(item_id)
        cosines = (vectors @ vectors[index] / (norms * norms[index])).astype(np.float32)
        cosines[:FIRST_ITEM] = -np.inf
        cosines[index] = -np.inf
        return self._shown(bundle, cosines, k, "lstm")

    def following(self, item_id: str, k: int) -> list[RankedItem]:
        """What most often came right after the item. Raises NotFoundError."""
        bundle = self._bundle_with(item_id)
        row = np.full(len(bundle.vocabulary), -np.inf, np.float32)
        history = np.array([bundle.vocabulary.index(item_id)], np.int32)
        places, votes = bundle.rankers["transitions"].votes(history)
        row[places] = votes
        row[:FIRST_ITEM] = -np.inf
        return self._shown(bundle, row, k, "transitions")

    def popular(self, days: int, category: str | None, k: int, now_us: int) -> list[RankedItem]:
        """The items with most events in the last `days`."""
        with self.database.connect() as connection:
            hidden = item_rows.unavailable_items(connection)
            counts = self.popularity.counts(connection, now_us, days, category)
        shown = [(item_id, count) for item_id, count in counts if item_id not in hidden][:k]
        found = self._look_up([item_id for item_id, _ in shown])
        return [
            RankedItem(item_id, rank, float(count), "popular", found.get(item_id))
            for rank, (item_id, count) in enumerate(shown, 1)
        ]

    def _champion(self) -> Champion | None:
        with self.database.connect() as connection:
            row = version_rows.champion_name(connection)
        return None if row is None else Champion(*row)

    def _bundle_with(self, item_id: str) -> Bundle:
        bundle = self.bundle()
        if bundle is None or item_id not in bundle.vocabulary:
            raise NotFoundError("item that the model knows", item_id)
        return bundle

    def _history(self, request: Request, bundle: Bundle | None) -> list[HistoryEvent]:
        stored: list[HistoryEvent] = []
        if request.user_id is not None or request.session_id is not None:
            limit = (bundle.max_length if bundle else 0) + EXTRA_HISTORY
            with self.database.connect() as connection:
                stored = event_rows.history(connection, request.user_id, request.session_id, limit)
        known = {event.event_id for event in stored}
        return stored + [event for event in _given(request.events) if event.event_id not in known]

    def _filters(self, request: Request) -> _Filters:
        excluded = set(request.exclude_items)
        allowed: set[str] | None = set(request.candidates) or None
        with self.database.connect() as connection:
            excluded |= item_rows.unavailable_items(connection)
            if request.exclude_seen != "none":
                types = None if request.exclude_seen == "all" else [request.exclude_seen]
                excluded |= event_rows.seen_items(
                    connection, request.user_id, request.session_id, types
                )
                excluded |= {
                    event.item_id
                    for event in request.events
                    if types is None or event.event_type in types
                }
            if request.categories:
                within = item_rows.items_in(connection, request.categories)
                allowed = within if allowed is None else allowed & within
        return _Filters(excluded, allowed)

    def _fill(
        self,
        request: Request,
        bundle: Bundle | None,
        past: list[HistoryEvent],
        filters: _Filters,
        now_us: int,
    ) -> list[tuple[str, float, str]]:
        """(item id, score, source) of the answer, each item once."""
        chosen: dict[str, tuple[str, float, str]] = {}
        for item_id, score, source in self._chain(request, bundle, past, filters, now_us):
            if item_id not in chosen and filters.keeps(item_id):
                chosen[item_id] = (item_id, score, source)
                if len(chosen) == request.k:
                    break
        return list(chosen.values())

    def _chain(
        self,
        request: Request,
        bundle: Bundle | None,
        past: list[HistoryEvent],
        filters: _Filters,
        now_us: int,
    ) -> Iterator[tuple[str, float, str]]:
        if bundle is not None and past:
            history = _encoded(bundle, past)
            if len(history[0]) and (history[0] >= FIRST_ITEM).any():
                yield from self._ranked(bundle, history, request.k, filters, now_us)
                yield from self._followers(bundle, history)
        yield from self.popularity.chain(
            self.database, bundle, now_us, request.categories, request.k + len(filters.excluded)
        )
        # Candidates that nothing above knows still belong into an answer that ranks just them.
        for item_id in request.candidates:
            yield item_id, 0.0, "latest"

    def _ranked(
        self, bundle: Bundle, history: Histories, k: int, filters: _Filters, now_us: int
    ) -> Iterator[tuple[str, float, str]]:
        parts = scores_by_source(bundle, history, self._recent(bundle, now_us))
        names = list(parts)
        table = np.stack([parts[name][0] for name in names])  # (sources, V)
        row = table.sum(axis=0)
        vocabulary = bundle.vocabulary
        if filters.allowed is not None:
            kept = np.zeros(len(row), np.bool_)
            kept[vocabulary.encode(filters.allowed)] = True
            row[~kept] = -np.inf
        if filters.excluded:
            excluded = vocabulary.encode(filters.excluded)
            row[excluded[excluded >= FIRST_ITEM]] = -np.inf
        if bundle.ranking in bundle.rankers:
            row[row <= 0] = -np.inf  # no vote is no recommendation: the chain goes on instead
        for index in top_k(row, k):
            source = names[int(table[:, index].argmax())]
            yield vocabulary.item_id(int(index)), float(row[index]), source

    def _recent(self, bundle: Bundle, now_us: int) -> np.ndarray | None:
        """log(1 + events of the last days) by row, as they stand now; None for the bundle's own.

        Those are taken where the ranking does not ask, nothing is recent, or the database is away.
        """
        blend = bundle.blends.get(bundle.ranking)
        if blend is None or blend.recency == 0:
            return None
        try:
            with self.database.connect() as connection:
                counts = self.popularity.recent(connection, now_us, RECENT_DAYS)
        except StorageUnavailableError:
            return None
        known = self._recent_rows
        if known is None or known[0] != bundle.version or known[1] is not counts:
            rows = np.zeros(len(bundle.vocabulary), np.float32)
            index = bundle.vocabulary.encode(item_id for item_id, _ in counts)
            rows[index] = np.log1p([events for _, events in counts]).astype(np.float32)
            rows[:FIRST_ITEM] = 0
            # Replaced whole, so that another thread reads the old one or the new one.
            self._recent_rows = known = (bundle.version, counts, rows)
        return known[2] if known[2].any() else None

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

    def _look_up(self, item_ids: Iterable[str]) -> dict[str, StoredItem]:
        try:
            with self.database.connect() as connection:
                return item_rows.get_items(connection, list(item_ids))
        except StorageUnavailableError:
            return {}

    def _shown(self, bundle: Bundle, row: np.ndarray, k: int, source: str) -> list[RankedItem]:
        with self.database.connect() as connection:
            hidden = item_rows.unavailable_items(connection)
        encoded = bundle.vocabulary.encode(hidden)
        row[encoded[encoded >= FIRST_ITEM]] = -np.inf
        best = [(bundle.vocabulary.item_id(int(i)), float(row[i])) for i in top_k(row, k)]
        found = self._look_up([item_id for item_id, _ in best])
        return [
            RankedItem(item_id, rank, score, source, found.get(item_id))
            for rank, (item_id, score) in enumerate(best, 1)
        ]


def past_read(bundle: Bundle, past: list[HistoryEvent]) -> list[HistoryEvent]:
    """The events of `past` whose type the bundle's model reads."""
    inputs = set(bundle.input_event_types)
    return [event for event in past if not inputs or event.event_type in inputs]


def _encoded(bundle: Bundle, past: list[HistoryEvent]) -> Histories:
    return encode_history(
        bundle,
        [event.item_id for event in past],
        [event.event_type for event in past],
        [event.timestamp_us for event in past],
        [event.session_id for event in past],
    )


def _given(events: Iterable[Event]) -> list[HistoryEvent]:
    """The events of a request, in the order of their times, equal times as given."""
    ordered = sorted(events, key=lambda event: event.timestamp_us)
    return [
        HistoryEvent(e.item_id, e.event_type, e.timestamp_us, e.session_id, e.event_id or "")
        for e in ordered
    ]
