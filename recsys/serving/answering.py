"""The steps of an answer: from a request to what is recommended and why."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from recsys.config import Settings
from recsys.events.export_files import writing
from recsys.events.times import to_us
from recsys.serving.all_users import ANSWERS, answer_rows, users_of
from recsys.serving.answers import Answer, Request, ShadowArm
from recsys.serving.candidates import rank_candidates
from recsys.serving.context import read_context
from recsys.serving.explain import explain
from recsys.serving.kept_answers import place_of
from recsys.serving.recommender import Recommender
from recsys.serving.steering.experiments import Assigned
from recsys.serving.steering.reranking import explored, reordered, widened
from recsys.serving.top_k import fallback_of, make_answer, take_top_k
from recsys.storage.engine.database import Database
from recsys.storage.entities.stamps import Stamps
from recsys.storage.events_source import open_events_source


def recommend(
    recommender: Recommender, request: Request, now_us: int, stamps: Stamps | None = None
) -> Answer:
    """Model -> history and filters -> candidates -> top k -> reasons -> answer.

    A visitor who comes back while nothing has changed gets the same candidates again.

    The one way to an answer, over HTTP, on the command line and for `recommend_all`. Whoever shows
    it logs it (`recsys.serving.answer_log`). `stamps`: as read from the database for this very
    request, where they were. Where the database cannot be reached, the request's own events and the
    last known popular items still give an answer, marked degraded.
    """
    stamps = stamps or recommender.stamps()
    assigned = recommender.assigned(request, stamps)
    answer = _answered(recommender, assigned, now_us, stamps)
    if assigned.arms:
        answer = replace(answer, experiments=assigned.arms, shadows=assigned.shadows)
    return answer


def rank_shadow(recommender: Recommender, arm: ShadowArm, now_us: int) -> Answer:
    """What a shadow arm would have answered."""
    assigned = Assigned(arm.request, arm.model_version, is_changed=True)
    return _answered(recommender, assigned, now_us, None)


def _answered(
    recommender: Recommender, assigned: Assigned, now_us: int, stamps: Stamps | None
) -> Answer:
    model = recommender.choose_model(assigned)
    context = read_context(recommender, assigned.request, model, now_us, stamps)
    recommendation_id = recommender.new_id()
    place = place_of(context, recommender.ranking.recent)
    chosen = recommender.kept.find(place)
    if chosen is None:
        spec = assigned.request.scenario_spec
        ranked = rank_candidates(recommender, widened(context, spec))
        if spec is not None:
            ranked = reordered(context, spec, ranked)
        chosen = take_top_k(recommender, context, ranked)
        if spec is not None:
            chosen = explored(recommender, context, spec, chosen, ranked, recommendation_id)
        if fallback_of(context, chosen) is None:
            recommender.kept.keep(place, chosen)
    reasons = explain(recommender, context, chosen)
    return make_answer(recommender, context, chosen, reasons, recommendation_id)


def recommend_all(settings: Settings, database: Database, k: int, path: Path, now: datetime) -> int:
    """The answer to every user with events -> a Parquet file (user_id, item_id, rank, score); its rows.

    Each user gets what `recommend` gives. Raises NotEnoughDataError where no version was promoted
    yet, ModelFileError where none can be loaded, StorageUnavailableError.
    """
    now_us = to_us(now)
    recommender = Recommender(settings, database, time.monotonic)
    with closing(recommender), writing(path) as write:
        recommender.require_model()
        recommender.follow_once(now_us)
        user_ids = users_of(open_events_source(settings, database).frame_since(now_us))
        rows = 0
        for at in range(0, len(user_ids), ANSWERS):
            asked = [
                Request(user_id=user_id, k=k, exclude_seen=settings.serving.exclude_seen)
                for user_id in user_ids[at : at + ANSWERS]
            ]
            rows += write(answer_rows([recommend(recommender, one, now_us) for one in asked]))
        return rows
