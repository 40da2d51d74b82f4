"""Written by tools/client_types.py from the API's document; not to be edited."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class EventIn(TypedDict):
    item_id: str | int
    user_id: NotRequired[str | int]
    session_id: NotRequired[str | int]
    event_type: NotRequired[str]
    timestamp: NotRequired[str | int]
    event_id: NotRequired[str | int]
    value: NotRequired[float]
    recommendation_id: NotRequired[str | int]
    properties: NotRequired[dict[str, Any]]


class EventDetails(TypedDict):
    user_id: NotRequired[str | int]
    session_id: NotRequired[str | int]
    timestamp: NotRequired[str | int]
    event_id: NotRequired[str | int]
    value: NotRequired[float]
    recommendation_id: NotRequired[str | int]
    properties: NotRequired[dict[str, Any]]


class RecommendationBody(TypedDict):
    k: NotRequired[int]
    exclude_seen: NotRequired[str]
    exclude_items: NotRequired[list[str]]
    categories: NotRequired[list[str]]
    filter: NotRequired[list[str]]
    boost: NotRequired[list[str]]
    max_per_category: NotRequired[int]
    for_items: NotRequired[list[str]]
    scenario: NotRequired[str]
    page_of: NotRequired[str]
    explain: NotRequired[bool]
    events: NotRequired[list[dict[str, Any]]]
    user_id: NotRequired[str]
    session_id: NotRequired[str]
    candidates: NotRequired[list[str]]


class ImpressionIn(TypedDict):
    items: list[str]
    recommendation_id: NotRequired[str]
    user_id: NotRequired[str]
    session_id: NotRequired[str]
    scenario: NotRequired[str]


class ItemIn(TypedDict):
    item_id: str
    title: NotRequired[str | None]
    categories: NotRequired[list[str] | None]
    price: NotRequired[float | None]
    image: NotRequired[str | None]
    available: NotRequired[bool | None]
    properties: NotRequired[dict[str, Any] | None]


MergeBody = TypedDict(
    "MergeBody",
    {
        "from": NotRequired[str],
        "session_id": NotRequired[str],
    },
)


class EventResult(TypedDict):
    index: int
    status: str
    event_id: str | None
    error: str | None


class EventsAnswer(TypedDict):
    accepted: int
    duplicates: int
    rejected: int
    results: list[EventResult]


class ItemOut(TypedDict):
    item_id: str
    title: str | None
    categories: list[str]
    price: float | None
    image: str | None
    available: bool
    properties: dict[str, Any]


class ReasonOut(TypedDict):
    item_id: str
    event_id: str
    timestamp: str
    share: float


class RankedItemOut(TypedDict):
    item_id: str
    rank: int
    score: float
    source: str
    item: ItemOut | None
    reason: list[ReasonOut] | None


class AnswerRowOut(TypedDict):
    title: str
    logic: str
    about_item: str | None
    category: str | None
    item_ids: list[str]


class SeenOut(TypedDict):
    exclude_seen: str
    why: str | None


class RecommendationAnswer(TypedDict):
    recommendation_id: str
    user_id: str | None
    session_id: str | None
    model_version: str | None
    generated_at: str
    sequence_length: int
    last_event_id: str | None
    degraded: str | None
    arm: str | None
    experiments: dict[str, str]
    items: list[RankedItemOut]
    scenario: NotRequired[str | None]
    scenario_version: NotRequired[int | None]
    rows: NotRequired[list[AnswerRowOut] | None]
    seen: NotRequired[SeenOut | None]


class BatchAnswer(TypedDict):
    answers: list[RecommendationAnswer]


class ItemListAnswer(TypedDict):
    items: list[RankedItemOut]


class ImpressionAnswer(TypedDict):
    recommendation_id: str


class ItemResult(TypedDict):
    index: int
    status: str
    item_id: str | None
    error: str | None


class ItemsAnswer(TypedDict):
    stored: int
    rejected: int
    results: list[ItemResult]


class MergeAnswer(TypedDict):
    user_id: str
    merged: str


class AttributesAnswer(TypedDict):
    user_id: str
    attributes: dict[str, Any]
    created_at: str
    updated_at: str


class FieldError(TypedDict):
    field: str
    message: str


class Problem(TypedDict):
    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError]
    request_id: str
