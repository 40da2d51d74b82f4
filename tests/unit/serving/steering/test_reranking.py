"""Diversity, rotation, exploration and business value, each as a function of its own."""

import numpy as np
import pytest

from recsys.serving.answers import Candidate
from recsys.serving.steering.business_value import by_value, chances_of
from recsys.serving.steering.diversity import diversified
from recsys.serving.steering.exploration import POOL, drawn_places, most_uncertain, pools_of
from recsys.serving.steering.rotation import Showing, sunk_items

HOUR = 3_600_000_000


def plain_mmr(vectors, diversity, k):
    """Maximal marginal relevance as its paper writes it, one product at a time."""
    unit = [v / max(np.linalg.norm(v), 1e-9) for v in vectors]
    left, chosen = list(range(len(unit))), []
    while left and len(chosen) < k:

        def worth(c):
            likeness = max((float(unit[c] @ unit[s]) for s in chosen), default=0.0)
            return (1 - diversity) * (1 - c / len(unit)) - diversity * likeness

        chosen.append(max(left, key=worth))
        left.remove(chosen[-1])
    return chosen + left


@pytest.mark.parametrize("diversity", [0.0, 0.2, 0.7, 1.0])
def test_diversity_is_maximal_marginal_relevance(diversity):
    vectors = np.random.default_rng(5).normal(size=(40, 8)).astype(np.float32)
    vectors[7] = 0  # an item that the model has no vector for
    found = diversified(vectors, diversity, 12).tolist()
    assert found == plain_mmr(vectors, diversity, 12)
    assert sorted(found) == list(range(40))
    assert (found == list(range(40))) == (diversity == 0)


def test_a_list_grows_more_diverse_with_the_knob():
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(6, 16))
    vectors = (centres[rng.integers(0, 6, 120)] + 0.3 * rng.normal(size=(120, 16))).astype("f")

    def likeness(order):
        chosen = vectors[order[:10]] / np.linalg.norm(vectors[order[:10]], axis=1)[:, None]
        return (chosen @ chosen.T)[np.triu_indices(10, 1)].mean()

    found = [likeness(diversified(vectors, knob, 10)) for knob in (0.0, 0.3, 0.9)]
    assert found[0] > found[1] > found[2]


def test_an_item_sinks_after_its_last_showing_and_comes_back():
    seen = [Showing("a", hour * HOUR) for hour in (1, 3, 5)]

    def sinks(at_hour, times=3, hours=6, touched=None):
        return "a" in sunk_items(seen, touched or {}, times, hours * HOUR, at_hour * HOUR)

    assert not sinks(6, times=4) and not sinks(6, hours=3)
    assert sinks(6) and sinks(10.9) and not sinks(11)  # six hours after the third time
    assert not sinks(6, touched={"a": 2 * HOUR})  # one of the three was before its click
    assert sinks(6, times=2, touched={"a": 2 * HOUR})
    assert sinks(5.5, times=1, hours=1) and not sinks(6, times=1, hours=1)


def test_draws_follow_from_the_answers_id_and_have_the_chances_that_are_logged():
    sizes = np.array([5, 2, 0, 1])
    assert (drawn_places("r1", sizes, 0.2) == drawn_places("r1", sizes, 0.2)).all()
    drawn = np.array([drawn_places(f"r{n}", sizes, 0.2) for n in range(4_000)])
    assert (drawn[:, 2] == -1).all() and (drawn < sizes).all()
    explored = drawn >= 0
    np.testing.assert_allclose(explored[:, [0, 1, 3]].mean(axis=0), 0.2, atol=0.03)
    for place in range(5):
        assert (drawn[:, 0] == place).mean() == pytest.approx(0.2 / 5, abs=0.015)
    both = (explored[:, 0] & explored[:, 1]).mean()
    assert both == pytest.approx(0.04, abs=0.015)  # positions are independent


def test_pools_hold_what_is_uncertain_and_have_nothing_in_common():
    events = np.full(150, 500.0)
    events[[40, 149]] = 0  # two items that nobody has had yet
    tried = most_uncertain(events, 100).tolist()
    assert {40, 149} <= set(tried[:60]) and tried[0] == 40
    pools = pools_of(tried, [0, 1, 3])
    dealt = [place for pool in pools.values() for place in pool]
    assert pools.keys() == {0, 1, 3} and len(dealt) == len(set(dealt)) == 3 * POOL
    assert pools_of([], [0]) == {0: []} and len(most_uncertain(np.empty(0), 5)) == 0


def test_value_orders_what_the_ranking_gave_and_then_what_is_popular():
    given = [
        *(Candidate("a", 0.4, "lstm"), Candidate("b", 0.3, "lstm"), Candidate("c", 9.0, "lstm")),
        *(Candidate("d", 30.0, "popular"), Candidate("e", 10.0, "popular")),
    ]
    chances = chances_of(given, {"lstm"})
    assert chances.tolist() == [0.4, 0.3, 0.3, 0.75, 0.25]
    margin = np.array([1.0, 2.0, np.nan, 1.0, 4.0])
    found = by_value(given, chances * margin, {"lstm"})
    assert [one.item_id for one in found] == ["b", "a", "c", "e", "d"]
    assert [one.score for one in found] == [0.6, 0.4, 0.0, 1.0, 0.75]
    assert by_value([], np.empty(0), {"lstm"}) == []
