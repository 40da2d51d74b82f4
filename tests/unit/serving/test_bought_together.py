"""Baskets, held against a count by hand."""

import random
from math import sqrt

import numpy as np
import pytest

from recsys.events.times import DAY_US
from recsys.serving.bought_together import DAMPING, MAX_BASKET, baskets_of
from recsys.storage.entities.live_events import LiveBatch


def batch(*rows):
    """Of (owner, item, day, session)."""
    owners, items, days, sessions = zip(*rows, strict=True)
    times = np.array(days, np.int64) * DAY_US
    return LiveBatch(list(owners), list(items), ["cart"] * len(rows), times, list(sessions), False)


def test_scores_are_damped_cosines_over_baskets():
    rng = random.Random(5)
    rows = [
        (f"u:{rng.randrange(9)}", f"i{rng.randrange(6)}", rng.randrange(3), rng.choice([None, "s"]))
        for _ in range(120)
    ]
    baskets = {}
    for owner, item, day, session in rows:
        baskets.setdefault((owner, session or day), set()).add(item)

    def holding(*items):
        return sum(1 for one in baskets.values() if one.issuperset(items))

    found = dict(baskets_of([batch(*rows[:50]), batch(*rows[50:])]).together(["i1", "i2", "none"]))
    for other in ("i0", "i3", "i4", "i5"):
        expected = sum(
            holding(one, other) / sqrt((holding(one) + DAMPING) * (holding(other) + DAMPING))
            for one in ("i1", "i2")
        )
        assert found[other] == pytest.approx(expected / 2, abs=1e-6)
    assert found.keys().isdisjoint({"i1", "i2"})
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_list_is_no_basket_and_nothing_is_nothing():
    rows = [("u:a", f"i{n}", 0, None) for n in range(MAX_BASKET + 1)]
    assert baskets_of([batch(*rows)]).together(["i1"]) == []
    assert baskets_of([]).together(["i1"]) == []
