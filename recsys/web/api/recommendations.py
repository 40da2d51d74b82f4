"""Personalised top k, for a known user or for a sequence in the body."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from recsys.data.event_check import Event, check_event
from recsys.errors import InputError
from recsys.serving.recommender import Request
from recsys.web.errors import FieldError, InvalidRequestError
from recsys.web.operations import operation
from recsys.web.schemas import (
    RecommendationAnswer,
    RecommendationBody,
    RecommendationByIdQuery,
    RecommendationQuery,
    answer_out,
)
from recsys.web.services import now_us, services

blueprint = Blueprint("recommendations", __name__, url_prefix="/api/v1")

ANYONE = "anyone"  # stands in for the owner of events that need none


def _answer(query: Any, **more: Any) -> dict[str, Any]:
    settings = services().settings.serving
    request = Request(
        k=query.k or settings.default_k,
        exclude_seen=query.exclude_seen or settings.exclude_seen,
        exclude_items=frozenset(query.exclude_items),
        categories=frozenset(query.categories),
        scenario=query.scenario,
        explain=query.explain,
        **more,
    )
    return answer_out(services().recommender.recommend(request, now_us()))


@operation(
    blueprint,
    "GET",
    "/users/<id:user_id>/recommendations",
    scope="read",
    query=RecommendationQuery,
    answer=RecommendationAnswer,
)
def user_recommendations(user_id: str, query: RecommendationQuery) -> dict[str, Any]:
    """Items a user is likely to want next; a user without events gets popular ones."""
    return _answer(query, user_id=user_id)


@operation(
    blueprint,
    "GET",
    "/users/recommendations",
    scope="read",
    query=RecommendationByIdQuery,
    answer=RecommendationAnswer,
)
def user_recommendations_by_query(query: RecommendationByIdQuery) -> dict[str, Any]:
    """The same with the user's id as a query parameter, for ids that a path cannot carry."""
    return _answer(query, user_id=query.user_id)


@operation(
    blueprint,
    "POST",
    "/recommendations",
    scope="read",
    body=RecommendationBody,
    answer=RecommendationAnswer,
    example={"events": [{"item_id": "i1"}, {"item_id": "i2"}], "k": 10},
)
def post_recommendations(body: RecommendationBody) -> dict[str, Any]:
    """Items for a sequence of events in the body, after what is stored of a session or user."""
    return _answer(
        body,
        user_id=body.user_id,
        session_id=body.session_id,
        events=tuple(_events(body)),
        candidates=tuple(body.candidates),
    )


def _events(body: RecommendationBody) -> list[Event]:
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
    return events
