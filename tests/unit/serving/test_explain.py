"""Leave-one-out against a slow reference that builds every shortened history anew."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.events.times import SECOND_US
from recsys.models.batch_ranking import scores
from recsys.models.blend import Blend
from recsys.models.ranking import encode_history
from recsys.serving.explain import contributions, leave_one_out

KINDS = {
    "lstm": Blend({"lstm": 1.0}, 0.5, -9.0),
    "copy": Blend({"lstm": 1.0}, 0.5, 3.0),
    "blend": Blend({"lstm": 0.5, "session_knn": 0.3, "transitions": 0.2}, 0.5, 0.0, 0.1),
}


def past(tiny_shop, length):
    ids = tiny_shop.bundle.vocabulary.item_ids
    rng = np.random.default_rng(4)
    items = [ids[number] for number in rng.integers(0, len(ids), length)]
    items[2] = items[0]  # a repeat, so that the copy head has something to point to twice
    times = np.cumsum(rng.choice([5, 90, 4_000], length)) * SECOND_US + 10**15
    return items, times.tolist()


def encoded(bundle, items, times):
    count = len(items)
    return encode_history(bundle, items, ["view"] * count, times, [None] * count)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 9, 30])
def test_contributions_match_one_shortened_history_at_a_time(tiny_shop, kind, length):
    bundle = replace(tiny_shop.bundle, ranking="blend", blends={"blend": KINDS[kind]})
    items, times = past(tiny_shop, max(length, 3))
    items, times = items[:length], times[:length]
    whole = encoded(bundle, items, times)
    asked = np.array([2, 7, 11, 40])
    found = contributions(bundle, whole, asked)
    read = min(length, bundle.max_length)
    assert found.shape == (4, read)
    items, times = items[-read:], times[-read:]
    full = scores(bundle, encoded(bundle, items, times))[0, asked]
    for out in range(read):
        rest = encoded(bundle, items[:out] + items[out + 1 :], times[:out] + times[out + 1 :])
        without = scores(bundle, rest)[0, asked]
        np.testing.assert_allclose(found[:, out], full - without, atol=2e-6)
    assert np.abs(found).max() > 0


def test_a_session_start_moves_on_to_the_next_event(tiny_shop):
    items, times = past(tiny_shop, 4)
    times = [0, SECOND_US, 10**10, 10**10 + SECOND_US]
    history = encoded(tiny_shop.bundle, items, times)
    assert history.session_starts.tolist() == [True, False, True, False]
    shortened = leave_one_out(history)
    flags = shortened.session_starts.reshape(4, 3).tolist()
    assert flags == [
        [True, True, False],
        [True, True, False],
        [True, False, True],
        [True, False, True],
    ]
