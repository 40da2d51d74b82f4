from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from recsys.events.sequences import Histories
from recsys.models.batch_ranking import scores
from recsys.models.bundle import compacted
from recsys.models.lstm import item_matrix
from recsys.models.lstm.item_matrix import KINDS, ItemMatrix
from recsys.registry import read_version, write_version

HISTORIES = Histories.from_lists([[2, 3, 4], [9], [30, 2, 30, 7], []])


def table():
    rng = np.random.default_rng(1)
    return drawn(rng, 500, 16), drawn(rng, 500)


def drawn(rng, *shape):
    return rng.standard_normal(shape, np.float32)


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1), ("int8", 0.2)]
)
def test_products_come_close_and_a_row_does_not_depend_on_others(kind, tolerance):
    weights, bias = table()
    matrix = ItemMatrix(weights, bias, kind)
    states = drawn(np.random.default_rng(2), 7, 16)
    found = matrix.scores(states)
    np.testing.assert_allclose(found, states @ weights.T + bias, atol=tolerance, rtol=0)
    for row in range(7):
        alone = matrix.scores(states[row : row + 1])[0]
        np.testing.assert_allclose(alone, found[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_state_is_scanned_as_several_are_multiplied(kind, monkeypatch):
    monkeypatch.setattr(item_matrix, "CHUNK_ROWS", 64)
    weights, bias = table()
    matrix = ItemMatrix(weights, bias, kind)
    states = drawn(np.random.default_rng(3), 3, 16)
    found = matrix.scores(states)
    for row, state in enumerate(states):
        scanned = np.empty(len(bias), np.float32)
        matrix.scan(state, scanned)
        # int8's state is rounded to 16 bits, far finer than its table.
        close = 1e-4 * np.abs(found[row]).max() if kind == "int8" else 1e-4
        np.testing.assert_allclose(scanned, found[row], rtol=1e-4, atol=close)


def test_a_wide_state_does_not_overflow_the_sum_of_whole_numbers():
    weights = np.ones((3, 2_048), np.float32)
    matrix = ItemMatrix(weights, np.zeros(3, np.float32), "int8")
    scanned = np.empty(3, np.float32)
    matrix.scan(np.ones(2_048, np.float32), scanned)
    np.testing.assert_allclose(scanned, 2_048, rtol=1e-3)


def test_sizes_are_a_half_and_about_a_quarter():
    weights, bias = drawn(np.random.default_rng(4), 1_000, 128), np.zeros(1_000, np.float32)
    full, half, quarter = (ItemMatrix(weights, bias, kind).size_bytes for kind in KINDS)
    assert half < 0.51 * full
    assert quarter < 0.27 * full


def test_compact_numbers_are_those_of_torch():
    rng = np.random.default_rng(5)
    values = drawn(rng, 400, 16) * np.exp(drawn(rng, 400, 1) * 20)
    values[0] = 0
    wanted = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal(item_matrix.upper_halves(values), wanted)
    parts = load(ItemMatrix(values, np.zeros(400, np.float32), "int8").packed())
    scales = torch.from_numpy(values).abs().amax(dim=1).clamp(min=1e-12) / 127
    assert np.array_equal(parts["scales"], scales.numpy())
    whole = (torch.from_numpy(values) / scales[:, None]).round().to(torch.int8)
    assert np.array_equal(parts["table"], whole.numpy())


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_a_compacted_version_serves_almost_the_same(tiny_shop, tmp_path, kind):
    digest, _ = write_version(tmp_path, tiny_shop.bundle)
    loaded = read_version(tmp_path, tiny_shop.bundle.version, digest)
    held = compacted(loaded, kind)
    whole = scores(tiny_shop.bundle, HISTORIES, "lstm")
    found = scores(held, HISTORIES, "lstm")
    assert np.array_equal(np.isneginf(whole), np.isneginf(found))
    finite = np.isfinite(whole)
    np.testing.assert_allclose(found[finite], whole[finite], rtol=0.15, atol=1e-4)
    assert held.matrix.size_bytes < ItemMatrix.of(loaded.network, "float32").size_bytes * 0.6


def test_an_unknown_kind_is_refused(tiny_shop):
    with pytest.raises(ValueError, match="no such item matrix: int3"):
        compacted(replace(tiny_shop.bundle), "int3")
