"""What an answer is made from: a model, a history as it reads it, and what may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from recsys.config.exclude_seen import DEFAULT, resolved
from recsys.errors import StorageUnavailableError
from recsys.events.identity import sequence_key
from recsys.events.sequences import Histories
from recsys.models.bundle import Bundle
from recsys.serving.active_model import ChosenModel
from recsys.serving.answers import Request
from recsys.serving.filters import Filters, filters_of, filters_without_database
from recsys.serving.history import encoded, given_events, past_events
from recsys.serving.popularity import Followers
from recsys.serving.recommender import Recommender
from recsys.serving.steering.business_value import Scoring, scoring_of
from recsys.serving.steering.rotation import sunk_for
from recsys.storage.engine.database import Connection
from recsys.storage.entities.history_rows import History, HistoryEvent
from recsys.storage.entities.stamps import Stamps, read_stamps

DATABASE_AWAY = "the database cannot be reached: stored history and filters are left out"
NO_MODEL = "no model has been promoted yet: popular items are shown"


class PastRead(NamedTuple):
    """The past events of whoever asks, read once for several answers."""

    bundle: Bundle | None  # whose length and types they were read for
    stored: History
    degraded: str | None  # why some may be missing


@dataclass(frozen=True)
class RankingContext:
    """What the candidates of one request are ranked and filtered by."""

    request: Request
    model: ChosenModel
    past: list[HistoryEvent]  # oldest first
    history: Histories | None  # `past` as the model reads it (B = 1); None without a model or past
    filters: Filters
    followers: Followers
    now_us: int
    degraded: str | None  # why the answer is less than it should be
    note: str | None = None  # what else is to be told of it
    sunk: frozenset[str] = frozenset()  # that were shown too often, where the scenario rotates
    scoring: Scoring | None = None  # what the scenario orders candidates by, if not their chance

    @property
    def bundle(self) -> Bundle | None:
        return self.model.bundle


def read_context(
    recommender: Recommender,
    request: Request,
    model: ChosenModel,
    now_us: int,
    stamps: Stamps | None = None,
    past: PastRead | None = None,
) -> RankingContext:
    """Read history and filters as they stand in the database at this moment.

    `stamps`, `past`: as read from the database for this very request, where they were. Where the
    database cannot be reached, the context holds the request's own events alone, and says so.
    """
    try:
        return stored_context(recommender, request, model, now_us, stamps, past)
    except StorageUnavailableError:
        events = given_events(request.events)
        model = _with_live(recommender, request, model, events, now_us)
        return RankingContext(
            with_seen(request, model.bundle),
            model,
            events,
            _encoded(model.bundle, events),
            filters_without_database(request, recommender.catalogue.latest),
            recommender.followers.latest,
            now_us,
            DATABASE_AWAY,
        )


def stored_context(
    recommender: Recommender,
    request: Request,
    model: ChosenModel,
    now_us: int,
    stamps: Stamps | None = None,
    past: PastRead | None = None,
) -> RankingContext:
    """As `read_context`; raises StorageUnavailableError where the database cannot be reached."""
    asked, request = request, with_seen(request, model.bundle)
    with recommender.database.read() as connection:
        stamps = stamps or read_stamps(connection)
        snapshot = recommender.catalogue.at(connection, stamps.items)
        if past is None or past.bundle is not model.bundle:
            past = read_past(connection, recommender, request, model, stamps)
        stored, degraded = past.stored, past.degraded
        note = recommender.event_types.check(connection, asked, model.bundle)
        filters = filters_of(connection, request, stored, snapshot, recommender.source, now_us)
        sunk = sunk_for(connection, request, stored.events, now_us)
        scoring = scoring_of(connection, request, stored, snapshot, now_us)
        followers = recommender.followers.at(connection, stamps.followers)
    if model.bundle is None and degraded is None:
        degraded = NO_MODEL
    events = stored.events
    if model.bundle is not None and recommender.live is not None:
        model = _with_live(recommender, request, model, events, now_us)
        note = note or recommender.live.degraded
    history = _encoded(model.bundle, events)
    return RankingContext(
        request, model, events, history, filters, followers, now_us, degraded, note, sunk, scoring
    )


def with_seen(request: Request, bundle: Bundle | None) -> Request:
    """The request with what the version has learned of seen items in the place of `auto`."""
    learned = DEFAULT if bundle is None else bundle.facts.exclude_seen
    found = resolved(request.exclude_seen, learned)
    if found == request.exclude_seen:
        return request
    return request.having(exclude_seen=found, learned_seen=True)


def read_past(
    connection: Connection,
    recommender: Recommender,
    request: Request,
    model: ChosenModel,
    stamps: Stamps,
) -> PastRead:
    """The past events of whoever asks. Raises StorageUnavailableError."""
    stored, degraded = past_events(
        connection, request, model.bundle, recommender.source, recommender.merged, stamps.aliases
    )
    return PastRead(model.bundle, stored, degraded)


def _with_live(
    recommender: Recommender,
    request: Request,
    model: ChosenModel,
    past: list[HistoryEvent],
    now_us: int,
) -> ChosenModel:
    """The model with what everyone did since its data ended, where that is followed."""
    bundle, live = model.bundle, recommender.live
    if bundle is None or live is None:
        return model
    owner = None
    if request.user_id is not None or request.session_id is not None:
        owner = sequence_key(request.user_id, request.session_id)
    items = [event.item_id for event in past]
    return model._replace(bundle=live.at_moment(bundle, owner, items, now_us))


def _encoded(bundle: Bundle | None, past: list[HistoryEvent]) -> Histories | None:
    return encoded(bundle, past) if bundle is not None and past else None
