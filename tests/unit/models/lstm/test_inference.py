"""One history by compiled loops says what the network's own modules say."""

import numpy as np
import pytest
import torch

from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Histories
from recsys.models.lstm import kernels
from recsys.models.lstm.batch_scorer import BatchScorer
from recsys.models.lstm.bodies import BODIES
from recsys.models.lstm.item_matrix import KINDS, ItemMatrix
from recsys.models.lstm.network import NextItemNetwork, as_module
from recsys.models.lstm.network_scorer import NetworkScorer
from recsys.models.lstm.weights import NetworkShape, array_shapes, shape_plain, stored_network

CHANNELS = {"event_type": 4, "gap": 27, "session": 2, "category": 5}
HISTORIES = [[2], [5, 5], [1, 1], [3, 1, 4], list(range(2, 40)), [7, 8] * 40, []]


def network(body="lstm", layers=1, copy=True, channels=CHANNELS, scale=0.3, rows=60, width=24):
    torch.manual_seed(3)
    shape = NetworkShape(rows, width, layers, 20, body=body, copy=copy, channels=dict(channels))
    made = NextItemNetwork(shape)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(scale * torch.randn(parameter.shape))
        made.item_categories.copy_(torch.arange(rows) % 5)
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
    made = network(body, layers=2)
    scorer = NetworkScorer(made, 20, policy)
    batch = BatchScorer(made, 20, policy).predict(history(items))
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
    made = network(copy=copy, channels=channels)
    scorer = NetworkScorer(made, 20)
    batch = BatchScorer(made, 20).predict(history([2, 9, 4]))
    state = scorer.state(history([2, 9, 4]))
    np.testing.assert_allclose(scan_of(scorer, state.vector)[2:], batch.scores[0, 2:], atol=1e-4)
    assert (state.gate > -1e8) == copy


def test_the_scan_of_every_kind_of_matrix_is_its_batch(subtests):
    made = network()
    state = torch.randn(1, 24).numpy()
    for kind in KINDS:
        with subtests.test(kind=kind):
            matrix = ItemMatrix.of(made, kind)
            found = np.empty(len(made.item_bias), np.float32)
            matrix.scan(state[0], found)
            several = matrix.scores(state)[0]
            close = 1e-4 * np.abs(several).max() if kind == "int8" else 1e-5
            np.testing.assert_allclose(found, several, rtol=1e-5, atol=close)


def table_by_torch(weight, kind):
    """The item table as a compact form holds it, as float32."""
    if kind == "bfloat16":
        return weight.to(torch.bfloat16).float()
    if kind == "int8":
        scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        return (weight / scales[:, None]).round() * scales[:, None]
    return weight


@pytest.mark.parametrize("body", sorted(BODIES))
def test_answers_without_torch_are_those_of_torch(body, subtests):
    made = network(body, layers=2, scale=0.05, rows=400, width=32)
    stored = stored_network(made.arrays(), shape_plain(made))
    rng = np.random.default_rng(7)
    asked = [history(rng.integers(1, 400, rng.integers(1, 30)).tolist()) for _ in range(120)]
    policy = RepeatPolicy(True, True)
    batch = BatchScorer(made, 20, policy)
    with torch.inference_mode():
        for kind in KINDS:
            table = table_by_torch(made.items.weight, kind)
            batch.matrix = (
                None if kind == "float32" else ItemMatrix(table.numpy(), made.item_bias.numpy())
            )
            matrix = None if kind == "float32" else ItemMatrix.of(stored, kind)
            scorer = NetworkScorer(stored, 20, policy, matrix)
            close = 2e-4 if kind == "int8" else 1e-5  # its state is rounded to 16 bits
            with subtests.test(kind=kind):
                for one in asked:
                    state, wanted = scorer.state(one), batch.predict(one)
                    found, torchs = scan_of(scorer, state.vector)[2:], wanted.scores[0, 2:]
                    np.testing.assert_allclose(found, torchs, rtol=1e-5, atol=close)
                    best = np.argsort(-found, kind="stable")
                    assert (np.diff(torchs[best]) <= 2 * close).all()
                    np.testing.assert_allclose(state.shares, wanted.shares[0], atol=1e-5)
                    assert state.gate == pytest.approx(float(wanted.gate[0]), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("body", sorted(BODIES))
@pytest.mark.parametrize(("copy", "channels"), [(True, CHANNELS), (False, {})])
def test_a_network_s_arrays_are_torch_s_own(body, copy, channels):
    made = network(body, layers=2, copy=copy, channels=channels)
    held = made.arrays()
    assert {name: array.shape for name, array in held.items()} == array_shapes(made.shape)
    held["item_bias"][5] = 7.5
    assert made.item_bias[5] == 7.5
    again = as_module(stored_network(held, shape_plain(made)))
    assert not again.training and as_module(made) is made
    held["item_bias"][5] = 2.5
    assert again.item_bias[5] == 2.5
    assert again.shape == made.shape


def test_similar_items_are_by_the_cosine():
    made = network()
    new = np.zeros((2, 24), np.float32)
    new[0] = made.arrays()["items.weight"][9]
    table = np.concatenate((made.arrays()["items.weight"], new))
    wanted = torch.cosine_similarity(torch.from_numpy(table), torch.from_numpy(table[9])[None])
    scorer = NetworkScorer(made, 20)
    for row in (9, 60):  # the second is newer than the network, with the same vector
        np.testing.assert_allclose(scorer.similar(row, new), wanted.numpy(), atol=1e-5)
    assert not scorer.similar(61, new).any()


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
