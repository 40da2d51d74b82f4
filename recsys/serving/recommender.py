"""What a process that answers requests keeps between them; the way to an answer is `answering.recommend`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from recsys.config import Settings
from recsys.errors import (
    ConfigError,
    ModelFileError,
    NotEnoughDataError,
    SourceUnavailableError,
    StorageUnavailableError,
)
from recsys.events.identity import RandomIds
from recsys.models.bundle import Bundle
from recsys.registry import sweep_parts, sweep_unregistered
from recsys.serving.active_model import (
    EXPERIMENT,
    PAGE,
    ActiveModel,
    ChosenModel,
    Models,
    choose_model,
)
from recsys.serving.answers import Request
from recsys.serving.bought_together import BasketTable
from recsys.serving.event_types import EventTypes
from recsys.serving.history import MergedKeys
from recsys.serving.item_lists import ItemLists
from recsys.serving.item_snapshot import Catalogue
from recsys.serving.kept_answers import KeptAnswers
from recsys.serving.live_state import LiveState
from recsys.serving.popularity import FollowerTable, Popularity
from recsys.serving.steering.experiments import Assigned, Experiments
from recsys.serving.steering.scenarios import Scenarios
from recsys.serving.steering.shadow_answers import ShadowAnswers
from recsys.serving.version_ranking import VersionRanking
from recsys.storage.engine.database import Database
from recsys.storage.entities import experiment_rows, key_values, version_rows
from recsys.storage.entities.model_files import open_model_files
from recsys.storage.entities.stamps import Stamps, read_stamps
from recsys.storage.events_source import open_events_source

ARM_RETRY_SECONDS = 10.0


class Recommender:
    """The models, caches and connections of a process.

    What is cached of a user is cached under the events it was made of, which are read from the
    database at each request, so it cannot be stale.
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
            arms=self._models_of_arms,
        )
        self.source = open_events_source(settings, database)
        self.live = (
            LiveState(settings, database, self.source, clock) if serving.live_seconds else None
        )
        self.popularity = Popularity(clock, self.source)
        self.followers = FollowerTable()
        self.catalogue = Catalogue()
        self.scenarios = Scenarios(database)
        self.experiments = Experiments(database, self._arm_key)
        self.shadows = ShadowAnswers(database)
        self.event_types = EventTypes(settings, clock)
        self.merged = MergedKeys()
        self.kept = KeptAnswers()
        self.ranking = VersionRanking(database, self.popularity)
        self.item_lists = ItemLists(
            database,
            self.bundle,
            self.catalogue,
            self.popularity,
            serving.popular_days,
            self.live,
            BasketTable(database, self.source, settings.attribution.types, clock),
        )
        self.new_id = RandomIds()
        self._clock = clock
        self._arm_secret: bytes | None = None
        self._arm_retry_at = float("-inf")

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

    def stamps(self) -> Stamps | None:
        """The stamps, for a request whose key was not looked up with them; None with the database away."""
        try:
            with self.database.read() as connection:
                return read_stamps(connection)
        except StorageUnavailableError:
            return None

    def assigned(self, request: Request, stamps: Stamps | None) -> Assigned:
        """The request as the scenario that it names and the arms of whoever asks have it."""
        scenario = None
        if request.scenario is not None:
            scenario = self.scenarios.find(request.scenario, stamps)
        return self.experiments.assigned(request, scenario, stamps)

    def choose_model(self, assigned: Assigned) -> ChosenModel:
        """The model for whoever asks, and the arm that it is. Pages are in no arm of the comparison of
        champion and control, nor is whatever an experiment changes.
        """
        request, models = assigned.request, self.models()
        if assigned.is_changed and models.champion is not None:
            return ChosenModel(_bundle_of(models, assigned.model_version), EXPERIMENT)
        if request.from_page:
            return ChosenModel(models.champion, PAGE if models.champion is not None else None)
        asker = request.user_id or request.session_id
        return choose_model(models, asker, self.settings.serving.control_share, self._arm_key)

    def _models_of_arms(self) -> list[tuple[str, str]]:
        with self.database.connect() as connection:
            return experiment_rows.models_wanted(connection)

    def _arm_key(self) -> bytes | None:
        """What arms are drawn with; None where it cannot be had, which is tried once in a while."""
        if self._arm_secret is None and self._clock() >= self._arm_retry_at:
            self._arm_retry_at = self._clock() + ARM_RETRY_SECONDS
            with suppress(StorageUnavailableError):
                self._arm_secret = bytes.fromhex(key_values.arm_key(self.database))
        return self._arm_secret

    def require_model(self) -> None:
        """Raise NotEnoughDataError where no version was promoted yet, ModelFileError where none can be
        loaded, StorageUnavailableError.
        """
        if self.active.current(self.deployed).champion is None:
            if self.active.refused is not None:
                raise ModelFileError(f"version {self.active.refused} cannot be loaded")
            raise NotEnoughDataError("no version has been promoted yet; run: recsys train")

    def cached_bytes(self) -> dict[str, int]:
        """What each cache of this process holds, in bytes."""
        return {
            "histories": self.ranking.states.bytes + self.ranking.network_states.bytes,
            "answers": self.kept.bytes,
            "popular": self.popularity.windows.bytes,
            "merged": self.merged.bytes,
            "baskets": self.item_lists.baskets.bytes,
            "live": self.live.bytes if self.live is not None else 0,
            **self.catalogue.latest.cached_bytes(),
        }

    def follow_once(self, now_us: int) -> str | None:
        """Bring the live state up to date, for who does not follow it in a thread; why it could not be
        (None: it was). Raises StorageUnavailableError where the service's own database is away.
        """
        try:
            if self.live is not None:
                self.live.follow_once(now_us)
        except (ConfigError, SourceUnavailableError) as error:
            return f"{error}: what others did lately is left out"
        return None

    def close(self) -> None:
        """Stop following events, and close the connections to where they come from."""
        if self.live is not None:
            self.live.stop()
        self.shadows.close()
        self.source.close()


def _bundle_of(models: Models, version: str | None) -> Bundle | None:
    """The model of an arm's version; the champion where it names none, or is not loaded."""
    control = models.control
    if control is not None and control.version == version:
        return control
    return models.arms.get(version or "", models.champion)
