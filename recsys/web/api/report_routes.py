"""Reports of what was answered: what was clicked of it, and how good it was just before each click."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from flask import Blueprint
from pydantic import AwareDatetime, BaseModel, Field

from recsys.errors import InputError
from recsys.events.times import DAY_US, EPOCH, HOUR_US, rfc3339, to_us
from recsys.serving.uplift import rate, uplift
from recsys.storage.dashboard.conversion_figures import (
    By,
    conversion_report,
)
from recsys.storage.entities import answer_count_rows, live_quality_rows
from recsys.storage.entities.live_quality_rows import LiveQuality, System
from recsys.web.fields import Strict
from recsys.web.operations import operation
from recsys.web.services import now_us, services

blueprint = Blueprint("reports", __name__, url_prefix="/api/v1")
DEFAULT_DAYS, MAX_DAYS, MAX_HOURLY = 7, 366, 31  # of conversions; hour by hour fewer


class HoursQuery(Strict):
    hours: Annotated[int, Field(ge=1, le=8_760, description="Hours back from now")] = 24


class ClickThroughQuery(HoursQuery):
    by: list[Literal["model_version", "arm", "scenario", "source"]] = Field(
        ["model_version", "arm"]
    )


class ClickThroughRow(BaseModel):
    model_version: str | None = None
    arm: str | None = None
    scenario: str | None = None
    source: str | None = None
    shown: int = Field(description="Answers; items, if `by` contains source")
    clicks: int = Field(description="Answers with a click; clicked items, if `by` contains source")
    click_through: float | None
    low: float | None = Field(description="Lower end of the 95% interval")
    high: float | None


class Uplift(BaseModel):
    """Champion minus control over the hours in which both served."""

    difference: float
    low: float
    high: float
    hours: int


class ClickThroughAnswer(BaseModel):
    since: str
    until: str
    rows: list[ClickThroughRow]
    uplift: Uplift | None


class ConversionsQuery(Strict):
    by: list[By] = Field(["scenario", "arm"], min_length=1, max_length=6)
    from_: AwareDatetime | None = Field(
        None, alias="from", description="Of answers from the start of this hour on; 7 days back"
    )
    to: AwareDatetime | None = Field(None, description="Of answers before this time; now")
    pages: bool = Field(
        True,
        description="false: without conversions that a page told of, whose key anybody can read",
    )


class ConversionsRow(BaseModel):
    """What answers brought so far: conversions of items that they showed, whenever those came."""

    scenario: str | None = None
    arm: str | None = None
    version: str | None = None
    source: str | None = None
    category: str | None = None
    hour: str | None = None
    shown: int | None = Field(description="Answers; by source, items; by category, null")
    clicks: int = Field(description="Answers with a click; by source or category, clicked items")
    conversions: float = Field(description="Each counts once, shared among the answers it is of")
    returns: float
    converted: int = Field(
        description="Answers that a conversion counts for; by source or category, items of answers"
    )
    conversion_rate: float | None = Field(description="Of what was shown, what was converted")
    conversion_rate_low: float | None = Field(description="Lower end of its 95% interval")
    conversion_rate_high: float | None
    value: float = Field(description="In `currency`, less returns")
    other_currency: float = Field(description="Conversions and returns whose value is left out")
    users: int | None = Field(
        description="Users and sessions with an answer; null by source or category, and where answers "
        "of the range are stored no more"
    )
    value_per_user: float | None
    low: float | None = Field(description="Lower end of the 95% interval of value_per_user")
    high: float | None


class ConversionsAnswer(BaseModel):
    since: str
    until: str
    currency: str | None = Field(description="attribution.currency")
    rows: list[ConversionsRow]


class SystemFigures(BaseModel):
    recall_at_20: float | None = Field(description="Share of targets among the first 20 items")
    mrr_at_20: float | None = Field(description="Mean of 1/rank, 0 beyond the first 20")


class LiveQualityFigures(BaseModel):
    """Over a sample of positions: what came next, ranked as just before."""

    positions: int
    unknown_share: float | None = Field(description="Of targets that no training had seen")
    live: SystemFigures = Field(description="As it was served")
    still: SystemFigures = Field(description="The version without what others did since its data")
    popular: SystemFigures = Field(description="What was popular in the week before, alone")


class LiveQualityHour(LiveQualityFigures):
    hour: str


class LiveQualityAnswer(LiveQualityFigures):
    since: str
    until: str
    by_hour: list[LiveQualityHour]


@operation(
    blueprint,
    "GET",
    "/reports/click-through",
    scope="read",
    query=ClickThroughQuery,
    answer=ClickThroughAnswer,
)
def click_through(query: ClickThroughQuery) -> dict[str, Any]:
    """Impressions and clicks by version, arm, scenario or source, and the champion's uplift."""
    since, until = _span(query)
    with services().database.connect() as connection:
        rows = answer_count_rows.counts(connection, since, until, list(dict.fromkeys(query.by)))
        hourly = answer_count_rows.counts(connection, since, until, ("hour_us", "arm"))
    return {
        "since": rfc3339(since),
        "until": rfc3339(until),
        "rows": [{**row, **rate(row["shown"], row["clicks"])} for row in rows],
        "uplift": uplift(hourly),
    }


@operation(
    blueprint,
    "GET",
    "/reports/conversions",
    scope="read",
    query=ConversionsQuery,
    answer=ConversionsAnswer,
)
def conversions(query: ConversionsQuery) -> dict[str, Any]:
    """What answers brought: clicks, conversions and their value by what the answers were."""
    since, until = _between(query.from_, query.to, MAX_HOURLY if "hour" in query.by else MAX_DAYS)
    by = list(dict.fromkeys(query.by))
    currency = services().settings.attribution.currency
    with services().database.connect() as connection:
        rows = conversion_report(connection, since, until, by, currency, pages=query.pages)
    return {
        "since": rfc3339(since),
        "until": rfc3339(until),
        "currency": currency or None,
        "rows": [row.to_json(by) for row in rows],
    }


@operation(
    blueprint,
    "GET",
    "/reports/live-quality",
    scope="read",
    query=HoursQuery,
    answer=LiveQualityAnswer,
)
def live_quality(query: HoursQuery) -> dict[str, Any]:
    """Recall@20 and MRR@20 of what would have been answered just before each click, by hour."""
    since, until = _span(query)
    with services().database.connect() as connection:
        hours = live_quality_rows.hours_between(connection, since, until)
    return {
        "since": rfc3339(since),
        "until": rfc3339(until),
        **_figures(sum(hours, LiveQuality(since))),
        "by_hour": [{"hour": rfc3339(one.hour_us), **_figures(one)} for one in hours],
    }


def _span(query: HoursQuery) -> tuple[int, int]:
    """[since, until) in us; it begins with a whole hour."""
    until = now_us()
    return (until // HOUR_US - query.hours + 1) * HOUR_US, until


def _between(start: datetime | None, end: datetime | None, days: int) -> tuple[int, int]:
    """[since, until) in us; it begins with a whole hour. Raises InputError."""
    until = now_us() if end is None else _checked("to", end)
    since = until - DEFAULT_DAYS * DAY_US if start is None else _checked("from", start)
    since -= since % HOUR_US
    if since >= until:
        raise InputError("from", rfc3339(since), "expected a time before `to`")
    if until - since > days * DAY_US + HOUR_US:
        raise InputError("from", rfc3339(since), f"expected at most {days} days before `to`")
    return since, until


def _checked(name: str, moment: datetime) -> int:
    latest = EPOCH + timedelta(days=365 * 200)
    if not EPOCH <= moment <= latest:
        raise InputError(name, moment.isoformat(), "expected a time from 1970 to 2169")
    return to_us(moment)


def _figures(found: LiveQuality) -> dict[str, Any]:
    def of(system: System) -> dict[str, float | None]:
        return {"recall_at_20": found.recall(system), "mrr_at_20": found.mrr(system)}

    return {
        "positions": found.positions,
        "unknown_share": found.unknown_share,
        **{system: of(system) for system in live_quality_rows.SYSTEMS},
    }
