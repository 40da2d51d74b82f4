import numpy as np

from recsys.models.version_facts import Verdict
from recsys.training.gate import GateRanks, GateRules, verdict

RNG = np.random.default_rng(0)
CHAMPION = RNG.integers(1, 60, 4_000)
OWNERS = np.arange(4_000) // 2


def judge(
    candidate, champion=CHAMPION, rankers=None, min_positions=2_000, chosen_by=900
) -> Verdict:
    count = len(candidate)
    ranks = GateRanks(np.asarray(candidate), champion, rankers or {}, OWNERS[:count], count - 1)
    rules = GateRules(margin=0.02, min_positions=min_positions, draws=300, seed=1)
    return verdict(ranks, rules, "lstm", chosen_by)


def test_an_equal_or_better_candidate_is_promoted_with_its_numbers():
    assert judge(CHAMPION).promote
    found = judge(np.maximum(1, CHAMPION - 3))
    assert found.promote
    assert found.numbers.versus_champion["mrr@20"]["low"] > 0
    assert found.numbers.positions == 4_000


def test_a_worse_candidate_is_refused_with_its_interval():
    found = judge(CHAMPION + 5)
    assert not found.promote
    assert "below the bound" in found.reason


def test_a_candidate_within_the_margin_is_promoted():
    candidate = CHAMPION.copy()
    candidate[:20] += 1
    assert judge(candidate).promote


def test_a_ranker_that_needs_no_training_must_not_do_better():
    found = judge(CHAMPION, rankers={"transitions": np.maximum(1, CHAMPION - 2)})
    assert not found.promote
    assert "transitions" in found.reason


def test_too_few_positions_keep_it_back():
    found = judge(CHAMPION[:1_999], champion=CHAMPION[:1_999])
    assert not found.promote
    assert "1999 positions" in found.reason


def test_without_a_champion_the_best_on_validation_is_published_and_says_so():
    found = judge(CHAMPION[:10], champion=None)
    assert found.promote
    assert "no champion" in found.reason
    assert (
        "of its rankings lstm did best on 900 validation positions (the test window has 10)"
        in found.reason
    )


def test_too_few_validation_positions_praise_nothing():
    found = judge(CHAMPION[:10], champion=None, chosen_by=1)
    assert found.promote
    assert "best" not in found.reason
    assert "validation has 1 positions, too few to choose by" in found.reason
    assert "the figures rest on 9 of 10 test positions" in found.reason
    assert (found.numbers.seen_positions, found.numbers.validation_positions) == (9, 1)


def test_every_verdict_says_on_how_many_positions_it_rests():
    better, worse = judge(np.maximum(1, CHAMPION - 3)), judge(CHAMPION + 5)
    beaten = judge(CHAMPION, rankers={"transitions": np.maximum(1, CHAMPION - 2)})
    for found in (better, worse, beaten):
        assert "4,000 positions" in found.reason


def test_a_lucky_mean_with_a_wide_interval_is_not_enough():
    few = 60
    candidate = RNG.integers(1, 60, few)
    champion = RNG.permutation(candidate)
    assert not judge(candidate, champion=champion, min_positions=10).promote
