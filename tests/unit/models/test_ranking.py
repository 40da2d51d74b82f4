from dataclasses import replace

import numpy as np
import pytest

from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.batch_ranking import scores
from recsys.models.blend import BLEND, Blend
from recsys.models.bundle import compacted
from recsys.models.catalogue_scan import Mask
from recsys.models.ranking import best, top_k

HISTORIES = [[2, 3, 4], [9], [30, 2, 30, 7], [5, 6, 7, 8, 9, 10, 11, 12], [1, 8]]


def by_the_whole_catalogue(bundle, history, k, mask):
    row = scores(bundle, history)[0]
    mask.apply(row)
    if bundle.ranking in bundle.rankers:
        row[row <= 0] = -np.inf
    return [(int(i), float(row[i])) for i in top_k(row, k)]


@pytest.fixture
def blended(tiny_shop):
    blend = Blend({"lstm": 0.6, "session_knn": 0.3, "transitions": 0.1}, 0.7, 0.5, 0.4)
    return replace(tiny_shop.bundle, blends={BLEND: blend}, ranking=BLEND)


@pytest.mark.parametrize("ranking", ["blend", "session_knn", "transitions", "popular"])
@pytest.mark.parametrize("items", HISTORIES, ids=str)
def test_the_best_are_those_of_the_whole_catalogue(blended, items, ranking, monkeypatch):
    monkeypatch.setattr("recsys.models.ranking.SHARPEST", 10)
    monkeypatch.setattr("recsys.models.blend.SHARPEST", 10)
    monkeypatch.setattr("recsys.models.catalogue_scan.SHARPEST", 10)
    monkeypatch.setattr("recsys.models.catalogue_scan.SLACK", 2)
    bundle = replace(blended, ranking=ranking)
    history = Histories.from_lists([items])
    rows = len(bundle.vocabulary)
    allowed = np.arange(rows) % 3 == 0
    for mask in (Mask(), Mask(excluded=np.array([4, 5, 6])), Mask(allowed, np.array([9]))):
        for k in (1, 7, 40, rows):
            found = best(bundle, history, k, mask=mask)
            wanted = by_the_whole_catalogue(bundle, history, k, mask)
            if ranking == "blend":  # beyond the candidates there is more, asked for by a larger k
                wanted = wanted[: len(found)]
                assert len(found) >= min(k, 7)
            assert [row for row, _, _ in found] == [row for row, _ in wanted]
            np.testing.assert_allclose([s for _, s, _ in found], [s for _, s in wanted], rtol=1e-4)
            assert {source for _, _, source in found} <= {"lstm", "copy", *bundle.rankers}


def test_a_compact_matrix_finds_the_candidates_and_the_table_scores_them(blended):
    history = Histories.from_lists([HISTORIES[2]])
    light = compacted(blended, "int8")
    assert [row for row, _, _ in best(light, history, 20)] == [
        row for row, _, _ in best(blended, history, 20)
    ]
    exact = {row: score for row, score, _ in best(blended, history, 20)}
    for row, score, _ in best(light, history, 20):
        assert score == pytest.approx(exact[row], rel=1e-3)


def test_factors_multiply_what_every_component_adds(blended):
    history = Histories.from_lists([HISTORIES[0]])
    factors = np.ones(len(blended.vocabulary), np.float32)
    factors[20:30] = 1_000.0
    total = scores(blended, history)[0] * factors
    found = best(blended, history, 10, factors=factors)
    assert [row for row, _, _ in found] == top_k(total, 10).tolist()
    assert {row for row, _, _ in found[:5]} <= set(range(20, 30))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ranking", ["blend", "popular"])
def test_a_factor_of_nothing_takes_nothing_else_out(blended, ranking):
    bundle = replace(blended, ranking=ranking)
    history = Histories.from_lists([HISTORIES[0]])
    rows = len(bundle.vocabulary)
    mask = Mask(excluded=np.array([4, 5, 6]))
    whole = best(bundle, history, rows, mask=mask, factors=np.ones(rows, np.float32))
    factors = np.ones(rows, np.float32)
    factors[: rows // 2] = 0.0
    found = best(bundle, history, rows, mask=mask, factors=factors)
    kept = [(row, score, source) for row, score, source in whole if row >= rows // 2]
    assert found[: len(kept)] == kept
    assert all(row < rows // 2 and score == 0 for row, score, _ in found[len(kept) :])
    if ranking == "blend":  # of a ranker, an item without a vote is left out
        assert len(found) == len(whole) > rows // 2


def test_padding_and_unknown_are_never_among_the_best(blended):
    found = best(blended, Histories.from_lists([[1, 1]]), 50)
    assert all(row >= FIRST_ITEM for row, _, _ in found)
