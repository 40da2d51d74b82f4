"""What another version of a scenario, or another model, would have earned, from the answers that the current one
gave.

Each logged answer's visitor is answered once more, as their history stood then, by the other version; what
others did meanwhile, the catalogue and the champion are those of now. A model that is named is judged by answers
from after its data alone: of earlier ones it has learned what came of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsys.errors import InputError, NotEnoughDataError, NotFoundError, unknown
from recsys.events.times import DAY_US, rfc3339
from recsys.serving.active_model import EXPERIMENT, ChosenModel, Deployed
from recsys.serving.answering import answer_by
from recsys.serving.answers import Request
from recsys.serving.recommender import Recommender
from recsys.serving.steering.exploration import EXPLORED
from recsys.serving.steering.scenarios import Scenario
from recsys.steering.off_policy import (
    LoggedPositions,
    OffPolicyEstimate,
    RewardEstimate,
    estimate,
)
from recsys.steering.scenario_spec import ScenarioSpec
from recsys.storage.engine.database import Connection
from recsys.storage.entities import logged_answers, scenario_rows, version_rows
from recsys.storage.entities.logged_answers import REWARDS, LoggedAnswer
from recsys.storage.entities.version_rows import VersionRow

MAX_NAMED = 1_000  # versions among which the nearest is looked for


@dataclass(frozen=True)
class EstimateLimits:
    """How much of the log is asked again."""

    answers: int = 2_000  # the newest ones
    days: int = 14
    seconds: float = 20.0  # after which the answers that were not asked again are left out


@dataclass(frozen=True)
class ScenarioEstimate:
    """What the log says of a version that nobody was shown."""

    scenario: str
    version: int  # whose answers they are
    model_version: str | None  # that would answer; None: the champion
    since_us: int  # of the oldest of them
    until_us: int
    found: OffPolicyEstimate  # its rewards are those of REWARDS

    @property
    def rewards(self) -> list[tuple[str, RewardEstimate | None]]:
        """By name; None where too few positions had it."""
        return list(zip(REWARDS, self.found.rewards, strict=True))

    @property
    def plain(self) -> dict[str, Any]:
        """JSON-ready; figures are those of one answer, None where too few positions had them."""
        found = self.found
        figures = {
            name: None
            if one is None
            else {part: getattr(one, part)._asdict() for part in ("candidate", "current", "lift")}
            for name, one in self.rewards
        }
        return {
            "scenario": self.scenario,
            "version": self.version,
            "model_version": self.model_version,
            "since": rfc3339(self.since_us),
            "until": rfc3339(self.until_us),
            "answers": found.answers,
            "visitors": found.units,
            "effective_visitors": round(found.effective_units, 1),
            "overlap": round(found.overlap, 4),
            "examination_decay": None if found.decay is None else round(found.decay, 4),
            **figures,
        }

    @property
    def text(self) -> str:
        """For people."""
        found = self.found
        lines = [
            f"{found.answers:,} answers of version {self.version} to {found.units:,} visitors; "
            f"{found.overlap:.0%} of what {self.model_version or 'this version'} would show is among what was shown"
        ]
        for name, one in self.rewards:
            if one is None:
                lines.append(f"{name}: too few to say")
                continue
            lines.append(
                f"{name} per answer: {one.candidate.mean:.4g} "
                f"({one.candidate.low:.4g} to {one.candidate.high:.4g}), now {one.current.mean:.4g}: "
                f"{one.lift.mean:+.1%} ({one.lift.low:+.1%} to {one.lift.high:+.1%})"
            )
        return "\n".join(lines)


def estimate_scenario(
    recommender: Recommender,
    name: str,
    spec: ScenarioSpec | None,
    limits: EstimateLimits,
    now_us: int,
    *,
    model_version: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ScenarioEstimate:
    """What `spec` (None: the one that answers) would have earned in the place of the version of `name` that
    answers, by `model_version` (None: the champion).

    Its own exploration and rotation are left out. Raises NotFoundError without such a scenario, InputError
    for a model version that is none or whose files were deleted, ModelFileError, NotEnoughDataError where the
    log cannot tell.
    """
    with recommender.database.connect() as connection:
        current = scenario_rows.get_scenario(connection, name)
        if current is None:
            raise NotFoundError("scenario", name)
        row = None if model_version is None else _model_row(connection, model_version)
        since_us = now_us - limits.days * DAY_US
        if row is not None:
            since_us = max(since_us, row.data_end_us)
        answers = logged_answers.logged_answers(
            connection, name, current.version, since_us, limits.answers
        )
    spec = spec or current.spec
    if spec.rows or current.spec.rows:
        raise NotEnoughDataError("the log cannot tell of titled rows: try an experiment")
    if not answers and row is not None:
        raise NotEnoughDataError(
            f"the log cannot tell: model version {row.version} has learned from events up to "
            f"{rfc3339(row.data_end_us)}, and version {current.version} of {name} has answered nobody after; "
            "come back when it has, or compare the two in an experiment"
        )
    model = _model(recommender, row)
    scenario = Scenario(replace(spec, explore=None, rotation=None))
    ends, shown = clock() + limits.seconds, []
    for answer in answers:
        if clock() > ends:
            break
        shown.append(_shown(recommender, scenario, model, answer, now_us))
    answers = answers[: len(shown)]
    if not answers:
        raise NotEnoughDataError(f"version {current.version} of {name} has answered nobody yet")
    with recommender.database.connect() as connection:
        rewards = logged_answers.rewards_of(connection, [one.recommendation_id for one in answers])
    found = estimate(positions_of(answers, shown, rewards))
    times = [one.created_at_us for one in answers]
    return ScenarioEstimate(name, current.version, model_version, min(times), max(times), found)


def _model_row(connection: Connection, version: str) -> VersionRow:
    """A version that can answer. Raises InputError."""
    try:
        row = version_rows.get_version(connection, version)
    except NotFoundError:
        known = [one.version for one in version_rows.list_versions(connection, MAX_NAMED)]
        raise unknown("model_version", version, "a registered version", known) from None
    if row.state == "deleted":
        raise InputError("model_version", version, "its files were deleted")
    return row


def _model(recommender: Recommender, row: VersionRow | None) -> ChosenModel:
    """The version, or the champion, whatever experiments and the control arm make of a visitor's answers."""
    if row is None:
        return ChosenModel(recommender.bundle(), EXPERIMENT)
    deployed = Deployed(row.version, row.manifest_sha256)
    return ChosenModel(recommender.active.read(deployed), EXPERIMENT)


def _shown(
    recommender: Recommender,
    scenario: Scenario,
    model: ChosenModel,
    answer: LoggedAnswer,
    now_us: int,
) -> list[str]:
    """What the scenario would have shown in the place of a logged answer."""
    request = Request(
        user_id=answer.user_id,
        session_id=answer.session_id,
        k=len(answer.items),
        exclude_seen=recommender.settings.serving.exclude_seen,
        left_open=frozenset({"k", "exclude_seen"}),
        as_of_us=answer.created_at_us,
    )
    found = answer_by(recommender, scenario.applied(request), model, now_us)
    return [one.item_id for one in found.items]


def positions_of(
    answers: Sequence[LoggedAnswer],
    shown: Sequence[Sequence[str]],
    rewards: logged_answers.Rewards,
) -> LoggedPositions:
    """The positions of logged answers, beside what another version would have shown in their place."""
    rows, ranks, propensities, explored, candidate, earned = [], [], [], [], [], []
    for row, (answer, items) in enumerate(zip(answers, shown, strict=True)):
        places = {item_id: rank for rank, item_id in enumerate(items, 1)}
        for rank, one in enumerate(answer.items, 1):
            rows.append(row)
            ranks.append(rank)
            propensities.append(one.propensity)
            explored.append(one.source == EXPLORED)
            candidate.append(places.get(one.item_id, 0))
            earned.append(
                rewards.get((answer.recommendation_id, one.item_id), (0.0,) * len(REWARDS))
            )
    _, units = np.unique([one.unit for one in answers], return_inverse=True)
    return LoggedPositions(
        answers=np.array(rows, np.int64),
        units=units.astype(np.int64),
        ranks=np.array(ranks, np.int64),
        propensities=np.array(propensities),
        explored=np.array(explored, np.bool_),
        candidate_ranks=np.array(candidate, np.int64),
        candidate_sizes=np.array([len(items) for items in shown], np.int64),
        rewards=np.array(earned, np.float64),
    )
