"""95% intervals of sums of weighted rewards, of which few are rare and weigh much.

Legend: L logged positions, U units.

Where a list changes little, its lift rests on the handful of rewards that exploration brought, with weights of ten and
more. The linearised error knows only those that were seen: without one of them it is small, and an interval
made of it leaves out what has not been seen yet. So rewards are counted as weighted Poisson numbers, whose
interval (Fay and Feuer 1997, by the gamma distribution, with half of one reward that was not seen as in the mid-p
interval of Fay and Kim 2017) says by how much the ends are further out than the normal distribution
has them; it is joined with the rest by the distances from the estimate (Zou and Donner 2008).
The reward not seen has the mean weight (Tiwari et al. 2006), and chi-square quantiles are Wilson and Hilferty's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recsys.events.array_types import BoolArray, Float64Array, Int64Array

Z = 1.959964  # of a 95% interval


class Interval(NamedTuple):
    """A figure an answer, with its 95% interval."""

    mean: float
    low: float
    high: float


class Errors(NamedTuple):
    """Each unit's part of the relative error of an estimate, to either end; (U,)."""

    down: Float64Array
    up: Float64Array

    def less(self, other: Float64Array) -> Errors:
        """Those of the ratio to an estimate with the errors `other`."""
        return Errors(self.down - other, self.up - other)


class Tails(NamedTuple):
    """What the squares of an interval's halves have beyond those of the normal distribution."""

    down: float
    up: float


@dataclass(frozen=True)
class CountedRewards:
    """A reward of logged positions, and how likely each position was to bring one."""

    owners: Int64Array  # (L,) whose each is, 0..U-1
    explored: BoolArray  # (L,)
    chances: Float64Array  # (L,) by the rank alone, up to a factor
    rewards: Float64Array  # (L,)

    def tails(self, effects: Float64Array) -> Tails:
        """Of an estimate to which a reward of 1 at each position adds `effects` (L,), relative to it.

        What was explored, what gains and what loses are counted apart, as their weights differ in size.
        """
        gains, down, up = effects > 0, 0.0, 0.0
        for chosen in (gains & self.explored, gains & ~self.explored):
            below, above = self._beyond(chosen, effects)
            down, up = down + below, up + above
        below, above = self._beyond(effects < 0, effects)
        return Tails(down + above, up + below)

    def _beyond(self, chosen: BoolArray, effects: Float64Array) -> tuple[float, float]:
        """What the squared halves of what these positions add have beyond the normal's, 0 at least."""
        if not chosen.any():
            return 0.0, 0.0
        weights, rewards = np.abs(effects[chosen]), np.abs(self.rewards[chosen])
        among = self.chances[chosen] / self.chances[chosen].sum()
        of_all = self.rewards[self.rewards != 0]
        size = math.sqrt(float((of_all**2).mean())) if len(of_all) else 1.0
        by_unit = np.bincount(self.owners[chosen], weights * rewards)
        total, square = float(by_unit.sum()), float((by_unit**2).sum())
        unseen = float((weights * among).sum()) * size / 2
        unseen_square = float((weights**2 * among).sum()) * size**2 / 2
        below = total - gamma_end(total, square, -Z)
        above = gamma_end(total + unseen, square + unseen_square, Z) - total
        return max(below**2 - Z**2 * square, 0.0), max(above**2 - Z**2 * square, 0.0)


def interval(mean: float, errors: Errors, tails: Tails, missing: float) -> Interval:
    """The interval of a mean above 0 by its relative errors.

    `missing` (0..1) of it stands for what was never shown: that brings nothing at the lower end, and twice as
    much as the rest at the upper one.
    """
    halves = []
    for parts, tail in ((errors.down, tails.down), (errors.up, tails.up)):
        units = len(parts)
        square = Z**2 * float((parts**2).sum()) * units / max(units - 1, 1)
        halves.append(math.sqrt(max(square + tail, 0.0)))
    low = mean * max(1 - halves[0], 0.0) * (1 - missing)
    return Interval(mean, low, mean * (1 + halves[1]) * (1 + missing))


def gamma_end(total: float, square: float, z: float) -> float:
    """An end of the interval of a sum of weighted Poisson numbers, `square` the sum of its squared weights.

    The exact interval of a mean of which 10 were counted is 4.80 to 18.39, where one more is counted at the
    upper end:

    >>> round(gamma_end(10, 10, -Z), 2), round(gamma_end(11, 11, Z), 2)
    (4.79, 18.39)
    """
    if total <= 0:
        return 0.0
    spread = square / (9 * total**2)
    return float(total * max(1 - spread + z * math.sqrt(spread), 0.0) ** 3)
