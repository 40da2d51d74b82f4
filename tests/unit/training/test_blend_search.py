from dataclasses import replace

import numpy as np
import pytest

from recsys.events.time_split import Baskets, Positions, positions_from
from recsys.models.batch_ranking import scores
from recsys.models.blend import BLEND, Blend
from recsys.models.rankers import BLENDABLE
from recsys.models.session_knn import SessionKnn
from recsys.training.blend_search import (
    _weighted,
    calibrate,
    candidates_of,
    choose_blend,
    tune_ranker,
)
from recsys.training.report import target_ranks


@pytest.fixture(scope="module")
def case(tiny_shop):
    """The tiny shop's last events, as positions of its own model."""
    from recsys.events.frame import frame_from_table
    from recsys.training.event_log import make_log

    bundle = tiny_shop.bundle
    log = make_log(frame_from_table(tiny_shop.events), tiny_shop.settings)
    encoded = log.encoded(bundle.vocabulary, bundle.event_types)
    cut = int(np.quantile(encoded.timestamps_us, 0.9))
    positions = positions_from(encoded, cut).known.sample(300, np.random.default_rng(0))
    return bundle, positions


def basketed(positions: Positions) -> Positions:
    """The same histories with two wanted items each."""
    items = np.stack((positions.targets, np.roll(positions.targets, 1)), axis=1).ravel()
    offsets = np.arange(0, 2 * len(positions) + 1, 2)
    return replace(positions, baskets=Baskets(offsets, items))


BLENDS = [
    Blend({"lstm": 1.0}),
    Blend({"lstm": 0.5, "session_knn": 0.3, "transitions": 0.2}, 0.3, 1.0, 0.4),
    Blend({"lstm": 0.0, "session_knn": 1.0}, gate_shift=-2.0),
]


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("several", [False, True])
def test_ranks_among_candidates_are_those_of_the_whole_catalogue(case, blend, several):
    """The shop has fewer items than candidates are kept, so nothing is lost: both ways agree."""
    bundle, positions = case
    positions = basketed(positions) if several else positions
    found = candidates_of(bundle, positions, BLENDABLE).ranks(blend)
    served = replace(bundle, blends={BLEND: blend})
    whole = target_ranks(scores(served, positions.histories, BLEND), positions, 0)
    reachable = whole < len(bundle.vocabulary)
    assert reachable.mean() > 0.9
    # The two sums differ in their last bits: a rank may move by a near tie.
    assert (np.abs(found[reachable] - whole[reachable]) <= 1).all()
    assert (found[reachable] == whole[reachable]).mean() > 0.97


def test_the_search_never_ends_below_its_start(case):
    bundle, positions = case
    candidates = candidates_of(bundle, positions, BLENDABLE)
    start = Blend({"lstm": 1.0})
    alone = calibrate(candidates)
    assert alone.objective >= candidates.objective(start)
    assert alone.objective == pytest.approx(candidates.objective(alone.blend))
    assert set(alone.blend.weights) == {"lstm"}
    better = choose_blend(candidates, alone.blend)
    assert better.objective >= alone.objective
    assert sum(better.blend.weights.values()) == pytest.approx(1.0, abs=1e-4)


def test_a_network_that_knows_nothing_gets_no_weight(case):
    bundle, positions = case
    candidates = candidates_of(bundle, positions, BLENDABLE)
    rng = np.random.default_rng(0)
    noise = np.where(
        np.isneginf(candidates.scores), -np.inf, rng.normal(size=candidates.scores.shape)
    )
    deaf = replace(
        candidates, scores=noise.astype(np.float32), gate=np.full_like(candidates.gate, -1e9)
    )
    blend = choose_blend(deaf, Blend({"lstm": 1.0})).blend
    assert blend.weights["lstm"] < 0.3


def test_weights_stay_shares():
    blend = Blend({"lstm": 0.6, "session_knn": 0.4})
    assert _weighted(blend, "transitions", 0.5, "lstm").weights == {
        "lstm": 0.3,
        "session_knn": 0.2,
        "transitions": 0.5,
    }
    assert _weighted(blend, "session_knn", 1.0, "lstm").weights == {"lstm": 0.0, "session_knn": 1.0}
    only = Blend({"lstm": 0.0, "session_knn": 1.0})
    assert _weighted(only, "session_knn", 0.2, "lstm").weights == {"lstm": 0.8, "session_knn": 0.2}


def test_session_knn_is_tuned_within_its_search_space(case):
    bundle, positions = case
    knn = bundle.rankers["session_knn"]
    assert isinstance(knn, SessionKnn)
    plain = replace(knn, order_decay=0.0, copy_share=0.0)
    chosen = tune_ranker(plain, positions, bundle)
    assert np.array_equal(chosen.item_sessions, plain.item_sessions)
    for key, values in knn.search_space.items():
        assert getattr(chosen, key) in values
    again = tune_ranker(plain, positions, bundle)
    assert (chosen.order_decay, chosen.copy_share) == (again.order_decay, again.copy_share)
