"""Who is in an experiment and in which arm."""

import numpy as np
import pytest

from recsys.errors import ConflictError
from recsys.steering.assignment import BUCKETS, bucket_of, drawn_arm, holds, widened
from recsys.steering.sample_ratio import ALARM, sample_ratio_p

KEY = b"k" * 32
UNITS = [f"u:{number}" for number in range(20_000)]


def test_units_spread_as_allocation_and_weights_say():
    ranges = widened((), (), 0.2)
    inside = [unit for unit in UNITS if holds(ranges, bucket_of("of a", unit, KEY))]
    assert len(inside) == pytest.approx(4_000, abs=250)
    arms = np.bincount([drawn_arm("a", unit, (1, 1, 2), KEY) for unit in inside])
    assert sample_ratio_p(arms.tolist(), (1, 1, 2)) > ALARM
    assert sample_ratio_p(arms.tolist(), (1, 1, 1)) < ALARM


def test_a_ramp_moves_nobody():
    small = widened((), [((2_000, 3_000),)], 0.25)
    large = widened(small, [((2_000, 3_000),)], 0.6)
    before = {u for u in UNITS if holds(small, bucket_of("group g", u, KEY))}
    after = {u for u in UNITS if holds(large, bucket_of("group g", u, KEY))}
    assert before < after
    assert widened(large, [], 0.6) == large


def test_experiments_of_a_group_share_no_unit_and_mix_anew():
    first = widened((), (), 0.5)
    second = widened((), [first], 0.5)
    assert sum(high - low for low, high in (*first, *second)) == BUCKETS
    for unit in UNITS[:2_000]:
        bucket = bucket_of("group g", unit, KEY)
        assert holds(first, bucket) != holds(second, bucket)
    one, other = (np.array([drawn_arm(name, u, (1, 1), KEY) for u in UNITS]) for name in "ab")
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    other_key = [drawn_arm("a", u, (1, 1), b"other") for u in UNITS]
    assert abs(np.corrcoef(one, other_key)[0, 1]) < 0.03


def test_a_ramp_is_refused_where_it_shrinks_or_has_no_room():
    with pytest.raises(ConflictError, match="can only grow"):
        widened(((0, 2_000),), (), 0.1)
    with pytest.raises(ConflictError, match=r"room for an allocation of 0\.3000, not 0\.4000"):
        widened(((0, 1_000),), [((1_000, 8_000),)], 0.4)
