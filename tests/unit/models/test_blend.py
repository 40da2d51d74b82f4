import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.models.blend import (
    SHARPEST,
    Blend,
    Components,
    blended,
    blended_by_source,
    log_sum_of_best,
)

ROWS = 9


def components(gate: float = 0.4) -> Components:
    scores = np.array([[0, 0, 1.0, 2.0, -np.inf, 0.5, 3.0, 0.0, 1.5]], np.float32)
    scores[:, :2] = -np.inf
    votes = (np.array([3, 4, 7], np.int32), np.array([1.0, 8.0, 3.0], np.float32))
    return Components(
        network="lstm",
        scores=scores,
        pointed=np.array([[3, 5, 3, 0]]),
        shares=np.array([[0.2, 0.5, 0.3, 0.0]], np.float32),
        gate=np.array([gate], np.float32),
        votes={"session_knn": [votes]},
        recent=np.linspace(0, 2, ROWS, dtype=np.float32),
    )


def test_the_formula_item_by_item():
    blend = Blend({"lstm": 0.7, "session_knn": 0.3}, sharpness=0.5, gate_shift=0.2, recency=0.1)
    given_components = components()
    found = blended(blend, given_components)[0]
    logits = 0.5 * (given_components.scores[0] + 0.1 * given_components.recent)
    softmax = np.exp(logits) / np.exp(logits).sum()
    gate = 1 / (1 + np.exp(-0.6))
    knn = {3: 0.25, 7: 0.75}  # item 4 may not come next: its vote is no part of the sum
    copies = {3: 0.5, 5: 0.5}
    for item in range(2, ROWS):
        if item == 4:
            assert np.isneginf(found[item])
            continue
        expected = (1 - gate) * (0.7 * softmax[item] + 0.3 * knn.get(item, 0.0))
        expected += gate * copies.get(item, 0.0)
        np.testing.assert_allclose(found[item], expected, rtol=1e-5)
    np.testing.assert_allclose(found[np.isfinite(found)].sum(), 1.0, rtol=1e-5)


def test_parts_add_up_to_the_whole():
    blend = Blend({"lstm": 0.4, "session_knn": 0.6}, gate_shift=-1.0)
    parts = blended_by_source(blend, components())
    whole = blended(blend, components())
    finite = np.isfinite(whole)
    total = sum(parts.values())
    np.testing.assert_allclose(total[finite], whole[finite], rtol=1e-5)
    assert set(parts) == {"lstm", "copy", "session_knn"}


def test_a_weight_of_one_is_that_component_alone():
    nothing_to_copy = components(gate=-1e9)
    knn = blended(Blend({"lstm": 0.0, "session_knn": 1.0}), nothing_to_copy)[0]
    np.testing.assert_allclose(knn[[3, 7]], [0.25, 0.75])
    assert (knn[[2, 5, 6, 8]] == 0).all()


@given(st.floats(0.1, 1.3), st.integers(0, 10**6))
def test_a_large_catalogue_is_scaled_by_its_best(sharpness, seed):
    scores = np.random.default_rng(seed).normal(size=(2, 3 * SHARPEST)).astype(np.float32)
    found = log_sum_of_best(scores * np.float32(sharpness))
    for row in range(2):
        best = np.sort(scores[row].astype(np.float64))[-SHARPEST:] * sharpness
        np.testing.assert_allclose(found[row], np.log(np.exp(best).sum()), rtol=1e-4)


def test_plain_and_back():
    blend = Blend({"lstm": 0.4, "session_knn": 0.6}, 0.3, 1.0, 0.2)
    assert Blend(**blend.plain()) == blend
