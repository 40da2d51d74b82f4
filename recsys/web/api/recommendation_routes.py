"""Personalised top k, for a known user or for a sequence in the body."""

from __future__ import annotations

import secrets
from dataclasses import replace
from functools import partial
from typing import Any

from flask import Blueprint

from recsys.errors import AccessError, ConflictError, InputError, NotFoundError
from recsys.events.fields import Event
from recsys.events.identity import as_page_knows, page_event_id
from recsys.events.times import rfc3339
from recsys.ingest.event_body import check_event
from recsys.serving import answering
from recsys.serving.answer_log import stored_bytes
from recsys.serving.answers import Answer, Request
from recsys.storage.engine import advisory_lock
from recsys.storage.entities import click_rows, impression_rows, tombstone_rows
from recsys.storage.entities.impression_rows import Impression, ImpressionItem
from recsys.storage.entities.stamps import Stamps
from recsys.web.api.answer_schemas import RecommendationAnswer, answer_out
from recsys.web.api.recommendation_schemas import (
    BatchAnswer,
    BatchBody,
    ImpressionAnswer,
    ImpressionIn,
    PageBody,
    RecommendationBody,
    RecommendationByIdQuery,
    RecommendationQuery,
    ReplayAnswer,
)
from recsys.web.api_keys import from_page
from recsys.web.operations import QueryForm, operation
from recsys.web.problem_details import FieldError, InvalidRequestError, within_body
from recsys.web.services import Services, now_us, services, stamps

blueprint = Blueprint("recommendations", __name__, url_prefix="/api/v1")

ANYONE = "anyone"  # stands in for the owner of events that need none


def given_answer(shared: Services, request: Request, stamps: Stamps | None) -> dict[str, Any]:
    """Recommend, log and count; the answer as it goes out. Raises RecsysError."""
    return told_answer(
        shared, request, answering.recommend(shared.recommender, request, now_us(), stamps)
    )


def told_answer(shared: Services, request: Request, answer: Answer) -> dict[str, Any]:
    """Log and count an answer; as it goes out. Raises RecsysError."""
    if (
        request.from_page
    ):  # what it has stored costs as what it sends does; raised before it is stored
        shared.keys.spend_bytes(stored_bytes(answer))
    shared.impressions.record(answer)
    if answer.shadows:
        rank = partial(answering.rank_shadow, shared.recommender)
        shared.recommender.shadows.take(answer, rank)
    shared.usage.answered(answer)
    told = answer_out(answer)
    if request.from_page and answer.last_event_id is not None:
        told["last_event_id"] = as_page_knows(answer.last_event_id)
    return told


def _answer(query: RecommendationQuery, **more: Any) -> dict[str, Any]:
    shared = services()
    return given_answer(shared, _asked(shared, query, **more), stamps())


def _asked(shared: Services, query: RecommendationQuery, **more: Any) -> Request:
    """What a query asks for. Raises NotFoundError where it goes on from an answer that is not known."""
    before: tuple[str, ...] = ()
    if query.page_of is not None:
        # Nobody who holds a published key may keep a thread waiting.
        shown = shared.impressions.shown_up_to(query.page_of, wait=not from_page())
        if shown is None:
            raise NotFoundError("stored answer", query.page_of)
        before = tuple(dict.fromkeys(shown))
    asked = query.request(shared.settings.serving)
    return replace(asked, shown_before=before, from_page=from_page(), **more)


@operation(
    blueprint,
    "GET",
    "/users/<id:user_id>/recommendations",
    scope="read",
    query=RecommendationQuery,
    answer=RecommendationAnswer,
    statuses=(200, 404),
    by_query=QueryForm(
        "/users/recommendations", RecommendationByIdQuery, ", for ids that a path cannot carry"
    ),
)
def user_recommendations(user_id: str, query: RecommendationQuery) -> dict[str, Any]:
    """Recommend items to a user; a user without events gets popular ones."""
    return _answer(query, user_id=user_id)


@operation(
    blueprint,
    "POST",
    "/recommendations",
    scope="read",
    body=RecommendationBody,
    answer=RecommendationAnswer,
    statuses=(200, 404),
    collect=True,
    example={"events": [{"item_id": "i1"}, {"item_id": "i2"}], "k": 10},
)
def post_recommendations(body: RecommendationBody) -> dict[str, Any]:
    """Recommend items for events in the body, after those stored of a session or user."""
    if from_page():
        _check_page(body, body)
    return _for_body(body)


def _check_page(owner: RecommendationBody | PageBody, asked: RecommendationQuery) -> None:
    """Raises AccessError where a page asks for what is not its own to ask."""
    if owner.user_id is not None or owner.session_id is None:
        raise AccessError("a page asks for its own session_id, without user_id")
    if asked.explain or asked.filter or asked.boost:
        raise AccessError("a page may not use explain, filter and boost")


@operation(
    blueprint,
    "POST",
    "/recommendations/page",
    scope="read",
    body=PageBody,
    answer=BatchAnswer,
    statuses=(200, 404),
    collect=True,
    example={"user_id": "u1", "scenarios": [{"scenario": "home"}, {"scenario": "new", "k": 5}]},
)
def post_page(body: PageBody) -> dict[str, Any]:
    """Several scenarios of one page in one answer, without showing an item twice."""
    if from_page():
        for one in body.scenarios:
            _check_page(body, one)
    shared = services()
    owner = _owner_in(body, page=from_page())
    requests = []
    for at, one in enumerate(body.scenarios):
        with within_body(f"scenarios[{at}]"):
            requests.append(_asked(shared, one, **owner))
    answers = answering.recommend_page(shared.recommender, requests, now_us(), stamps())
    told = [
        told_answer(shared, request, answer)
        for request, answer in zip(requests, answers, strict=True)
    ]
    return {"answers": told}


@operation(
    blueprint,
    "POST",
    "/recommendations/batch",
    scope="read",
    body=BatchBody,
    answer=BatchAnswer,
    statuses=(200, 404),
    example={"requests": [{"user_id": "u1", "k": 10}, {"user_id": "u2", "k": 10}]},
)
def post_recommendations_batch(body: BatchBody) -> dict[str, Any]:
    """Up to 100 requests in one; each is answered as if sent alone."""
    answers = []
    for at, one in enumerate(body.requests):
        with within_body(f"requests[{at}]"):
            answers.append(_for_body(one))
    return {"answers": answers}


def _for_body(body: RecommendationBody) -> dict[str, Any]:
    return _answer(body, **asked_in(body, page=from_page()))


def asked_in(body: RecommendationBody, *, page: bool) -> dict[str, Any]:
    """The fields of a `Request` that a body alone has. Raises InvalidRequestError."""
    return {**_owner_in(body, page=page), "candidates": tuple(body.candidates)}


def _owner_in(body: RecommendationBody | PageBody, *, page: bool) -> dict[str, Any]:
    return {
        "user_id": body.user_id,
        "session_id": body.session_id,
        "events": tuple(_events(body, page)) if body.events else (),
    }


@operation(
    blueprint,
    "GET",
    "/recommendations/<id:recommendation_id>",
    scope="read",
    answer=ReplayAnswer,
    statuses=(200, 404),
)
def replay(recommendation_id: str) -> dict[str, Any]:
    """Replay an answer: what it showed, why, and what was clicked."""
    shared = services()
    shared.impressions.shown_up_to(recommendation_id)  # waits for one that is being written
    with shared.database.connect() as connection:
        found = impression_rows.get_impression(connection, recommendation_id)
        if found is None:
            raise NotFoundError("stored answer", recommendation_id)
        clicked = {
            row["item_id"] for row in click_rows.clicks_of(connection, found.recommendation_id)
        }
    reasons = found.reasons or {}
    return {
        "recommendation_id": found.recommendation_id,
        "generated_at": rfc3339(found.created_at_us),
        "user_id": found.user_id,
        "session_id": found.session_id,
        "model_version": found.model_version,
        "arm": found.arm,
        "experiments": found.experiments or {},
        "scenario": found.scenario,
        "scenario_version": found.scenario_version,
        "page_of": found.page_of,
        "sequence_length": found.sequence_length,
        "last_event_id": found.last_event_id,
        "items": [
            {
                "item_id": one.item_id,
                "rank": rank,
                "source": one.source,
                "score": one.score,
                "propensity": one.propensity,
                "clicked": one.item_id in clicked,
                "reason": reasons.get(one.item_id),
            }
            for rank, one in enumerate(found.items, 1)
        ],
        "shown": None if found.shown is None else list(found.shown),
    }


@operation(
    blueprint,
    "POST",
    "/impressions",
    scope="write",
    body=ImpressionIn,
    answer=ImpressionAnswer,
    statuses=(200, 404, 409),
    collect=True,
    example={"recommendation_id": "q1w2e3", "items": ["i1", "i2"]},
)
def post_impressions(body: ImpressionIn) -> dict[str, Any]:
    """Report what was actually shown; clicks are attributed to the recommendation_id returned."""
    shared = services()
    if from_page():
        return _page_impressions(body)
    if body.recommendation_id is not None:
        shared.impressions.shown_up_to(body.recommendation_id)
        with shared.database.begin() as connection:
            if not impression_rows.note_shown(connection, body.recommendation_id, body.items):
                raise NotFoundError("stored answer", body.recommendation_id)
        return {"recommendation_id": body.recommendation_id}
    one = Impression(
        recommendation_id=secrets.token_urlsafe(16),
        created_at_us=now_us(),
        user_id=body.user_id,
        session_id=body.session_id,
        model_version=None,
        arm=None,
        scenario=body.scenario,
        items=tuple(ImpressionItem(item_id, "own", 0.0) for item_id in body.items),
        shown=tuple(body.items),
    )
    with shared.database.begin() as connection:
        advisory_lock.lock_shared(connection)
        if not tombstone_rows.without_erased(connection, [one]):
            raise ConflictError("the user was erased")
        impression_rows.insert_impressions(connection, [one])
    return {"recommendation_id": one.recommendation_id}


def _page_impressions(body: ImpressionIn) -> dict[str, Any]:
    """What a page has shown of an answer to its session; of others it is told nothing."""
    own = body.session_id is not None and body.recommendation_id is not None
    if not own or body.user_id is not None or body.scenario is not None:
        raise AccessError(
            "a page reports recommendation_id, session_id and items of an answer to its session"
        )
    shared, wanted = services(), body.recommendation_id
    shared.impressions.flush()
    with shared.database.begin() as connection:
        found = impression_rows.get_impression(connection, wanted) if wanted else None
        if found is None or found.session_id != body.session_id:
            raise NotFoundError("stored answer to this session", wanted)
        given = {one.item_id for one in found.items}
        other = next((item_id for item_id in body.items if item_id not in given), None)
        if other is not None:
            raise InputError("items", other, "expected items of the answer")
        impression_rows.note_shown(connection, found.recommendation_id, body.items)
    return {"recommendation_id": found.recommendation_id}


def _events(body: RecommendationBody | PageBody, page: bool) -> list[Event]:
    """The body's events; one without an owner is the body's, one without a time is of now."""
    now = now_us()
    owner: dict[str, object] = {}
    if body.user_id is not None:
        owner["user_id"] = body.user_id
    if body.session_id is not None or body.user_id is None:
        owner["session_id"] = body.session_id or ANYONE
    events, errors = [], []
    for index, raw in enumerate(body.events):
        try:
            events.append(check_event({**owner, **raw}, now))
        except InputError as error:
            field = f"events[{index}].{error.field}"[:200]
            errors.append(FieldError(field=field, message=error.expected))
    if errors:
        raise InvalidRequestError(errors)
    if page:  # as they are stored where the page has posted them too
        return [replace(e, event_id=e.event_id and page_event_id(e.event_id)) for e in events]
    return events
