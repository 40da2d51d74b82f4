"""Intervals that hold at every look: an experiment may be watched by the hour and stopped at any of them.

Asymptotic confidence sequences after Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central
limit theory and asymptotic confidence sequences" (Annals of Statistics, 2024; arXiv:2103.06476), theorem 2.2:
a mean of t observations is known to within

    s * sqrt((1 + 1 / (t rho^2)) * log((t rho^2 + 1) / alpha^2)) ,  s its standard error,

at all t at once, with probability 1 - alpha. Deviations:

- Units return, so their totals grow, and t is not the number of units. t is the number of outcomes that the
  figure rests on: clicks, purchases. The bound then holds where what a unit did so far does not speak against
  what it does next (those who bought much buy no less than others): the figure's deviations at two looks are
  correlated at least as those of a Brownian motion are at such times. `bench experiments` measures the error.
- rho is fixed: the interval is tightest at TIGHTEST_AT outcomes (equation 28 there).
- Nothing is said before LEAST_OUTCOMES outcomes of each arm, as the bound is asymptotic.

A figure is a ratio of two totals over units, y / x: clicks over answers, or, with x = 1, a mean per unit. Its
standard error is that of the linearised ratio (the delta method), units being independent of one another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

TIGHTEST_AT = 1_000  # outcomes
LEAST_OUTCOMES = 20  # of each arm
ALPHA = 0.05


@dataclass(frozen=True)
class Totals:
    """Sums over the units of one arm, of which y counts in the figure's numerator, x in its denominator."""

    units: int
    x: float
    y: float
    xx: float  # of squares
    yy: float
    xy: float  # of products
    outcomes: float  # what the figure rests on: clicks, purchases

    @classmethod
    def per_unit(cls, units: int, y: float, yy: float, outcomes: float) -> Totals:
        """Of a mean per unit.

        >>> Totals.per_unit(4, 2.0, 2.0, 2.0).ratio
        0.5
        """
        return cls(units, units, y, units, yy, y, outcomes)

    @classmethod
    def of_shares(cls, units: int, number: int) -> Totals:
        """Of the share of units that did something, `number` of them.

        A unit does it once, so what it did speaks against its doing it again; the odds in place of the
        number are the time in which that share moves as a Brownian motion does.
        """
        left = max(units - number, 1)
        return cls(units, units, number, units, number, number, number * units / left)

    @property
    def ratio(self) -> float | None:
        """None where there is nothing to divide by."""
        return self.y / self.x if self.x else None

    @property
    def variance(self) -> float:
        """Of the ratio: its standard error, squared."""
        if self.units < 2 or not self.x:
            return 0.0
        ratio = self.y / self.x
        spread = self.yy - 2 * ratio * self.xy + ratio**2 * self.xx
        return max(0.0, spread) / self.x**2 * self.units / (self.units - 1)


@dataclass(frozen=True)
class Interval:
    """An estimate and where the truth lies; without ends where there is too little to say."""

    estimate: float
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def width(outcomes: float, alpha: float = ALPHA) -> float:
    """Half the interval's width in standard errors; a single look at 95% has 1.96.

    >>> [round(width(outcomes), 2) for outcomes in (20, 1_000, 100_000)]
    [6.69, 3.04, 3.56]
    """
    tightest = -2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))
    scaled = outcomes * tightest / TIGHTEST_AT  # t rho^2
    return math.sqrt((1 + 1 / scaled) * math.log((scaled + 1) / alpha**2))


def mean_interval(arm: Totals, alpha: float = ALPHA) -> Interval | None:
    """The figure of one arm; None where there is nothing to divide by."""
    if arm.ratio is None:
        return None
    return _interval(arm.ratio, arm.variance, arm.outcomes, arm.outcomes, alpha)


def difference(arm: Totals, base: Totals, alpha: float = ALPHA) -> Interval | None:
    """The arm's figure less the base's."""
    if arm.ratio is None or base.ratio is None:
        return None
    least, outcomes = min(arm.outcomes, base.outcomes), arm.outcomes + base.outcomes
    return _interval(arm.ratio - base.ratio, arm.variance + base.variance, least, outcomes, alpha)


def _interval(
    estimate: float, variance: float, least: float, outcomes: float, alpha: float
) -> Interval:
    if least < LEAST_OUTCOMES or variance == 0.0:
        return Interval(estimate, None, None)
    half = math.sqrt(variance) * width(outcomes, alpha)
    return Interval(estimate, estimate - half, estimate + half)


def minimum_detectable(
    arm: Totals, base: Totals, alpha: float = ALPHA, power: float = 0.8
) -> float | None:
    """The least difference that a look at these totals finds with probability `power`, were it there.

    The totals are those that are expected. None below LEAST_OUTCOMES.
    """
    if min(arm.outcomes, base.outcomes) < LEAST_OUTCOMES:
        return None
    spread = math.sqrt(arm.variance + base.variance)
    return spread * (width(arm.outcomes + base.outcomes, alpha) + NormalDist().inv_cdf(power))
