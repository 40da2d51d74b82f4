"""History -> candidates -> filters -> top k, with the source of each item.

Each step has a room of its own: `history`, `chain` (what fills an answer), `filters`, `explanation`;
here they meet, under what a process keeps between requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from recsys.config import Settings
from recsys.config.exclude_seen import seen_types
from recsys.errors import StorageUnavailableError
from recsys.events.identity import RandomIds
from recsys.models.bundle import Bundle
from recsys.registry import sweep_parts, sweep_unregistered
from recsys.serving.active_model import ActiveModel, Models
from recsys.serving.answers import Answer, HeldBack, RankedItem, Request
from recsys.serving.arms import choose
from recsys.serving.candidates import Basis, Chain, fallback_of
from recsys.serving.explain import reasons_of
from recsys.serving.filters import Filters, bare_filters, filters_of
from recsys.serving.followers import Newcomers
from recsys.serving.history import Merged, given_events, history_of
from recsys.serving.item_lists import ItemLists
from recsys.serving.item_snapshot import EMPTY, Catalogue, look_up
from recsys.serving.popularity import Popularity
from recsys.serving.version_ranking import VersionRanking
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import version_rows
from recsys.storage.entities.model_files import open_model_files
from recsys.storage.entities.stamps import Stamps, read_stamps
from recsys.storage.event_source import EventSource


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
        self._merged = Merged()
        self._newcomers = Newcomers()
        self._ranking = VersionRanking(database, self.popularity)
        self._chain = Chain(database, self.popularity, self._ranking)
        self._lists = ItemLists(database, self.catalogue, self.popularity, serving.popular_days)
        self._new_id = RandomIds()

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
                basis, degraded = self._basis(connection, request, bundle, stamps, now_us)
        except StorageUnavailableError:
            degraded = "the database cannot be reached: stored history and filters are left out"
            past = given_events(request.events)
            filters = bare_filters(request, self.catalogue.latest)
            basis = Basis(request, bundle, past, filters, self._newcomers.latest, now_us)
        if bundle is None and degraded is None:
            degraded = "no model has been promoted yet: popular items are shown"
        past = basis.past
        items = self._chain.fill(basis)
        found = look_up(self.database, basis.filters.shelf, [item_id for item_id, _, _ in items])
        reasons = None
        if request.explain:
            reasons = reasons_of(
                bundle, past, items, lambda bundle: self._ranking.recent(bundle, now_us)
            )
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
            fallback=fallback_of(basis, items, degraded),
            scenario=request.scenario,
            page_of=request.page_of,
        )

    def held_back(self, request: Request, now_us: int) -> list[HeldBack]:
        """Which of the best k items, if nothing were filtered, the filters of `request` take out.

        Raises StorageUnavailableError.
        """
        bundle, _ = self._choose(request)
        with self.database.read() as connection:
            basis, _ = self._basis(connection, request, bundle, read_stamps(connection), now_us)
        filters = basis.filters
        everything = Filters(EMPTY, frozenset(), (), filters.factors)
        bare = replace(request, max_per_category=None)
        ranked = self._chain.fill(replace(basis, request=bare, filters=everything))
        gone = [
            (rank, item_id, source)
            for rank, (item_id, _, source) in enumerate(ranked, 1)
            if not filters.keeps(item_id)
        ]
        found = look_up(self.database, filters.shelf, [item_id for _, item_id, _ in gone])
        types = seen_types(request.exclude_seen)
        seen = {
            event.item_id: event.event_type
            for event in basis.past
            if types is None or event.event_type in types
        }
        return [
            HeldBack(item_id, rank, source, filters.why(item_id, seen), found.get(item_id))
            for rank, item_id, source in gone
        ]

    def similar(self, item_id: str, k: int, now_us: int) -> list[RankedItem]:
        """Items like one, by the champion; see `ItemLists.similar`. Raises NotFoundError."""
        return self._lists.similar(self.bundle(), item_id, k, now_us)

    def following(self, item_id: str, k: int, now_us: int) -> list[RankedItem]:
        """What most often came right after the item; otherwise as `similar`."""
        return self._lists.following(self.bundle(), item_id, k, now_us)

    def popular(self, days: int, category: str | None, k: int, now_us: int) -> list[RankedItem]:
        """The items with most events in the last `days`."""
        return self._lists.popular(days, category, k, now_us)

    def _choose(self, request: Request) -> tuple[Bundle | None, str | None]:
        """The model for whoever asks, and the arm that it is."""
        who = request.user_id or request.session_id
        return choose(self.models(), who, self.settings.serving.control_share)

    def _basis(
        self,
        connection: Connection,
        request: Request,
        bundle: Bundle | None,
        stamps: Stamps,
        now_us: int,
    ) -> tuple[Basis, str | None]:
        """What the answer rests on, and why some of it may be missing."""
        shelf = self.catalogue.at(connection, stamps.items)
        history, degraded = history_of(
            connection, request, bundle, self.source, self._merged, stamps.aliases
        )
        filters = filters_of(connection, request, history, shelf, self.source)
        followers = self._newcomers.at(connection, stamps.followers)
        return Basis(request, bundle, history.events, filters, followers, now_us), degraded
