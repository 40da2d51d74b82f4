"""How often experiments err that are looked at every hour: of two equal arms, and of one that is better.

Visitors come over two weeks and return, some often, most hardly ever; so a unit's totals grow as long as the
experiment runs. Purchases are rare, and what is paid is heavy-tailed.

Legend: N visitors, E visits, H hours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.events.array_types import BoolArray, Float64Array, Int64Array
from recsys.progress import Say
from recsys.serving.uplift import rate
from recsys.steering.sample_ratio import ALARM, sample_ratio_p
from recsys.steering.sequential_intervals import (
    LEAST_OUTCOMES,
    Totals,
    difference,
    minimum_detectable,
)

HOURS = 14 * 24
METRICS = ("click_through", "conversion", "value")
CLICK, PURCHASE = 0.15, 0.03  # chances of a visit, on average
RETURNS = 4.0  # further visits of somebody who is there from the first hour, on average
SPREAD = (
    1.5  # of the logarithm of what is paid: one purchase in a hundred pays over 30 times the median
)
POWER = 0.8
FIXED_Z = 1.959964  # of a single look at 95%


@dataclass(frozen=True)
class Looks:
    """Totals of one arm after each hour, by metric."""

    units: Int64Array  # (H,)
    totals: dict[str, list[Totals]]  # H of each


def run_experiment_errors(experiments: int, visitors: int, seed: int, say: Say) -> dict[str, Any]:
    """Error rates and power over so many simulated experiments, each with `visitors` in two arms."""
    rng = np.random.default_rng(seed)
    say(f"{experiments:,} experiments of equal arms, {HOURS} looks each")
    sequential, fixed, alarms = dict.fromkeys(METRICS, 0), dict.fromkeys(METRICS, 0), 0
    for _ in range(experiments):
        base, arm = _simulated(rng, visitors, 0.0)
        for metric in METRICS:
            sequential[metric] += _found_at(base, arm, metric) is not None
            fixed[metric] += _found_by_single_looks(base, arm, metric)
        counts = zip(base.units.tolist(), arm.units.tolist(), strict=True)
        alarms += any(sample_ratio_p(pair, (1, 1)) < ALARM for pair in counts)
    lift = _detectable_lift(rng, visitors)
    say(
        f"as many in which one arm's purchases are likelier by {lift:.0%}, the minimum detectable effect"
    )
    hours = [_found_at(*_simulated(rng, visitors, lift), "conversion") for _ in range(experiments)]
    found = sorted(hour for hour in hours if hour is not None)
    return {
        "experiments": experiments,
        "visitors": visitors,
        "looks": HOURS,
        "aa_error_rate": {metric: _share(sequential[metric], experiments) for metric in METRICS},
        "aa_error_rate_of_single_looks": {
            metric: _share(fixed[metric], experiments) for metric in METRICS
        },
        "sample_ratio_alarms": _share(alarms, experiments),
        "minimum_detectable_lift": round(lift, 4),
        "power": _share(len(found), experiments),
        "planned_power": POWER,
        "median_hours_to_find": found[len(found) // 2] if found else None,
    }


@dataclass(frozen=True)
class _Visitors:
    """Who comes when, and how readily they click and buy."""

    unit: Int64Array  # (E,), of a visitor's visits one after the other
    hour: Int64Array  # (E,)
    taste: Float64Array  # (N,), mean 1

    @classmethod
    def drawn(cls, rng: np.random.Generator, visitors: int) -> _Visitors:
        begins = rng.random(visitors) * HOURS  # (N,)
        eagerness = rng.gamma(0.5, 2.0, visitors)  # (N,), mean 1
        visits = 1 + rng.poisson(RETURNS * eagerness * (1 - begins / HOURS))  # (N,)
        unit = np.repeat(np.arange(visitors), visits)  # (E,)
        at = begins[unit] + rng.random(len(unit)) * (HOURS - begins[unit])
        at[np.concatenate(([0], np.cumsum(visits)[:-1]))] = begins
        order = np.lexsort((at, unit))
        hour = np.minimum(at[order].astype(np.int64), HOURS - 1)
        return cls(unit[order], hour, rng.gamma(2.0, 0.5, visitors))

    def conversion(self, lift: float) -> float:
        """The share that is expected to buy where purchases are likelier by `lift`."""
        chance = np.minimum(PURCHASE * self.taste * (1 + lift), 1)
        return float(np.mean(1 - (1 - chance) ** np.bincount(self.unit)))


def _simulated(rng: np.random.Generator, visitors: int, lift: float) -> tuple[Looks, Looks]:
    """The base, and an arm whose purchases are likelier by the share `lift`."""
    drawn = _Visitors.drawn(rng, visitors)
    unit, taste = drawn.unit, drawn.taste[drawn.unit]  # (E,) both
    in_arm = rng.random(visitors) < 0.5  # (N,)
    clicked = rng.random(len(unit)) < np.minimum(CLICK * taste, 1)
    chance = np.minimum(PURCHASE * taste * (1 + lift * in_arm[unit]), 1)
    bought = rng.random(len(unit)) < chance
    paid = np.where(bought, rng.lognormal(3.0, SPREAD, len(unit)), 0.0)
    tables = _tables(unit, clicked, bought, paid)
    return _looks(tables, unit, drawn.hour, ~in_arm), _looks(tables, unit, drawn.hour, in_arm)


def _tables(
    unit: Int64Array, clicked: BoolArray, bought: BoolArray, paid: Float64Array
) -> dict[str, Float64Array]:
    """What each visit adds to the sums over units, (E,) each: x, x squared, and so on."""
    start = np.concatenate(([True], unit[1:] != unit[:-1]))
    answers, _ = _running(start, np.ones(len(unit)))
    clicks, clicks_before = _running(start, clicked.astype(float))
    orders, orders_before = _running(start, bought.astype(float))
    value, value_before = _running(start, paid)
    return {
        "units": start.astype(float),
        "answers": np.ones(len(unit)),
        "answers2": 2 * answers - 1,
        "clicks": clicked.astype(float),
        "clicks2": clicks**2 - clicks_before**2,
        "both": answers * clicks - (answers - 1) * clicks_before,
        "converted": (orders > 0) & (orders_before == 0),
        "orders": bought.astype(float),
        "value": paid,
        "value2": value**2 - value_before**2,
    }


def _running(start: BoolArray, added: Float64Array) -> tuple[Float64Array, Float64Array]:
    """The sums (E,) of each unit with and without what each visit adds."""
    total = np.cumsum(added)
    before = (total - added)[start]
    after = total - np.repeat(before, np.diff(np.flatnonzero(np.append(start, True))))
    return after, after - added


def _looks(
    tables: dict[str, Float64Array], unit: Int64Array, hour: Int64Array, chosen: BoolArray
) -> Looks:
    mine = chosen[unit]
    sums = {
        name: np.cumsum(np.bincount(hour[mine], added[mine], HOURS)).tolist()
        for name, added in tables.items()
    }
    by_metric: dict[str, list[Totals]] = {metric: [] for metric in METRICS}
    for at in range(HOURS):
        one = {name: values[at] for name, values in sums.items()}
        units, converted = int(one["units"]), one["converted"]
        by_metric["click_through"].append(
            Totals(
                *(units, one["answers"], one["clicks"], one["answers2"], one["clicks2"]),
                *(one["both"], one["clicks"]),
            )
        )
        by_metric["conversion"].append(Totals.of_shares(units, int(converted)))
        by_metric["value"].append(
            Totals.per_unit(units, one["value"], one["value2"], one["orders"])
        )
    return Looks(np.array(sums["units"], np.int64), by_metric)


def _pairs(base: Looks, arm: Looks, metric: str) -> Iterator[tuple[Totals, Totals]]:
    return zip(arm.totals[metric], base.totals[metric], strict=True)


def _found_at(base: Looks, arm: Looks, metric: str) -> int | None:
    """The first hour at which the arms are told apart."""
    for hour, pair in enumerate(_pairs(base, arm, metric)):
        found = difference(*pair)
        if found is not None and found.excludes_zero:
            return hour
    return None


def _found_by_single_looks(base: Looks, arm: Looks, metric: str) -> bool:
    """Whether intervals that are meant for one look tell the arms apart at any."""
    for one, other in _pairs(base, arm, metric):
        if min(one.outcomes, other.outcomes) < LEAST_OUTCOMES:
            continue
        apart = abs((one.ratio or 0.0) - (other.ratio or 0.0))
        if apart > FIXED_Z * math.sqrt(one.variance + other.variance):
            return True
    return False


def _detectable_lift(rng: np.random.Generator, visitors: int) -> float:
    """By what share purchases must be likelier for the minimum detectable effect on conversion."""
    many = _Visitors.drawn(rng, 100_000)
    usual = many.conversion(0.0)
    expected = Totals.of_shares(visitors // 2, round(usual * visitors / 2))
    least = minimum_detectable(expected, expected, power=POWER)
    assert least is not None, "too few visitors"
    lifts = np.linspace(0.0, 5.0, 501)
    return float(np.interp(usual + least, [many.conversion(lift) for lift in lifts], lifts))


def _share(number: int, of: int) -> dict[str, float | None]:
    found = rate(of, number)
    return {"share": found["click_through"], "low": found["low"], "high": found["high"]}
