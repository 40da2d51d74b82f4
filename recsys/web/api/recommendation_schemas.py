"""What recommendations and impressions take and answer."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, Field

from recsys.config import ServingSettings
from recsys.config.exclude_seen import chosen
from recsys.errors import InputError
from recsys.serving.answers import Boost, Request
from recsys.steering.expressions.reading import read_condition
from recsys.web.api.answer_schemas import RecommendationAnswer
from recsys.web.fields import MAX_LIST, Condition, Id, K, SeenTypes, Strict, TypeName

MAX_CONDITIONS = 16
MAX_FACTOR = 1_000
MAX_BATCH = 100
MAX_FOR_ITEMS = 50
MAX_SCENARIOS = 20  # of one page
NONE: Any = ()  # a list without elements; Pydantic copies a list anew for every request


class RecommendationQuery(Strict):
    k: K | None = None
    exclude_seen: SeenTypes | None = Field(
        None,
        description="Event types, separated by commas, whose items are excluded; or one of all, none and "
        "true (the configured types). A type that no event has is refused",
    )
    exclude_items: Annotated[list[Id], Field(max_length=MAX_LIST)] = Field(NONE)
    categories: Annotated[list[Id], Field(max_length=MAX_LIST)] = Field(
        NONE, description="Only items in any of these"
    )
    filter: Annotated[list[Condition], Field(max_length=MAX_CONDITIONS)] = Field(
        NONE,
        description="NAME OP VALUE, such as price<50 or brand=Acme, or an expression, such as "
        "item.price < 50 && item.brand == last.brand; all must hold. A name that no item has is refused",
    )
    boost: Annotated[list[Condition], Field(max_length=MAX_CONDITIONS)] = Field(
        NONE, description="CONDITION^FACTOR, such as brand=Acme^1.5: multiplies scores"
    )
    max_per_category: Annotated[int, Field(ge=1, le=1_000)] | None = None
    for_items: Annotated[list[Id], Field(max_length=MAX_FOR_ITEMS)] = Field(
        NONE,
        description="The items that the page is about, such as those of the cart: they are left out, and "
        "a scenario of similar, next or bought-together items ranks by them",
    )
    scenario: TypeName | None = Field(
        None,
        description="A stored scenario, which says how to answer and which the other parameters narrow; "
        "any other name, such as home or basket, is a label for reports",
    )
    page_of: Id | None = Field(
        None, description="A recommendation_id: return the next k items after it"
    )
    explain: bool = Field(False, description="Return the past events behind each item")

    def request(self, serving: ServingSettings) -> Request:
        """What is asked for, where nothing is said as `serving` has it. Raises InputError."""
        left_open = [name for name in ("k", "exclude_seen") if getattr(self, name) is None]
        return Request(
            k=self.k or serving.default_k,
            exclude_seen=chosen(self.exclude_seen, serving.exclude_seen),
            exclude_items=frozenset(self.exclude_items),
            categories=frozenset(self.categories),
            conditions=tuple(read_condition(text, "filter") for text in self.filter),
            boosts=tuple(_boost(text) for text in self.boost),
            max_per_category=self.max_per_category,
            for_items=tuple(self.for_items),
            scenario=self.scenario,
            left_open=frozenset(left_open),
            page_of=self.page_of,
            explain=self.explain,
        )


def _boost(text: str) -> Boost:
    condition, mark, factor = text.rpartition("^")
    try:
        number = float(factor) if mark else math.nan
    except ValueError:
        number = math.nan
    if not 0 <= number <= MAX_FACTOR:
        raise InputError("boost", text, f"expected CONDITION^FACTOR, FACTOR 0..{MAX_FACTOR}")
    return Boost(read_condition(condition, "boost"), number)


class RecommendationByIdQuery(RecommendationQuery):
    user_id: Id


class RecommendationBody(RecommendationQuery):
    """A sequence given in the body, of a stored session or user, or both; `events` come last."""

    events: Annotated[list[dict[str, Any]], Field(max_length=MAX_LIST)] = Field(
        NONE, description="Events, oldest first; they need no user or session of their own"
    )
    user_id: Id | None = None
    session_id: Id | None = None
    candidates: Annotated[list[Id], Field(max_length=10_000)] = Field(
        NONE, description="Rank only these"
    )


class PageScenario(RecommendationQuery):
    """One scenario of a page, narrowed as a request of its own would narrow it."""

    scenario: TypeName = Field(description="A stored scenario, or a label for reports")


class PageBody(Strict):
    """Several scenarios of one page, for one visitor. Those that come first choose first."""

    scenarios: Annotated[
        list[PageScenario],
        Field(min_length=1, max_length=MAX_SCENARIOS, description="In the order they are answered"),
    ]
    events: Annotated[list[dict[str, Any]], Field(max_length=MAX_LIST)] = Field(
        [], description="Events, oldest first; they need no user or session of their own"
    )
    user_id: Id | None = None
    session_id: Id | None = None


class BatchBody(Strict):
    """Several requests; each is answered as if sent alone."""

    requests: Annotated[list[RecommendationBody], Field(min_length=1, max_length=MAX_BATCH)]


class BatchAnswer(BaseModel):
    answers: list[RecommendationAnswer]


class ShownItem(BaseModel):
    item_id: str
    rank: int
    source: str
    score: float
    propensity: float | None = Field(
        description="The chance the item had to stand at its rank, where the scenario explores"
    )
    clicked: bool
    reason: list[dict[str, Any]] | None


class ReplayAnswer(BaseModel):
    """A stored answer."""

    recommendation_id: str
    generated_at: str
    user_id: str | None
    session_id: str | None
    model_version: str | None
    arm: str | None
    experiments: dict[str, str] = Field(description="Experiment -> arm, of those it counts in")
    scenario: str | None
    scenario_version: int | None
    page_of: str | None
    sequence_length: int | None
    last_event_id: str | None
    items: list[ShownItem]
    shown: list[str] | None = Field(description="What was actually shown, if reported")


class ImpressionIn(Strict):
    """What was actually shown: items of an answer, or of a list of your own.

    A page reports items of an answer to its session, with recommendation_id and session_id.
    """

    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_LIST)] = Field(
        description="IDs of the items that were shown, in order"
    )
    recommendation_id: Id | None = None
    user_id: Id | None = None
    session_id: Id | None = None
    scenario: TypeName | None = None


class ImpressionAnswer(BaseModel):
    recommendation_id: str
