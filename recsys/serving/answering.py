"""The steps of an answer: from a request to what is recommended and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from recsys.config import Settings
from recsys.errors import StorageUnavailableError, within
from recsys.events.export_files import writing
from recsys.events.times import to_us
from recsys.serving.active_model import ChosenModel
from recsys.serving.all_users import ANSWERS, answer_rows, users_of
from recsys.serving.answers import Answer, Request, ShadowArm
from recsys.serving.candidates import rank_candidates
from recsys.serving.context import PastRead, read_context, read_past
from recsys.serving.explain import explain
from recsys.serving.kept_answers import place_of
from recsys.serving.recommender import Recommender
from recsys.serving.steering.experiments import Assigned
from recsys.serving.steering.steered_answers import steered_answer
from recsys.serving.top_k import fallback_of, make_answer, take_top_k
from recsys.storage.engine.database import Database
from recsys.storage.entities.stamps import Stamps, read_stamps
from recsys.storage.events_source import open_events_source


def recommend(
    recommender: Recommender,
    request: Request,
    now_us: int,
    stamps: Stamps | None = None,
    past: PastRead | None = None,
) -> Answer:
    """Model -> history and filters -> candidates -> top k -> reasons -> answer.

    A visitor who comes back while nothing has changed gets the same candidates again.

    The one way to an answer, over HTTP, on the command line and for `recommend_all`. Whoever shows
    it logs it (`recsys.serving.answer_log`). `stamps`, `past`: as read from the database for this
    very request, where they were. Where the database cannot be reached, the request's own events and the
    last known popular items still give an answer, marked degraded.
    """
    stamps = stamps or recommender.stamps()
    assigned = recommender.assigned(request, stamps)
    answer = answer_assigned(recommender, assigned, now_us, stamps, past)
    if assigned.arms:
        answer = replace(answer, experiments=assigned.arms, shadows=assigned.shadows)
    return answer


def rank_shadow(recommender: Recommender, arm: ShadowArm, now_us: int) -> Answer:
    """What a shadow arm would have answered."""
    assigned = Assigned(arm.request, arm.model_version, is_changed=True)
    return answer_assigned(recommender, assigned, now_us)


def answer_assigned(
    recommender: Recommender,
    assigned: Assigned,
    now_us: int,
    stamps: Stamps | None = None,
    past: PastRead | None = None,
) -> Answer:
    """The answer to a request as its scenario and the arms of whoever asks have it."""
    model = recommender.choose_model(assigned)
    return answer_by(recommender, assigned.request, model, now_us, stamps, past)


def answer_by(
    recommender: Recommender,
    request: Request,
    model: ChosenModel,
    now_us: int,
    stamps: Stamps | None = None,
    past: PastRead | None = None,
) -> Answer:
    """The answer of one model to a request as its scenario has it."""
    context = read_context(recommender, request, model, now_us, stamps, past)
    if request.scenario_spec is not None:
        return steered_answer(recommender, context)
    place = place_of(context, recommender.ranking.recent)
    chosen = recommender.kept.find(place)
    if chosen is None:
        chosen = take_top_k(recommender, context, rank_candidates(recommender, context))
        if fallback_of(context, chosen) is None:
            recommender.kept.keep(place, chosen)
    reasons = explain(recommender, context, chosen)
    return make_answer(recommender, context, chosen, reasons, recommender.new_id())


def recommend_page(
    recommender: Recommender,
    requests: Sequence[Request],
    now_us: int,
    stamps: Stamps | None = None,
) -> list[Answer]:
    """The answers to several requests of one visitor for one page: no item is in two of them.

    The history is read once; those that come first choose first. An InputError names the field of the
    page's body, such as scenarios[1].filter.
    """
    past = None
    model = recommender.choose_model(recommender.assigned(requests[0], stamps))
    with suppress(StorageUnavailableError), recommender.database.read() as connection:
        stamps = stamps or read_stamps(connection)
        past = read_past(connection, recommender, requests[0], model, stamps)
    answers: list[Answer] = []
    shown: frozenset[str] = frozenset()
    for at, request in enumerate(requests):
        asked = replace(request, exclude_items=request.exclude_items | shown)
        with within(f"scenarios[{at}]"):
            answers.append(recommend(recommender, asked, now_us, stamps, past))
        shown |= {item.item_id for item in answers[-1].items}
    return answers


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
