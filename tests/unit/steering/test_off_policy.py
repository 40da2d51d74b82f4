"""The off-policy estimate: its intervals hold the truth, by hand, and it says when a log cannot tell."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.errors import NotEnoughDataError
from recsys.steering.off_policy import LoggedPositions, estimate

K, POOL, SHARE, DECAY = 4, 3, 0.3, 0.8
ITEMS = K + K * POOL  # the best K, then the pools, dealt to the positions in turn
ATTRACTION = np.linspace(0.6, 0.15, ITEMS)
ATTRACTION[K:] = 0.3  # of explored items: the same at every rank on average
REORDERED = np.array([3, 1, 0, 2])  # the candidate's answer: of the current one's items
NEW_LAST = np.array([0, 1, 2, K + 3])
WITH_NEW = np.array([0, K + 1, 1, 2])  # a pool's item of position 2, and three that stood already


def logged(rng, units=700, answers_a_unit=3, candidate=REORDERED, share=SHARE):
    """A log of the position-based model; rewards are clicks, and their value (10 a click at times)."""
    answers = units * answers_a_unit
    taste = np.repeat(rng.uniform(0.3, 1.7, units), answers_a_unit)  # answers of a unit go together
    explored = rng.random((answers, K)) < share
    drawn = K + rng.integers(0, POOL, (answers, K)) * K + np.arange(K)
    shown = np.where(explored, drawn, np.arange(K))
    ranks = np.tile(np.arange(1, K + 1), (answers, 1))
    chance = ranks**-DECAY * np.minimum(ATTRACTION[shown] * taste[:, None], 1)
    clicks = rng.random((answers, K)) < chance
    values = np.where(clicks, rng.integers(0, 2, (answers, K)) * 10, 0)
    place = np.zeros(ITEMS, np.int64)
    place[candidate] = np.arange(1, len(candidate) + 1)
    return LoggedPositions(
        answers=np.repeat(np.arange(answers), K),
        units=np.repeat(np.arange(units), answers_a_unit),
        ranks=ranks.ravel(),
        propensities=np.where(explored, share / POOL, 1 - share).ravel(),
        explored=explored.ravel(),
        candidate_ranks=place[shown].ravel(),
        candidate_sizes=np.full(answers, len(candidate)),
        rewards=np.stack([clicks.ravel(), values.ravel()], 1).astype(np.float64),
    )


def truth(items):
    ranks = np.arange(1, len(items) + 1)
    tastes = np.linspace(0.3, 1.7, 2_001)
    return float((ranks**-DECAY * np.minimum(ATTRACTION[items] * tastes[:, None], 1)).sum(1).mean())


@pytest.mark.parametrize("candidate", [REORDERED, WITH_NEW], ids=["reordered", "with a new item"])
def test_intervals_hold_the_truth_19_times_of_20(candidate):
    draws, missed = 200, np.zeros(5)
    clicks, current = truth(candidate), truth(np.arange(K))
    for seed in range(draws):
        found = estimate(logged(np.random.default_rng(seed), candidate=candidate))
        first, second = found.rewards
        for at, (interval, true) in enumerate(
            [
                *((first.candidate, clicks), (first.current, current)),
                *((first.lift, clicks / current - 1), (second.candidate, 5 * clicks)),
                (second.lift, clicks / current - 1),
            ]
        ):
            missed[at] += not interval.low <= true <= interval.high
    assert (missed / draws <= 0.08).all(), missed  # 5%, and 2 standard errors of 200 draws
    assert (missed / draws >= 0.005).all(), missed  # nor are they wider than they need be


def test_a_lift_that_rests_on_few_explored_rewards_holds_the_truth():
    draws, missed = 200, 0
    true = truth(NEW_LAST) / truth(np.arange(K)) - 1
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        given = logged(rng, units=1_500, answers_a_unit=1, candidate=NEW_LAST, share=0.06)
        lift = estimate(given).rewards[1].lift
        missed += not lift.low <= true <= lift.high
    assert missed / draws <= 0.08


def test_what_was_never_shown_widens_the_interval_by_its_share():
    given = logged(np.random.default_rng(4), units=4_000)
    one_more = given.candidate_sizes + np.arange(given.candidate_sizes.size) % 2
    whole, partly = (
        estimate(replace(given, candidate_sizes=sizes)).rewards[0].candidate
        for sizes in (given.candidate_sizes, one_more)
    )
    examined = np.arange(1, K + 2) ** -DECAY
    share = examined[-1] / 2 / (examined[:-1].sum() + examined[-1] / 2)  # half of a last position
    low, high = (1 - share) * whole.low / whole.mean, (1 + share) * whole.high / whole.mean
    assert partly.low / partly.mean == pytest.approx(low, rel=0.02)
    assert partly.high / partly.mean == pytest.approx(high, rel=0.02)


def test_the_decay_is_learned_from_explored_positions():
    found = estimate(logged(np.random.default_rng(1), units=8_000))
    assert found.decay == pytest.approx(DECAY, abs=0.06)
    assert found.overlap == pytest.approx(1, abs=0.02)
    assert 5_000 < found.effective_units <= found.units == 8_000


def test_without_exploration_an_item_counts_at_its_own_rank_alone():
    still = logged(np.random.default_rng(1), share=0.0)
    same = replace(still, candidate_ranks=still.ranks)
    found = estimate(same)
    clicks = float(same.rewards[:, 0].sum()) / found.answers
    assert found.decay is None
    assert found.rewards[0].candidate.mean == pytest.approx(clicks)
    assert found.rewards[0].lift == (0, 0, 0)
    with pytest.raises(NotEnoughDataError, match=r"75% of what .* never shown .*`explore`"):
        estimate(still)  # REORDERED has one item of four where it was


def test_it_is_said_why_a_log_cannot_tell():
    rng = np.random.default_rng(2)
    elsewhere = replace(logged(rng), candidate_ranks=np.zeros(700 * 3 * K, np.int64))
    with pytest.raises(NotEnoughDataError, match="100% of what this version would show was never"):
        estimate(elsewhere)
    few = logged(rng, units=60, share=0.0)
    few = replace(few, candidate_ranks=few.ranks)
    with pytest.raises(NotEnoughDataError, match=r"worth 60 visitors .* 100 are needed"):
        estimate(few)
    none = logged(rng, units=1)
    empty = {name: getattr(none, name)[:0] for name in none.__dataclass_fields__}
    with pytest.raises(NotEnoughDataError, match="no answers"):
        estimate(LoggedPositions(**empty))


def test_a_reward_that_hardly_anyone_brought_has_no_figure():
    given = logged(np.random.default_rng(3))
    rewards = given.rewards.copy()
    rewards[:, 1] = 0.0
    assert estimate(replace(given, rewards=rewards)).rewards[1] is None
