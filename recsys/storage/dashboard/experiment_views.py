"""What is told of an experiment: its report, how it went by the hour, and what could be found before it starts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, case, func, select

from recsys.errors import InputError
from recsys.events.times import DAY_US, rfc3339
from recsys.steering.event_value import ConversionRules
from recsys.steering.experiment_report import (
    ArmReport,
    Detectable,
    ExperimentReport,
    UnitSums,
    detectable,
    interval_json,
    make_report,
    verdict,
)
from recsys.steering.experiment_spec import ExperimentSpec
from recsys.storage.entities import experiment_unit_rows, shadow_rows, version_rows
from recsys.storage.entities.audit_rows import GUARD
from recsys.storage.entities.experiment_rows import ExperimentRow
from recsys.storage.entities.shadow_rows import ShadowFigures
from recsys.storage.schema.tables import (
    attributed_clicks,
    deployments,
    events,
    impressions,
    model_versions,
)

LOOKS = 24 * 90  # hours that a report goes back
POINTS = 200  # of its line
PLAN_DAYS = (7, 14, 28)
USUAL_DAYS = 7  # that are looked at before a start
MOST = 200_000  # units, and conversions, that are looked at


@dataclass(frozen=True)
class Point:
    """How the arms stood at the end of an hour."""

    hour_us: int
    report: ExperimentReport


@dataclass(frozen=True)
class Word:
    """What gate and guard said of an arm's model version."""

    arm: str
    version: str
    state: str
    gate: str
    guard: str | None  # why it was rolled back, if it was


@dataclass(frozen=True)
class ExperimentView:
    """All that is told of one experiment."""

    row: ExperimentRow
    report: ExperimentReport
    points: list[Point]
    shadows: list[ShadowFigures]
    words: list[Word]

    def plain(self) -> dict[str, Any]:
        """JSON-ready."""
        row, report = self.row, self.report
        return {
            "name": row.name,
            "state": row.state,
            "metric": row.spec.metric,
            "started_at": None if row.started_at_us is None else rfc3339(row.started_at_us),
            "stopped_at": None if row.stopped_at_us is None else rfc3339(row.stopped_at_us),
            "verdict": verdict(row.spec, report),
            "leader": report.leader,
            "sample_ratio_p": round(report.sample_ratio_p, 6),
            "sample_ratio_holds": report.sample_ratio_holds,
            "confidence": 1 - report.alpha,
            "arms": [_arm(one) for one in report.arms],
            "looks": [
                {
                    "hour": rfc3339(point.hour_us),
                    "uplift": {
                        arm.name: interval_json(arm.uplift[row.spec.metric])
                        for arm in point.report.arms[1:]
                    },
                }
                for point in self.points
            ],
            "shadows": [asdict(one) for one in self.shadows],
            "words": [asdict(one) for one in self.words],
        }


def view(connection: Connection, row: ExperimentRow, *, with_looks: bool = True) -> ExperimentView:
    """The report as it stands; how it went by the hour `with_looks` alone."""
    looks = experiment_unit_rows.looks(connection, row.name, LOOKS) if with_looks else []
    step = max(1, -(-len(looks) // POINTS))
    kept = looks[(len(looks) - 1) % step :: step]  # the newest is among them
    return ExperimentView(
        row=row,
        report=make_report(row.spec, experiment_unit_rows.sums(connection, row.name)),
        points=[Point(hour_us, make_report(row.spec, sums)) for hour_us, sums in kept],
        shadows=[
            shadow_rows.figures(connection, row.name, arm.name)
            for arm in row.spec.arms
            if arm.shadow
        ],
        words=_words(connection, row.spec),
    )


def position(cursor: str | None) -> tuple[int, str] | None:
    """Where a page of experiments goes on: the text of its cursor. Raises InputError."""
    if cursor is None:
        return None
    at_us, _, name = cursor.partition(" ")
    if not (at_us.isascii() and at_us.isdigit() and len(at_us) < 19):
        raise InputError("cursor", cursor, "expected the next_cursor of an earlier page")
    return int(at_us), name


def plan(
    connection: Connection, spec: ExperimentSpec, rules: ConversionRules, now_us: int
) -> list[Detectable]:
    """What an experiment could find after so many days, by what happened in the USUAL_DAYS before."""
    usual = usual_sums(connection, spec.scenario, rules, now_us - USUAL_DAYS * DAY_US)
    return detectable(spec, usual, USUAL_DAYS, PLAN_DAYS)


def plan_json(found: Sequence[Detectable]) -> list[dict[str, Any]]:
    """JSON-ready, rounded."""
    return [
        {
            "days": one.days,
            "units": one.units,
            "effect": None if one.effect is None else round(one.effect, 6),
            "relative": None if one.relative is None else round(one.relative, 4),
        }
        for one in found
    ]


def usual_sums(
    connection: Connection, scenario: str | None, rules: ConversionRules, since_us: int
) -> UnitSums:
    """Sums over everybody who was answered since then, whatever the experiment; of MOST at most."""
    shown = impressions.c
    session = case((shown.user_id.is_(None), shown.session_id))
    of_place = [shown.created_at_us >= since_us]
    if scenario is not None:
        of_place.append(shown.scenario == scenario)
    owners = (shown.user_id, session)
    answered = (
        select(*owners, func.count(), func.min(shown.created_at_us))
        .where(*of_place)
        .group_by(*owners)
        .limit(MOST)
    )
    clicked = (
        select(*owners, func.count(attributed_clicks.c.recommendation_id.distinct()))
        .join(attributed_clicks, attributed_clicks.c.recommendation_id == shown.recommendation_id)
        .where(*of_place)
        .group_by(*owners)
        .limit(MOST)
    )
    answers = {(row[0], row[1]): (row[2], row[3]) for row in connection.execute(answered)}
    clicks = {(row[0], row[1]): row[2] for row in connection.execute(clicked)}
    numbers: defaultdict[Any, int] = defaultdict(int)
    worth: defaultdict[Any, float] = defaultdict(float)
    rows = events.c
    bought = select(
        *(rows.user_id, rows.session_id, rows.event_type, rows.timestamp_us, rows.value),
        rows.properties,
    ).where(rows.timestamp_us >= since_us, rows.event_type.in_(rules.all_types))
    for row in connection.execute(bought.limit(MOST)):
        found = rules.event_value(row.event_type, row.value, row.properties)
        for owner in ((row.user_id, None), (None, row.session_id)):
            if found is not None and owner in answers and answers[owner][1] <= row.timestamp_us:
                numbers[owner] += not found.is_return
                worth[owner] += found.amount
                break
    known = [
        (number, clicks.get(owner, 0), numbers[owner], worth[owner])
        for owner, (number, _) in answers.items()
    ]
    return UnitSums(
        units=len(known),
        answers=sum(a for a, *_ in known),
        answers2=sum(a * a for a, *_ in known),
        clicks=sum(c for _, c, *_ in known),
        clicks2=sum(c * c for _, c, *_ in known),
        answers_clicks=sum(a * c for a, c, *_ in known),
        converted=sum(n > 0 for *_, n, _ in known),
        conversions=sum(n for *_, n, _ in known),
        value=sum(v for *_, v in known),
        value2=sum(v * v for *_, v in known),
    )


def _arm(one: ArmReport) -> dict[str, Any]:
    sums = one.sums
    return {
        "name": one.name,
        "share": round(one.share, 4),
        "users": sums.units,
        "answers": round(sums.answers),
        "clicks": round(sums.clicks),
        "converted": sums.converted,
        "conversions": round(sums.conversions),
        "value": round(sums.value, 6),
        "click_through": interval_json(one.means["click_through"]),
        "conversion": interval_json(one.means["conversion"]),
        "value_per_user": interval_json(one.means["value"]),
        "uplift": {metric: interval_json(found) for metric, found in one.uplift.items()},
    }


def _words(connection: Connection, spec: ExperimentSpec) -> list[Word]:
    found = []
    for arm in spec.arms:
        if arm.model_version is None:
            continue
        known = select(model_versions.c.version).where(
            model_versions.c.version == arm.model_version
        )
        if connection.execute(known).first() is None:
            continue
        one = version_rows.get_version(connection, arm.model_version)
        # The guard's roll back is told beside the version that came back, and names the other first.
        reason = connection.execute(
            select(deployments.c.reason)
            .where(
                deployments.c.deployed_by == GUARD.name,
                deployments.c.id == _next_deployment(arm.model_version),
            )
            .limit(1)
        ).scalar()
        found.append(Word(arm.name, one.version, one.state, str(one.verdict["reason"]), reason))
    return found


def _next_deployment(version: str) -> Any:
    """The deployment that took the place of a version's newest."""
    own = select(func.max(deployments.c.id)).where(deployments.c.version == version)
    later = deployments.alias()
    return select(func.min(later.c.id)).where(later.c.id > own.scalar_subquery()).scalar_subquery()
