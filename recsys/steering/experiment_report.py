"""What an experiment says at this moment, of sums over the units of each arm.

Counted is by intention to treat: all that a unit did since its first answer of the experiment, whatever it was
shown later and whether it clicked on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from recsys.steering.experiment_spec import METRICS, ExperimentSpec, Metric
from recsys.steering.sample_ratio import ALARM, sample_ratio_p
from recsys.steering.sequential_intervals import (
    ALPHA,
    Interval,
    Totals,
    difference,
    mean_interval,
    minimum_detectable,
)

NOUNS: dict[Metric, str] = {
    "click_through": "click-through",
    "conversion": "conversion",
    "value": "value per user",
}
POWER = 0.8  # with which the minimum detectable effect is found


@dataclass(frozen=True)
class UnitSums:
    """Sums over the units of one arm; those that end in 2 are of squares."""

    units: int = 0
    answers: float = 0.0
    answers2: float = 0.0
    clicks: float = 0.0  # answers with a click
    clicks2: float = 0.0
    answers_clicks: float = 0.0  # of products
    converted: int = 0  # units with a conversion
    conversions: float = 0.0
    value: float = 0.0
    value2: float = 0.0

    def totals(self, metric: Metric) -> Totals:
        """What the intervals of a metric are made of."""
        if metric == "conversion":
            return Totals.of_shares(self.units, self.converted)
        if metric == "value":
            return Totals.per_unit(self.units, self.value, self.value2, self.conversions)
        return Totals(
            units=self.units,
            x=self.answers,
            y=self.clicks,
            xx=self.answers2,
            yy=self.clicks2,
            xy=self.answers_clicks,
            outcomes=self.clicks,
        )

    def times(self, factor: float) -> UnitSums:
        """Of so many times the units, alike."""
        scaled = {name: value * factor for name, value in asdict(self).items()}
        return UnitSums(
            **{**scaled, "units": round(scaled["units"]), "converted": round(scaled["converted"])}
        )


@dataclass(frozen=True)
class ArmReport:
    """One arm's figures, and what it has over the first arm."""

    name: str
    share: float  # of the units, as the weights say
    sums: UnitSums
    means: dict[Metric, Interval | None]
    uplift: dict[Metric, Interval | None]  # empty of the first arm


@dataclass(frozen=True)
class ExperimentReport:
    """All arms. `alpha`: an interval of an uplift misses the truth, at any look, at most so often."""

    arms: tuple[ArmReport, ...]
    alpha: float
    sample_ratio_p: float
    leader: str | None  # the arm that is surely better in the metric that decides, the best of such

    @property
    def sample_ratio_holds(self) -> bool:
        return self.sample_ratio_p >= ALARM


def make_report(spec: ExperimentSpec, sums: Mapping[str, UnitSums]) -> ExperimentReport:
    """The report of the arms' sums; those of an arm that nobody was in are zeros.

    Every arm but the first gets its part of ALPHA, so that all intervals of a metric hold together.
    """
    alpha = ALPHA / (len(spec.arms) - 1)
    base = sums.get(spec.arms[0].name, UnitSums())
    total = sum(spec.weights)
    arms = []
    for place, arm in enumerate(spec.arms):
        own = sums.get(arm.name, UnitSums())
        means = {metric: _mean(own, metric) for metric in METRICS}
        uplift = {
            metric: difference(own.totals(metric), base.totals(metric), alpha)
            for metric in METRICS
            if place
        }
        arms.append(ArmReport(arm.name, arm.weight / total, own, means, uplift))
    counted = [one.sums.units for one in arms]
    return ExperimentReport(
        arms=tuple(arms),
        alpha=alpha,
        sample_ratio_p=sample_ratio_p(counted, spec.weights),
        leader=_leader(spec, arms),
    )


def _mean(sums: UnitSums, metric: Metric) -> Interval | None:
    """An arm's figure with its interval: that of a share lies between 0 and 1."""
    found = mean_interval(sums.totals(metric))
    if metric == "value" or found is None or found.low is None or found.high is None:
        return found
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def verdict(spec: ExperimentSpec, report: ExperimentReport) -> str:
    """What the report says, in a sentence."""
    if not report.sample_ratio_holds:
        return (
            "The arms do not have the shares of users that their weights say: something keeps users "
            "away from an arm, so the figures cannot be trusted."
        )
    base = spec.arms[0].name
    sure = [
        (one, found)
        for one, arm in zip(report.arms[1:], spec.arms[1:], strict=True)
        if not arm.shadow and (found := one.uplift[spec.metric]) is not None
        if found.excludes_zero
    ]
    if not sure:
        return f"No arm can be told apart from “{base}” yet."
    parts = [
        f"{one.name} is {'better' if found.estimate > 0 else 'worse'} than {base} in "
        f"{NOUNS[spec.metric]}"
        for one, found in sure
    ]
    return f"{'; '.join(parts)}."


def _leader(spec: ExperimentSpec, arms: Sequence[ArmReport]) -> str | None:
    better = [
        (found.estimate, one.name)
        for one, arm in zip(arms[1:], spec.arms[1:], strict=True)
        if not arm.shadow and (found := one.uplift[spec.metric]) is not None
        if found.low is not None and found.low > 0
    ]
    return max(better)[1] if better else None


@dataclass(frozen=True)
class Detectable:
    """What an experiment that runs so long can find, in the figure's own unit."""

    days: int
    units: int  # of all arms
    effect: float | None  # None: too few outcomes to say
    relative: float | None  # to what the figure is now


def detectable(
    spec: ExperimentSpec, usual: UnitSums, usual_days: float, days: Sequence[int]
) -> list[Detectable]:
    """The minimum detectable effect on the metric that decides, after so many days.

    usual: sums over the units of `usual_days` before, who are all there were. Those of more days are
    taken to be as many more, which is too many where the same ones come back. Of several arms, that of
    the one with the least weight beside the first.
    """
    total = sum(spec.weights)
    least = min(spec.weights[1:])
    alpha = ALPHA / (len(spec.arms) - 1)
    figure = usual.totals(spec.metric).ratio
    found = []
    for number in days:
        there = usual.times(spec.allocation * number / usual_days)
        base = there.times(spec.weights[0] / total).totals(spec.metric)
        arm = there.times(least / total).totals(spec.metric)
        effect = minimum_detectable(arm, base, alpha, POWER)
        relative = effect / figure if effect is not None and figure else None
        found.append(Detectable(number, there.units, effect, relative))
    return found


def interval_json(found: Interval | None) -> dict[str, Any] | None:
    """JSON-ready, rounded."""
    if found is None:
        return None
    return {
        name: None if value is None else round(value, 6) for name, value in asdict(found).items()
    }
