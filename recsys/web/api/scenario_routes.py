"""Scenarios: how places of the shop are answered."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint
from pydantic import BaseModel, Field

from recsys.commands import scenarios
from recsys.errors import NotFoundError
from recsys.events.times import rfc3339
from recsys.serving.steering.scenario_estimate import EstimateLimits, estimate_scenario
from recsys.steering.scenario_spec import ScenarioSpec
from recsys.storage.entities import scenario_rows
from recsys.storage.entities.scenario_rows import StoredScenario
from recsys.web.cursors import read_number, write_cursor
from recsys.web.fields import PageQuery, Strict
from recsys.web.operations import operation
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("scenarios", __name__, url_prefix="/api/v1")

ESTIMATE_LIMITS = EstimateLimits(answers=1_000, days=14, seconds=10.0)  # of one request
EXAMPLE = {
    "logic": "for_you",
    "k": 12,
    "filter": "price<50",
    "boosts": [{"when": "brand=Acme", "factor": 1.5}],
}


class ScenarioOut(BaseModel):
    """A version of a scenario."""

    name: str
    version: int
    author: str
    created_at: str
    note: str | None = Field(description="Such as which version it goes back to")
    spec: dict[str, Any] = Field(description="As it was put; what has its default is left out")


class ScenariosAnswer(BaseModel):
    scenarios: list[ScenarioOut]


class VersionsAnswer(BaseModel):
    versions: list[ScenarioOut]
    next_cursor: str | None


class PutQuery(Strict):
    based_on: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="The version that was read before, 0 where there was none: "
        "409 names who changed it, where another answers by now. By default whatever answers is replaced",
    )


class EstimateQuery(Strict):
    model_version: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None, description="The model that would answer; by default the champion"
    )


class IntervalOut(BaseModel):
    """A figure with its 95% interval over visitors."""

    mean: float = Field(description="The estimate")
    low: float
    high: float


class RewardOut(BaseModel):
    """What an answer brings on average."""

    candidate: IntervalOut = Field(description="By the version in the body")
    current: IntervalOut = Field(description="By the version that answers, without exploration")
    lift: IntervalOut = Field(description="candidate / current - 1")


class EstimateAnswer(BaseModel):
    """What another version would have earned in place of the current one."""

    scenario: str
    version: int = Field(description="The version that gave the answers")
    model_version: str | None = Field(
        description="The model that would answer; null for the champion"
    )
    since: str = Field(description="The oldest answer that was asked again, in UTC")
    until: str = Field(description="The newest answer that was asked again, in UTC")
    answers: int = Field(description="Answers that were asked again")
    visitors: int = Field(description="Users, and sessions without one, who got them")
    effective_visitors: float = Field(description="How many visitors they are worth for the body")
    overlap: float = Field(
        description="Share, 0 to 1, of what the body would show that may have been shown"
    )
    examination_decay: float | None = Field(
        description="Positions are looked at like rank ** -decay; null where too little was explored"
    )
    clicks: RewardOut | None = Field(description="null where too few would count")
    conversions: RewardOut | None = Field(description="null where too few would count")
    value: RewardOut | None = Field(
        description="In the currency of [attribution]; null where too few would count"
    )


class RollbackBody(Strict):
    version: Annotated[int, Field(ge=1)] | None = Field(
        None, description="The version to go back to; by default the one before the present"
    )


@operation(blueprint, "GET", "/scenarios", scope="read", answer=ScenariosAnswer)
def list_scenarios() -> dict[str, Any]:
    """List the scenarios that answer, by name; there are at most 200."""
    with services().database.connect() as connection:
        found = scenario_rows.list_scenarios(connection)
    return {"scenarios": [_out(one) for one in found]}


@operation(
    blueprint,
    "GET",
    "/scenarios/<id:name>",
    scope="read",
    answer=ScenarioOut,
    statuses=(200, 404),
)
def get_scenario(name: str) -> dict[str, Any]:
    """Get the version of a scenario that answers."""
    with services().database.connect() as connection:
        found = scenario_rows.get_scenario(connection, name)
    if found is None:
        raise NotFoundError("scenario", name)
    return _out(found)


@operation(
    blueprint,
    "PUT",
    "/scenarios/<id:name>",
    scope="admin",
    query=PutQuery,
    body=ScenarioSpec,
    answer=ScenarioOut,
    statuses=(200, 409),
    example=EXAMPLE,
)
def put_scenario(name: str, query: PutQuery, body: ScenarioSpec) -> dict[str, Any]:
    """Create a scenario or its next version, which answers from the next request on."""
    shared = services()
    stored = scenarios.put_scenario(
        shared.database,
        actor(),
        name,
        body,
        now_us(),
        shared.recommender.catalogue,
        query.based_on,
    )
    return _out(stored)


@operation(
    blueprint,
    "DELETE",
    "/scenarios/<id:name>",
    scope="admin",
    answer=ScenarioOut,
    statuses=(200, 404),
)
def delete_scenario(name: str) -> dict[str, Any]:
    """Delete a scenario and return it; its name is a label for reports again, its versions stay."""
    return _out(scenarios.delete_scenario(services().database, actor(), name, now_us()))


@operation(
    blueprint,
    "GET",
    "/scenarios/<id:name>/versions",
    scope="read",
    query=PageQuery,
    answer=VersionsAnswer,
    statuses=(200, 404),
)
def list_scenario_versions(name: str, query: PageQuery) -> dict[str, Any]:
    """List the versions of a scenario, newest first; those of a deleted one too."""
    before = read_number(query.cursor)
    with services().database.connect() as connection:
        found = scenario_rows.list_versions(connection, name, query.limit, before)
    if not found and before is None:
        raise NotFoundError("scenario", name)
    more = len(found) == query.limit
    return {
        "versions": [_out(one) for one in found],
        "next_cursor": write_cursor(str(found[-1].version)) if more else None,
    }


@operation(
    blueprint,
    "POST",
    "/scenarios/<id:name>/rollback",
    scope="admin",
    body=RollbackBody,
    answer=ScenarioOut,
    statuses=(200, 404, 409),
    example={"version": 1},
)
def roll_back_scenario(name: str, body: RollbackBody) -> dict[str, Any]:
    """Go back to an earlier version of a scenario, which gets a new number."""
    return _out(scenarios.roll_back(services().database, actor(), name, body.version, now_us()))


@operation(
    blueprint,
    "POST",
    "/scenarios/<id:name>/estimate",
    scope="admin",
    query=EstimateQuery,
    body=ScenarioSpec,
    answer=EstimateAnswer,
    statuses=(200, 404, 409),
    example={"logic": "for_you", "k": 12, "diversity": 0.3},
)
def estimate_scenario_version(
    name: str, query: EstimateQuery, body: ScenarioSpec
) -> dict[str, Any]:
    """Estimate what another version of a scenario, or another model, would have earned, without storing it.

    From the newest answers of the last 14 days, at most 1,000 and what 10 seconds suffice for; for a
    `model_version`, of those after its data. 409 says why the log cannot tell.
    """
    shared, now = services(), now_us()
    with shared.database.connect() as connection:
        scenarios.check_spec(connection, body, shared.recommender.catalogue, now)
    found = estimate_scenario(
        shared.recommender, name, body, ESTIMATE_LIMITS, now, model_version=query.model_version
    )
    return found.plain


def _out(stored: StoredScenario) -> dict[str, Any]:
    return {
        "name": stored.name,
        "version": stored.version,
        "author": stored.author,
        "created_at": rfc3339(stored.created_at_us),
        "note": stored.note,
        "spec": stored.spec.plain,
    }
