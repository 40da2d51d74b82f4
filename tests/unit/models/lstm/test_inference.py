"""One history by compiled loops says what the network's own modules say."""

import numpy as np
import pytest
import torch

from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Histories
from recsys.models.lstm import kernels
from recsys.models.lstm.bodies import BODIES
from recsys.models.lstm.network import NetworkShape, NextItemNetwork
from recsys.models.lstm.network_scorer import NetworkScorer

CHANNELS = {"event_type": 4, "gap": 27, "session": 2, "category": 5}
HISTORIES = [[2], [5, 5], [1, 1], [3, 1, 4], list(range(2, 40)), [7, 8] * 40, []]


def network(body="lstm", layers=1, copy=True, channels=CHANNELS):
    torch.manual_seed(3)
    shape = NetworkShape(60, 24, layers, 20, body=body, copy=copy, channels=dict(channels))
    made = NextItemNetwork(shape)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
        made.item_categories.copy_(torch.arange(60) % 5)
    return made.eval()


def history(items):
    count = len(items)
    rng = np.random.default_rng(count)
    return Histories(
        items=np.array(items, np.int32),
        event_types=rng.integers(0, 4, count).astype(np.int16),
        timestamps_us=np.cumsum(rng.integers(1, 10**10, count)),
        session_starts=rng.random(count) < 0.3,
        starts=np.zeros(1, np.int64),
        ends=np.full(1, count, np.int64),
    )


def scan_of(scorer, state):
    found = np.empty(scorer.rows, np.float32)
    scorer.scan(state, found)
    return found


@pytest.mark.parametrize("body", sorted(BODIES))
@pytest.mark.parametrize("policy", [RepeatPolicy(True, True), RepeatPolicy(False, True)], ids=str)
@pytest.mark.parametrize("items", HISTORIES, ids=lambda items: str(len(items)))
def test_the_state_of_one_history_is_that_of_a_batch(body, policy, items):
    scorer = NetworkScorer(network(body, layers=2), 20, policy)
    batch = scorer.predict(history(items))
    state = scorer.state(history(items))
    rows = np.flatnonzero(np.isfinite(batch.scores[0]))
    known = any(item >= 2 for item in items[-20:])
    assert np.isneginf(batch.scores[0, :2]).all()
    if items:
        np.testing.assert_allclose(
            scorer.score(state.vector, rows), batch.scores[0, rows], rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(
            scan_of(scorer, state.vector)[rows], batch.scores[0, rows], rtol=1e-4, atol=1e-4
        )
    assert state.gate == pytest.approx(float(batch.gate[0]), rel=1e-4, abs=1e-4)
    if state.gate > -1e8:
        assert known
        np.testing.assert_array_equal(state.pointed, batch.pointed[0])
        np.testing.assert_allclose(state.shares, batch.shares[0], atol=1e-5)
        assert state.shares.sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("copy", "channels"), [(False, CHANNELS), (True, {}), (False, {})])
def test_a_network_without_copy_head_or_channels_is_read_too(copy, channels):
    scorer = NetworkScorer(network(copy=copy, channels=channels), 20)
    batch, state = scorer.predict(history([2, 9, 4])), scorer.state(history([2, 9, 4]))
    np.testing.assert_allclose(scan_of(scorer, state.vector)[2:], batch.scores[0, 2:], atol=1e-4)
    assert (state.gate > -1e8) == copy


def test_the_scan_of_every_kind_of_matrix_is_its_batch(subtests):
    from recsys.models.lstm.item_matrix import KINDS, ItemMatrix

    made = network()
    state = torch.randn(1, 24)
    for kind in KINDS:
        with subtests.test(kind=kind):
            matrix = ItemMatrix.of(made, kind)
            found = np.empty(len(made.item_bias), np.float32)
            matrix.scan(state[0].numpy(), found)
            np.testing.assert_allclose(found, matrix.scores(state)[0].numpy(), rtol=1e-5, atol=1e-5)


def test_sigmoid_is_right_everywhere():
    z = np.concatenate((np.linspace(-200, 200, 20_001), [0.0, -np.inf, np.inf])).astype(np.float32)
    wanted = 1 / (1 + np.exp(-np.clip(z.astype(np.float64), -300, 300)))
    kernels.sigmoid(z, np.empty(len(z), np.int32))
    np.testing.assert_allclose(z, wanted, atol=2e-7)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1_000, 20_000])
@pytest.mark.parametrize("count", [1, 5, 256, 5_000])
def test_the_largest_are_those_of_a_sort(size, count):
    rng = np.random.default_rng(size)
    values = np.round(rng.normal(size=size), 2).astype(np.float32)
    values[rng.random(size) < 0.1] = -np.inf
    finite = np.sort(values[np.isfinite(values)])[::-1]
    wanted = np.flatnonzero(values >= finite[min(count, len(finite)) - 1])
    found = kernels.largest(values, count)
    assert set(wanted) == set(found)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("kind", [np.float32, np.int64])
@pytest.mark.parametrize(
    "values", [[3], [1, 1, 1, 1], [5, 1, 4, 1, 5, 9, 2, 6], range(40), range(40, 0, -1)]
)
def test_the_kth_largest_is_that_of_a_sort(values, kind):
    for k in range(1, len(values) + 1):
        reordered = np.array(values, kind)
        wanted = sorted(values, reverse=True)
        assert kernels.kth_largest(reordered, k) == wanted[k - 1]
        assert sorted(reordered[:k], reverse=True) == wanted[:k]
        assert sorted(reordered) == sorted(values)


def test_nothing_is_the_largest_of_nothing():
    assert len(kernels.largest(np.full(100, -np.inf, np.float32), 5)) == 0
