"""The requests that the clients make, as values: each method of the API once, for both clients."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys_client.api_types import EventIn, ImpressionIn, ItemIn, RecommendationBody
from recsys_client.client_errors import RecsysError

LONGEST_WAIT_SECONDS = 60.0
FIRST_WAIT_SECONDS = 0.25


@dataclass(frozen=True)
class Call:
    """One request; each may be sent again, as nothing is done twice by it."""

    method: str
    path: str  # below /api/v1
    query: Mapping[str, Any] = field(default_factory=dict)  # None: left out
    body: Any = None


def post_events(events: Sequence[EventIn]) -> Call:
    return Call("POST", "/events", body=list(events))


def recommend(question: RecommendationBody) -> Call:
    return Call("POST", "/recommendations", body=question)


def recommend_many(questions: Sequence[RecommendationBody]) -> Call:
    return Call("POST", "/recommendations/batch", body={"requests": list(questions)})


def similar(item_id: str, k: int) -> Call:
    return Call("GET", "/items/similar", {"item_id": item_id, "k": k})


def next_items(item_id: str, k: int) -> Call:
    return Call("GET", "/items/next", {"item_id": item_id, "k": k})


def popular(k: int, window_days: int, category: str | None) -> Call:
    return Call("GET", "/items/popular", {"k": k, "window": window_days, "category": category})


def put_items(items: Sequence[ItemIn]) -> Call:
    return Call("PUT", "/items", body=list(items))


def impressions(shown: ImpressionIn) -> Call:
    return Call("POST", "/impressions", body=shown)


def merge(user_id: str, session_id: str | None, other_user_id: str | None) -> Call:
    given = {"session_id": session_id, "from": other_user_id}
    body = {name: value for name, value in given.items() if value is not None}
    return Call("POST", "/users/merge", {"user_id": user_id}, body)


def attributes(user_id: str) -> Call:
    return Call("GET", "/users/attributes", {"user_id": user_id})


def set_attributes(user_id: str, values: Mapping[str, Any]) -> Call:
    return Call("PUT", "/users/attributes", {"user_id": user_id}, dict(values))


def delete_attributes(user_id: str) -> Call:
    return Call("DELETE", "/users/attributes", {"user_id": user_id})


def wait_seconds(failures: int, error: RecsysError) -> float:
    """How long to wait after so many failures: doubled each time, a random part of it, a minute at most;
    never less than the service asks for.
    """
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** min(failures, 10))
    return max(error.retry_after_seconds, longest * random.uniform(0.5, 1.0))  # noqa: S311
