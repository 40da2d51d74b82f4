"""What another ranking would have earned, estimated from answers whose items were shown by known chances.

Legend: L logged positions, N answers, U units (users, or sessions without one), M rewards.

An item of the log counts for the candidate by the chance of being examined where the candidate would
show it, over the chance that it was shown and examined where it stood:

    weight = examined(candidate's rank) / (examined(logged rank) * propensity)

and the sums are divided by what the weights add up to (self-normalised importance sampling over items and
positions: Swaminathan and Joachims 2015; the position-based model: Li et al. 2018). With `examined` =
rank ** -decay, whose decay is learned from explored positions, where relevance does not depend on the rank;
without enough of them an item counts at its own rank alone. Intervals are those of the linearised
estimate, clustered by unit, with what rare rewards and what was never shown add to them; they hold what is
uncertain of the decay too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recsys.errors import NotEnoughDataError
from recsys.events.array_types import BoolArray, Float64Array, Int64Array
from recsys.steering.off_policy_intervals import (
    CountedRewards,
    Errors,
    Interval,
    Z,
    interval,
)

MIN_UNITS = 100  # units that the weights are worth
MIN_OVERLAP = 0.9  # of what the candidate would show, by its chance of being examined
MIN_REWARDS = 20  # logged positions with a reward that count for the candidate
MIN_EXPLORED_CLICKS = 50  # from which the decay is learned
MAX_DECAY = 3.0
STEP = 1e-4  # of the decay, for a slope, at least


@dataclass(frozen=True)
class LoggedPositions:
    """Positions of answers: what was shown, by which chance, what came of it, where else it would stand."""

    answers: Int64Array  # (L,) 0..N-1
    units: Int64Array  # (N,) whose each answer is, 0..U-1
    ranks: Int64Array  # (L,) 1-based
    propensities: Float64Array  # (L,) of the item at this rank, above 0
    explored: BoolArray  # (L,) whether the item is one that exploration drew
    candidate_ranks: Int64Array  # (L,) the item's rank in the candidate's answer; 0: not among them
    candidate_sizes: Int64Array  # (N,) items of the candidate's answer
    rewards: Float64Array  # (L, M); the first are clicks, 0 or 1


@dataclass(frozen=True)
class RewardEstimate:
    """What a reward comes to an answer: of the candidate, and of the ranking as it was without exploration."""

    candidate: Interval
    current: Interval
    lift: Interval  # candidate / current - 1


@dataclass(frozen=True)
class OffPolicyEstimate:
    """What the log says of a candidate."""

    rewards: tuple[
        RewardEstimate | None, ...
    ]  # None: too few positions had it, or returns outweigh it
    answers: int
    units: int
    effective_units: float
    overlap: float  # share of what the candidate shows that the log may have shown, 0..1
    decay: float | None  # of examination; None: an item counts at its own rank alone


class _Weighted(NamedTuple):
    """A ranking's weights of logged positions, and what they add up to where all of it is covered."""

    rewards: Float64Array  # (L,) weight of each position's rewards
    norms: Float64Array  # (L,) its part of the sum that divides
    expected: Float64Array  # (N,) what that part of each answer is expected to be

    @property
    def whole(self) -> float:
        return float(self.expected.sum())


@dataclass(frozen=True)
class _Decay:
    value: float
    influence: Float64Array  # (U,) of each unit on the value


def estimate(logged: LoggedPositions) -> OffPolicyEstimate:
    """What the candidate would have earned an answer. Raises NotEnoughDataError, which says why the log
    cannot tell.
    """
    if len(logged.answers) == 0:
        raise NotEnoughDataError("the log holds no answers of this scenario to estimate from")
    units = int(logged.units.max()) + 1
    decay = _learned_decay(logged, units)
    weighted = _candidate_weights(logged, decay.value if decay else None)
    present = _current_weights(logged, decay)
    owners = logged.units[logged.answers]
    by_unit = np.bincount(owners, weighted.norms, units)
    overlap = _overlap(logged, weighted, present, units)
    effective = float(by_unit.sum()) ** 2 / max(float((by_unit**2).sum()), 1e-12)
    _refuse(overlap, effective, decay)
    missing = max(1 - overlap, 0.0)
    found: list[RewardEstimate | None] = []
    for column in range(logged.rewards.shape[1]):
        reward = logged.rewards[:, column]
        candidate, parts = _ratio(logged, reward, weighted, units)
        current, current_parts = _ratio(logged, reward, present, units)
        rewarded = np.count_nonzero(reward[weighted.rewards > 0])
        if rewarded < MIN_REWARDS or candidate <= 0 or current <= 0:
            found.append(None)
            continue
        chances = _examined(logged.ranks, decay.value if decay else 0.0)
        counted = CountedRewards(owners, logged.explored, chances, reward)
        errors = _with_decay(logged, reward, decay, candidate, parts / candidate)
        current_errors = current_parts / current
        effects = weighted.rewards / float((weighted.rewards * reward).sum())
        current_effects = present.rewards / float((present.rewards * reward).sum())
        lift = interval(
            candidate / current,
            errors.less(current_errors),
            counted.tails(effects - current_effects),
            missing,
        )
        found.append(
            RewardEstimate(
                interval(candidate, errors, counted.tails(effects), missing),
                interval(
                    current,
                    Errors(current_errors, current_errors),
                    counted.tails(current_effects),
                    0.0,
                ),
                Interval(*(each - 1 for each in lift)),
            )
        )
    return OffPolicyEstimate(
        rewards=tuple(found),
        answers=len(logged.units),
        units=units,
        effective_units=effective,
        overlap=min(overlap, 1.0),
        decay=decay.value if decay else None,
    )


def _overlap(logged: LoggedPositions, weighted: _Weighted, present: _Weighted, units: int) -> float:
    """The share of what the candidate shows that may have been shown, less what chance did to it.

    All that the present ranking shows may have been shown: how far its own norms are from what is expected
    is chance, and what goes along with it is taken out (control variate, by regression over units).
    """
    owners = logged.units[logged.answers]
    overlap = float(weighted.norms.sum()) / max(weighted.whole, 1e-12)
    chance, present_chance = (
        np.bincount(owners, each.norms, units)
        - share * np.bincount(logged.units, each.expected, units)
        for each, share in ((weighted, overlap), (present, 1.0))
    )
    square = float((present_chance**2).sum())
    slope = float((chance * present_chance).sum()) / square if square else 0.0
    return overlap - slope * float(present_chance.sum()) / max(weighted.whole, 1e-12)


def _refuse(overlap: float, effective: float, decay: _Decay | None) -> None:
    if overlap < MIN_OVERLAP:
        advice = (
            "let the scenario explore for longer, or compare the two in an experiment"
            if decay is not None
            else "let the scenario explore (`explore`), or compare the two in an experiment"
        )
        raise NotEnoughDataError(
            f"the log cannot tell: {1 - max(overlap, 0):.0%} of what this version would show was never "
            f"shown there ({1 - MIN_OVERLAP:.0%} may be); {advice}"
        )
    if effective < MIN_UNITS:
        raise NotEnoughDataError(
            f"the log cannot tell yet: its answers are worth {effective:,.0f} visitors for this version, "
            f"{MIN_UNITS} are needed; come back when more have asked"
        )


def _examined(ranks: Int64Array, decay: float) -> Float64Array:
    found: Float64Array = np.maximum(ranks, 1).astype(np.float64) ** -decay
    return found


def _candidate_weights(logged: LoggedPositions, decay: float | None) -> _Weighted:
    """By the examination of both ranks; without a decay, of items that keep theirs alone."""
    ranks, target = logged.ranks, logged.candidate_ranks
    counts = (target == ranks) if decay is None else (target > 0)
    inverse = np.where(counts, 1.0 / logged.propensities, 0.0)
    examined = _examined(target, decay or 0.0)
    most = int(logged.candidate_sizes.max())
    sums = np.concatenate(([0.0], np.cumsum(_examined(np.arange(1, most + 1), decay or 0.0))))
    weights = inverse * examined / _examined(ranks, decay or 0.0)
    return _Weighted(weights, inverse * examined, sums[logged.candidate_sizes])


def _current_weights(logged: LoggedPositions, decay: _Decay | None) -> _Weighted:
    """Of the ranking as it was, without exploration: every rank has its own item again."""
    inverse = np.where(logged.explored, 0.0, 1.0 / logged.propensities)
    examined = _examined(logged.ranks, decay.value if decay else 0.0)
    expected = np.bincount(logged.answers, examined, len(logged.units)).astype(np.float64)
    return _Weighted(inverse, inverse * examined, expected)


def _ratio(
    logged: LoggedPositions, reward: Float64Array, weighted: _Weighted, units: int
) -> tuple[float, Float64Array]:
    """The self-normalised mean an answer, and each unit's part of its error; (U,)."""
    owners = logged.units[logged.answers]
    scale = weighted.whole / len(logged.units)
    earned = np.bincount(owners, weighted.rewards * reward, units)
    norms = np.bincount(owners, weighted.norms, units)
    total = max(float(norms.sum()), 1e-12)
    ratio = float(earned.sum()) / total
    return ratio * scale, (earned - ratio * norms) / total * scale


def _with_decay(
    logged: LoggedPositions,
    reward: Float64Array,
    decay: _Decay | None,
    mean: float,
    relative: Float64Array,
) -> Errors:
    """Each unit's part of the relative error, downwards and upwards, with what it moves the decay by.

    The mean is no straight line of the decay, so its slope is taken to either end of the decay's interval.
    """
    if decay is None:
        return Errors(relative, relative)
    reach = Z * float(np.sqrt((decay.influence**2).sum()))
    slopes = []
    for step in (-max(reach, STEP), max(reach, STEP)):
        weighted = _candidate_weights(logged, decay.value + step)
        earned = float((weighted.rewards * reward).sum()) / max(float(weighted.norms.sum()), 1e-12)
        there = max(earned * weighted.whole / len(logged.units), 1e-12)
        slopes.append(math.log(there / mean) / step)
    if sum(slopes) < 0:  # a larger decay is the lower end
        slopes.reverse()
    return Errors(*(relative + slope * decay.influence for slope in slopes))


def _learned_decay(logged: LoggedPositions, units: int) -> _Decay | None:
    """By the clicks of explored positions: their mean falls with the rank alone; None where too few are.

    The root of sum (click - c * examined) * (log rank - its weighted mean), which falls with the decay.
    """
    chosen = np.flatnonzero(logged.explored)
    clicks = logged.rewards[chosen, 0]
    ranks = logged.ranks[chosen]
    if clicks.sum() < MIN_EXPLORED_CLICKS or len(np.unique(ranks)) < 2:
        return None
    logs = np.log(ranks.astype(np.float64))

    def parts(decay: float) -> tuple[Float64Array, float]:
        examined = np.exp(-decay * logs)
        level = float(clicks.sum() / examined.sum())
        centred = logs - float((examined * logs).sum() / examined.sum())
        return (clicks - level * examined) * centred, level * float((examined * centred**2).sum())

    low, high = 0.0, MAX_DECAY
    for _ in range(40):
        middle = (low + high) / 2
        if parts(middle)[0].sum() < 0:  # clicks stand higher up than this decay says
            low = middle
        else:
            high = middle
    score, curvature = parts(low)
    owners = logged.units[logged.answers[chosen]]
    influence = -np.bincount(owners, score, units) / max(curvature, 1e-12)
    return _Decay(low, influence)
