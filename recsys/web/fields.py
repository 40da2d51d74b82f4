"""What requests are made of: the fields that several resources take, each with its bounds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from recsys.config.exclude_seen import MAX_EXCLUDE_SEEN, check_exclude_seen
from recsys.ingest.event_body import id_text
from recsys.steering.expressions import MAX_LENGTH
from recsys.text_rules import MAX_ID_LENGTH, stored_text_problem

MAX_ROWS = 10_000  # of a bulk post
MAX_LIST = 1_000
MAX_FIELDS = 100  # of one object, most of which are unknown then


def _check_text(value: str) -> str:
    if value and (problem := stored_text_problem(value, len(value))):
        raise ValueError(problem)
    return value


# Every text of a request: what holds a control character or half a surrogate pair, a database refuses.
Text = AfterValidator(_check_text)
# Ids may be whole numbers, as shops count their items.
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), Text, BeforeValidator(id_text)]
TypeName = Annotated[str, Field(min_length=1, max_length=64), Text]
K = Annotated[int, Field(ge=1, le=1_000, description="Number of items")]
# A condition of items, behind which a boost has its factor.
Condition = Annotated[str, Field(min_length=3, max_length=MAX_LENGTH + 20), Text]
Search = Annotated[str, Field(max_length=200), Text]
Cursor = Annotated[str, Field(max_length=1_000), Text]
Reason = Annotated[str, Field(min_length=1, max_length=500), Text]
Limit = Annotated[int, Field(ge=1, le=1_000, description="Maximum number of rows per page")]


SeenTypes = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_EXCLUDE_SEEN,
        json_schema_extra={"pattern": r"^[^,]{1,64}(,[^,]{1,64}){0,15}$"},
    ),
    AfterValidator(check_exclude_seen),
]


class Strict(BaseModel):
    """A model of what is sent. One with far too many fields is refused before each is told of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _check_number(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > MAX_FIELDS:
            raise ValueError(f"expected at most {MAX_FIELDS} fields, not {len(given):,}")
        return given


class PageQuery(Strict):
    limit: Limit = 50
    cursor: Cursor | None = None
