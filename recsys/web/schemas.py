"""The shapes of the REST API: what comes in, what goes out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from recsys.data.event_check import MAX_TYPE_LENGTH, text_problem
from recsys.data.events import MAX_ID_LENGTH
from recsys.data.times import rfc3339
from recsys.serving.answers import Answer, RankedItem
from recsys.serving.seen import MAX_TYPES, seen_problem
from recsys.storage.item_rows import StoredItem

MAX_EVENTS = 10_000
MAX_LIST = 1_000
MAX_CONDITIONS = 16
MAX_BATCH = 100


def _check_text(value: str) -> str:
    if value and (problem := text_problem(value, len(value))):
        raise ValueError(problem)
    return value


# Every text of a request: what holds a control character or half a surrogate pair, a database refuses.
Text = AfterValidator(_check_text)
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), Text]
TypeName = Annotated[str, Field(min_length=1, max_length=64), Text]
K = Annotated[int, Field(ge=1, le=1_000, description="How many items")]
Expression = Annotated[str, Field(min_length=3, max_length=512), Text]
Search = Annotated[str, Field(max_length=200), Text]
Cursor = Annotated[str, Field(max_length=1_000), Text]
Reason = Annotated[str, Field(min_length=1, max_length=500), Text]
Limit = Annotated[int, Field(ge=1, le=1_000, description="Most rows of a page")]


def _check_seen(value: str) -> str:
    if problem := seen_problem(value):
        raise ValueError(problem)
    return value


SeenTypes = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_TYPES * (MAX_TYPE_LENGTH + 1),
        json_schema_extra={"pattern": r"^[^,]{1,64}(,[^,]{1,64}){0,15}$"},
    ),
    AfterValidator(_check_seen),
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EventIn(Strict):
    """One event; `user_id` or `session_id` is needed."""

    item_id: Id
    user_id: Id | None = None
    session_id: Id | None = None
    event_type: TypeName = "view"
    timestamp: str | int | None = Field(
        None, description="RFC 3339 with an offset, or epoch milliseconds; default now"
    )
    event_id: Id | None = Field(None, description="Your idempotency key: a retry is a duplicate")
    value: float | None = None
    recommendation_id: Id | None = None
    properties: dict[str, Any] | None = None


class EventResult(BaseModel):
    index: int
    status: str = Field(description="accepted, duplicate or rejected")
    event_id: str | None
    error: str | None


class EventsAnswer(BaseModel):
    accepted: int
    duplicates: int
    rejected: int
    results: list[EventResult]


class RecommendationQuery(Strict):
    k: K | None = None
    exclude_seen: SeenTypes | None = Field(
        None,
        description="Event types by commas, whose items are left out; or all, or none, alone",
    )
    exclude_items: Annotated[list[Id], Field(max_length=MAX_LIST)] = []
    categories: Annotated[list[Id], Field(max_length=MAX_LIST)] = Field(
        [], description="Items of any of these"
    )
    filter: Annotated[list[Expression], Field(max_length=MAX_CONDITIONS)] = Field(
        [], description="NAME OP VALUE, such as price<50 or brand=Acme; all must be met"
    )
    boost: Annotated[list[Expression], Field(max_length=MAX_CONDITIONS)] = Field(
        [], description="NAME OP VALUE^FACTOR, such as brand=Acme^1.5: multiplies scores"
    )
    max_per_category: Annotated[int, Field(ge=1, le=1_000)] | None = None
    scenario: TypeName | None = Field(None, description="The place shown, for reports")
    page_of: Id | None = Field(None, description="A recommendation_id: the next k after it")
    explain: bool = Field(False, description="Name the past events behind each item")


class RecommendationByIdQuery(RecommendationQuery):
    user_id: Id


class RecommendationBody(RecommendationQuery):
    """A sequence of your own, of a stored session or user, or of both: `events` come last."""

    events: Annotated[list[dict[str, Any]], Field(max_length=MAX_LIST)] = Field(
        [], description="Events, oldest first; without a user or session they need none"
    )
    user_id: Id | None = None
    session_id: Id | None = None
    candidates: Annotated[list[Id], Field(max_length=10_000)] = Field(
        [], description="Rank these alone"
    )


class BatchBody(Strict):
    """Many at once; each is answered as by itself."""

    requests: Annotated[list[RecommendationBody], Field(min_length=1, max_length=MAX_BATCH)]


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
    share: float = Field(description="How much of the item's score rests on this event, 0..1")


class RankedItemOut(BaseModel):
    item_id: str
    rank: int
    score: float
    source: str = Field(description="lstm, session_knn, transitions, popular, latest, …")
    item: ItemOut | None
    reason: list[ReasonOut] | None = Field(
        description="With explain: the past events that raised the item most"
    )


class RecommendationAnswer(BaseModel):
    recommendation_id: str
    user_id: str | None
    session_id: str | None
    model_version: str | None
    generated_at: str
    sequence_length: int
    last_event_id: str | None
    degraded: str | None = Field(description="Why the answer is less than it should be, or null")
    arm: str | None = Field(description="champion, control, or null without a model")
    items: list[RankedItemOut]


class BatchAnswer(BaseModel):
    answers: list[RecommendationAnswer]


class ShownItem(BaseModel):
    item_id: str
    rank: int
    source: str
    score: float
    clicked: bool
    reason: list[dict[str, Any]] | None


class ReplayAnswer(BaseModel):
    """An answer as it was given."""

    recommendation_id: str
    generated_at: str
    user_id: str | None
    session_id: str | None
    model_version: str | None
    arm: str | None
    scenario: str | None
    page_of: str | None
    sequence_length: int | None
    last_event_id: str | None
    items: list[ShownItem]
    shown: list[str] | None = Field(description="What was really shown, where it was said")


class ImpressionIn(Strict):
    """What was really shown: of an answer, or of a list of your own."""

    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_LIST)]
    recommendation_id: Id | None = None
    user_id: Id | None = None
    session_id: Id | None = None
    scenario: TypeName | None = None


class ImpressionAnswer(BaseModel):
    recommendation_id: str


class UserAnswer(BaseModel):
    user_id: str
    events: int
    first_event_at: str | None
    last_event_at: str | None
    merged_users: list[str]
    merged_sessions: list[str]


class UserByIdQuery(Strict):
    user_id: Id


class ItemByIdQuery(Strict):
    item_id: Id


class StoredEvent(BaseModel):
    event_id: str
    user_id: str | None
    session_id: str | None
    item_id: str
    event_type: str
    timestamp: str
    value: float | None
    recommendation_id: str | None
    properties: dict[str, Any] | None


class EventPage(BaseModel):
    events: list[StoredEvent]
    next_cursor: str | None


class MergeBody(Strict):
    """Whose events become this user's: another user's, or an anonymous session's."""

    from_: Id | None = Field(None, alias="from", description="A user_id")
    session_id: Id | None = None


class MergeAnswer(BaseModel):
    user_id: str
    merged: str


class ErasureAnswer(BaseModel):
    """The receipt of an erasure."""

    user_id: str
    erased_at: str
    removed: dict[str, int] = Field(description="Rows removed, by what they were")
    notes: dict[str, str] = Field(description="What else there is, and what becomes of it")


class ReportQuery(Strict):
    hours: Annotated[int, Field(ge=1, le=8_760, description="Back from now")] = 24
    by: Annotated[list[Literal["model_version", "arm", "scenario", "source"]], Field()] = [
        "model_version",
        "arm",
    ]


class ReportRow(BaseModel):
    model_version: str | None = None
    arm: str | None = None
    scenario: str | None = None
    source: str | None = None
    shown: int = Field(description="Answers; items, where source is among `by`")
    clicks: int = Field(description="Answers with a click; items clicked, likewise")
    click_through: float | None
    low: float | None = Field(description="Lower end of the 95% interval")
    high: float | None


class Uplift(BaseModel):
    """Champion less control over the hours in which both answered."""

    difference: float
    low: float
    high: float
    hours: int


class ReportAnswer(BaseModel):
    since: str
    until: str
    rows: list[ReportRow]
    uplift: Uplift | None


class PromoteBody(Strict):
    reason: Reason = "by hand"


class ChampionAnswer(BaseModel):
    champion: str


class ItemListAnswer(BaseModel):
    items: list[RankedItemOut]


class ItemIn(Strict):
    item_id: Id
    title: str | None = None
    categories: list[Id] | None = None
    price: float | None = None
    image: str | None = None
    available: bool | None = None
    properties: dict[str, Any] | None = None


class ItemPatch(Strict):
    title: str | None = None
    categories: list[Id] | None = None
    price: float | None = None
    image: str | None = None
    available: bool | None = None
    properties: dict[str, Any] | None = None


class ItemResult(BaseModel):
    index: int
    status: str = Field(description="stored or rejected")
    item_id: str | None
    error: str | None


class ItemsAnswer(BaseModel):
    stored: int
    rejected: int
    results: list[ItemResult]


class ItemPage(BaseModel):
    items: list[ItemOut]
    next_cursor: str | None


class ItemQuery(Strict):
    q: Search | None = None
    category: Id | None = None
    item_id: Id | None = Field(None, description="Answers this item alone")
    limit: Limit = 100
    cursor: Cursor | None = None


class KQuery(Strict):
    k: K = 20


class KByIdQuery(KQuery):
    item_id: Id


class PopularQuery(KQuery):
    window: Annotated[int, Field(ge=1, le=3_650, description="Days")] = 7
    category: Id | None = None


class ModelOut(BaseModel):
    version: str
    created_at: str
    state: str
    champion: bool
    ranking: str
    data_start: str
    data_end: str
    events: int
    users: int
    items: int
    size_bytes: int
    verdict: dict[str, Any]
    facts: dict[str, Any]


class ModelPage(BaseModel):
    models: list[ModelOut]
    next_cursor: str | None


class PageQuery(Strict):
    limit: Limit = 50
    cursor: Cursor | None = None


class RunOut(BaseModel):
    run_id: int
    job: str
    state: str
    requested_by: str
    requested_at: str
    scheduled_at: str | None
    started_at: str | None
    finished_at: str | None
    estimated_end_at: str | None
    stage: str | None
    progress: float | None
    outcome: dict[str, Any] | None
    error: str | None
    resources: dict[str, Any] | None


class ScheduleOut(BaseModel):
    job: str
    trigger: str
    next_run_at: str | None
    paused: bool


class SchedulerOut(BaseModel):
    """Who leads, and when it last said so; null where none ever did."""

    holder: str | None
    renewed_at: str | None


class JobsAnswer(BaseModel):
    scheduler: SchedulerOut
    schedules: list[ScheduleOut]
    runs: list[RunOut]
    next_cursor: str | None


class HealthAnswer(BaseModel):
    status: str
    checks: dict[str, str]


def item_out(item: StoredItem) -> dict[str, Any]:
    return {name: getattr(item, name) for name in ItemOut.model_fields}


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
    return {
        "recommendation_id": answer.recommendation_id,
        "user_id": answer.user_id,
        "session_id": answer.session_id,
        "model_version": answer.model_version,
        "generated_at": rfc3339(answer.generated_at_us),
        "sequence_length": answer.sequence_length,
        "last_event_id": answer.last_event_id,
        "degraded": answer.degraded,
        "arm": answer.arm,
        "items": [ranked_out(ranked) for ranked in answer.items],
    }
