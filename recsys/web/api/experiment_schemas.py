"""Experiments over REST: the shapes of what is sent and answered."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from recsys.steering.experiment_spec import MAX_ARMS, MAX_NOTE, Arm, Metric
from recsys.web.api.report_routes import Uplift
from recsys.web.fields import Id, Strict, Text

Name = Annotated[str, Field(min_length=1, max_length=64), Text]
Share = Annotated[float, Field(gt=0, le=1, description="Share of all users and sessions")]


class ExperimentIn(Strict):
    name: Name = Field(description="a-z, 0-9, _ and -, at most 64")
    arms: tuple[Arm, ...] = Field(
        min_length=2,
        max_length=MAX_ARMS,
        description="The ways to answer; the others are compared with the first",
    )
    allocation: Share = 1.0
    metric: Metric = Field("conversion", description="The figure that decides")
    scenario: Name | None = Field(None, description="Whose answers alone are part of it")
    group: Name | None = Field(None, description="Experiments of one group share no user")
    include_pages: bool = Field(False, description="Count requests made with a page's key too")
    note: Annotated[str, Field(max_length=MAX_NOTE, description="Why it is tried"), Text] = ""


class StartBody(Strict):
    allocation: Share | None = Field(None, description="The draft's own, where it is not given")


class PromoteArmBody(Strict):
    arm: Name | None = Field(None, description="The arm that is surely better, where none is named")


class TesterBody(Strict):
    user_id: Id | None = Field(None, description="The user who sees the arm")
    session_id: Id | None = Field(None, description="Or the session")
    arm: Name | None = Field(None, description="null: no tester any more")


class Tester(BaseModel):
    user_id: str | None
    session_id: str | None
    arm: str


class ExperimentOut(BaseModel):
    name: str
    state: str
    arms: list[dict[str, Any]]
    allocation: float
    metric: str
    scenario: str | None
    group: str | None
    include_pages: bool
    note: str
    author: str
    created_at: str
    started_at: str | None
    stopped_at: str | None
    promoted: str | None


class MinimumDetectable(BaseModel):
    days: int
    units: int
    effect: float | None = Field(
        description="In the figure's own unit; null: too few outcomes to say"
    )
    relative: float | None


class ExperimentDetails(ExperimentOut):
    testers: list[Tester]
    minimum_detectable: list[MinimumDetectable] = Field(
        description="Before the start: what 7, 14 and 28 days can find, by the last seven"
    )


class ControlOut(BaseModel):
    """The experiment that is built in: the champion beside the one before it, over seven days."""

    share: float = Field(description="Of the users who get the control, `serving.control_share`")
    champion: str | None
    control: str | None
    answers: dict[str, int] = Field(description="By arm")
    uplift: Uplift | None


class ExperimentPage(BaseModel):
    experiments: list[ExperimentOut]
    control: ControlOut
    next_cursor: str | None


class PromotedAnswer(BaseModel):
    name: str
    promoted: str


class DraftDeleted(BaseModel):
    deleted: str


class IntervalOut(BaseModel):
    estimate: float
    low: float | None = Field(description="null: too few outcomes to say")
    high: float | None


class ArmOut(BaseModel):
    name: str
    share: float
    users: int = Field(description="Users, and sessions of who is not known")
    answers: int
    clicks: int = Field(description="Answers with a click")
    converted: int = Field(description="Users with a conversion")
    conversions: int
    value: float
    click_through: IntervalOut | None
    conversion: IntervalOut | None = Field(description="Share of users with a conversion")
    value_per_user: IntervalOut | None
    uplift: dict[str, IntervalOut | None] = Field(description="Over the first arm, by figure")


class LookOut(BaseModel):
    hour: str
    uplift: dict[str, IntervalOut | None] = Field(description="Of the figure that decides, by arm")


class ShadowOut(BaseModel):
    arm: str
    answers: int
    overlap: float = Field(description="Mean share of the items shown that it has too")
    milliseconds: float
    clicked: int
    clicked_too: int = Field(description="Of the clicked items, those that it has too")


class WordOut(BaseModel):
    """What the gate said of an arm's model version, and the guard."""

    arm: str
    version: str
    state: str
    gate: str
    guard: str | None


class ExperimentReportOut(BaseModel):
    name: str
    state: str
    metric: str
    started_at: str | None
    stopped_at: str | None
    verdict: str
    leader: str | None
    sample_ratio_p: float
    sample_ratio_holds: bool
    confidence: float = Field(description="Of each uplift's interval, at all looks together")
    arms: list[ArmOut]
    looks: list[LookOut]
    shadows: list[ShadowOut]
    words: list[WordOut]
