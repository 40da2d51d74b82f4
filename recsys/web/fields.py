"""What requests are made of: the fields that several resources take, each with its bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from recsys.events.frame import MAX_ID_LENGTH
from recsys.ingest.event_body import MAX_TYPE_LENGTH, text_problem
from recsys.serving.seen import MAX_TYPES, seen_problem

MAX_ROWS = 10_000  # of a bulk post
MAX_LIST = 1_000


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


class PageQuery(Strict):
    limit: Limit = 50
    cursor: Cursor | None = None
