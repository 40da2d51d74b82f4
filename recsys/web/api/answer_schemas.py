"""How items and answers go out: their shapes, and what each is made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from recsys.events.times import rfc3339
from recsys.serving.answers import Answer, RankedItem
from recsys.storage.entities.item_rows import StoredItem


class ItemOut(BaseModel):
    item_id: str
    title: str | None
    categories: list[str]
    price: float | None
    image: str | None
    available: bool
    properties: dict[str, Any]


class ReasonOut(BaseModel):
    item_id: str
    event_id: str
    timestamp: str
    share: float = Field(
        description="How much the item's score drops, as a share of it, if this event alone is left out: 0 to 1. Shares of several events overlap and can add up to more than 1"
    )


class RankedItemOut(BaseModel):
    item_id: str
    rank: int
    score: float
    source: str = Field(
        description="lstm, gru or sasrec, session_knn, transitions, popular, latest, pinned, promoted, …"
    )
    item: ItemOut | None
    reason: list[ReasonOut] | None = Field(
        description="With explain: the past events that raised the item most"
    )


class AnswerRowOut(BaseModel):
    """A titled part of an answer."""

    title: str
    logic: str
    about_item: str | None = Field(description="The item that the row is about")
    category: str | None
    item_ids: list[str] = Field(description="Its items, which are among the answer's")


class SeenOut(BaseModel):
    """The event types whose items an answer leaves out."""

    exclude_seen: str = Field(description="Event types by commas, all or none")
    why: str | None = Field(
        description="What the version has learned of its log, where that decided; else null"
    )


class RecommendationAnswer(BaseModel):
    recommendation_id: str
    user_id: str | None
    session_id: str | None
    model_version: str | None
    generated_at: str
    sequence_length: int
    last_event_id: str | None
    degraded: str | None = Field(description="Why the answer is a fallback or incomplete, or null")
    arm: str | None = Field(
        description="champion, control, experiment (an arm changed the answer), page, or null"
    )
    experiments: dict[str, str] = Field(description="Experiment -> arm, of those it is part of")
    items: list[RankedItemOut]
    scenario: str | None = Field(None, description="The stored scenario that was applied")
    scenario_version: int | None = None
    rows: list[AnswerRowOut] | None = Field(None, description="Of a scenario with titled rows")
    seen: SeenOut | None = Field(
        None, description="With explain: which seen items are left out, and why"
    )


def item_out(item: StoredItem) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "title": item.title,
        "categories": item.categories,
        "price": item.price,
        "image": item.image,
        "available": item.available,
        "properties": item.properties,
    }


def ranked_out(ranked: RankedItem) -> dict[str, Any]:
    return {
        "item_id": ranked.item_id,
        "rank": ranked.rank,
        "score": ranked.score,
        "source": ranked.source,
        "item": item_out(ranked.item) if ranked.item else None,
        "reason": None
        if ranked.reason is None
        else [
            {
                "item_id": reason.item_id,
                "event_id": reason.event_id,
                "timestamp": rfc3339(reason.timestamp_us),
                "share": reason.share,
            }
            for reason in ranked.reason
        ],
    }


def answer_out(answer: Answer) -> dict[str, Any]:
    told = {
        "recommendation_id": answer.recommendation_id,
        "user_id": answer.user_id,
        "session_id": answer.session_id,
        "model_version": answer.model_version,
        "generated_at": rfc3339(answer.generated_at_us),
        "sequence_length": answer.sequence_length,
        "last_event_id": answer.last_event_id,
        "degraded": answer.degraded,
        "arm": answer.arm,
        "experiments": {one.experiment: one.arm for one in answer.experiments},
        "items": [ranked_out(ranked) for ranked in answer.items],
    }
    if answer.scenario_version is not None:
        told["scenario"], told["scenario_version"] = answer.scenario, answer.scenario_version
    if answer.rows is not None:
        told["rows"] = [vars(row) for row in answer.rows]
    if answer.seen is not None:
        told["seen"] = vars(answer.seen)
    return told
