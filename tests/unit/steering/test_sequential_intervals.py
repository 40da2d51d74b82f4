"""Intervals that hold at every look."""

import numpy as np
import pytest

from recsys.steering.sequential_intervals import (
    ALPHA,
    LEAST_OUTCOMES,
    Totals,
    difference,
    mean_interval,
    minimum_detectable,
    width,
)


def totals(x, y, outcomes):
    return Totals(len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum(), outcomes)


def test_equal_arms_are_told_apart_at_most_as_often_as_promised():
    """400 experiments of 20,000 draws a side, looked at every 50; single looks err six times as often."""
    rng = np.random.default_rng(3)
    looks = np.arange(50, 20_001, 50)
    wide = np.array([width(2.0 * n) for n in looks])
    errors = single = 0
    for _ in range(400):
        less = rng.exponential(1.0, 20_000) - rng.exponential(1.0, 20_000)
        deviations = np.abs(np.cumsum(less)[looks - 1]) / np.sqrt(2.0 * looks)
        errors += bool((deviations > wide).any())
        single += bool((deviations > 1.96).any())
    assert errors <= ALPHA * 400
    assert single > 6 * ALPHA * 400


def test_the_standard_error_is_that_of_units_drawn_anew():
    """Clicks over answers of units who ask differently often: the linearised error beside a bootstrap's."""
    rng = np.random.default_rng(4)
    answers = rng.geometric(0.2, 2_000).astype(float)
    clicks = rng.binomial(answers.astype(int), rng.beta(1, 4, 2_000)).astype(float)
    drawn = rng.integers(0, 2_000, (2_000, 2_000))
    again = clicks[drawn].sum(axis=1) / answers[drawn].sum(axis=1)
    one = totals(answers, clicks, clicks.sum())
    assert one.ratio == pytest.approx(clicks.sum() / answers.sum())
    assert one.variance**0.5 == pytest.approx(again.std(), rel=0.06)
    plain = Totals.per_unit(2_000, clicks.sum(), (clicks**2).sum(), clicks.sum())
    assert plain.variance == pytest.approx(clicks.var(ddof=1) / 2_000)


def test_ends_are_so_many_standard_errors_away():
    base, arm = Totals.of_shares(1_000, 100), Totals.of_shares(1_000, 150)
    found = difference(arm, base)
    half = (arm.variance + base.variance) ** 0.5 * width(arm.outcomes + base.outcomes)
    assert found.estimate == pytest.approx(0.05)
    assert (found.low, found.high) == pytest.approx((0.05 - half, 0.05 + half))
    assert found.excludes_zero is (half < 0.05)
    own = mean_interval(arm)
    assert own.low < 0.15 < own.high
    assert difference(arm, base, ALPHA / 4).low < found.low


def test_nothing_is_said_of_too_few_outcomes():
    few = Totals.of_shares(10_000, LEAST_OUTCOMES - 1)
    many = Totals.of_shares(10_000, 2_000)
    assert difference(many, few).low is None
    assert mean_interval(few).high is None
    assert minimum_detectable(few, many) is None
    assert mean_interval(Totals.per_unit(0, 0.0, 0.0, 0.0)) is None
    assert not difference(many, few).excludes_zero


def test_more_units_find_smaller_effects():
    def least(units):
        one = Totals.of_shares(units, units // 10)
        return minimum_detectable(one, one)

    assert least(2_000) > least(20_000) > least(200_000) > 0
