"""Metrics worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.training.report import coverage, ndcg, ranks, recall, reciprocal_rank

INF = np.inf


def test_ranks_with_ties_against_us():
    scores = np.array(
        [
            [-INF, -INF, 0.9, 0.5, 0.5, 0.1],
            [-INF, -INF, 0.0, 0.0, 0.0, 0.0],
            [-INF, -INF, 0.3, 0.2, -INF, 0.1],
            [-INF, -INF, 0.3, 0.2, 0.4, 0.1],
        ],
        np.float32,
    )
    targets = np.array([3, 2, 4, 1], np.int32)  # tied, all tied, masked, unknown
    assert ranks(scores, targets).tolist() == [3, 4, 6, 6]


def test_figures_of_known_ranks():
    found = np.array([1, 2, 20, 21, 500])
    assert recall(found, 20).tolist() == [1, 1, 1, 0, 0]
    assert reciprocal_rank(found, 20) == pytest.approx([1, 0.5, 0.05, 0, 0])
    assert ndcg(found, 10) == pytest.approx([1, 1 / np.log2(3), 0, 0, 0])


def test_k_beyond_the_catalogue_finds_every_known_target():
    scores = np.array([[-INF, -INF, 0.1, 0.2]], np.float32)
    assert recall(ranks(scores, np.array([2], np.int32)), 1_000).tolist() == [1.0]


def test_nothing_in_nothing_out():
    empty = ranks(np.empty((0, 5), np.float32), np.empty(0, np.int32))
    assert len(empty) == len(recall(empty, 5)) == len(ndcg(empty, 5)) == 0


def test_coverage_leaves_special_rows_out():
    shown = np.array([True, True, True, False, False, True])
    assert coverage(shown) == 0.5
    assert coverage(np.array([True, True])) == 0.0


@given(st.lists(st.integers(1, 100), min_size=1), st.integers(1, 99))
def test_bounds_and_monotonicity_in_k(values, k):
    found = np.array(values)
    for metric in (recall, reciprocal_rank, ndcg):
        small, large = metric(found, k), metric(found, k + 1)
        assert (small >= 0).all()
        assert (large <= 1).all()
        assert (large >= small).all()
    assert (recall(found, k) >= ndcg(found, k)).all()
    assert (ndcg(found, k) >= reciprocal_rank(found, k)).all()
