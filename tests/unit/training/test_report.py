import numpy as np
import pytest

from recsys.events.sequences import Histories
from recsys.events.time_split import Positions
from recsys.training.report import (
    Bootstrap,
    RankedPositions,
    breakdown,
    difference,
    rank_positions,
    summarise,
    text_table,
)


def positions(targets: list[int], owners: list[int]) -> Positions:
    count = len(targets)
    return Positions(
        histories=Histories.from_lists([[2, 3]] * count),
        targets=np.array(targets, np.int32),
        owners=np.array(owners),
        returning=np.arange(count) % 2 == 0,
    )


def test_ranking_batch_by_batch_equals_ranking_at_once():
    rng = np.random.default_rng(0)
    count, rows = 50, 9
    where = positions(rng.integers(2, rows, count).tolist(), list(range(count)))
    table = rng.random((count, rows)).astype(np.float32)
    table[:, :2] = -np.inf

    def scorer(histories: Histories) -> np.ndarray:
        return table[histories.starts // 2].copy()

    whole = rank_positions(where, scorer, rows, batch=count)
    parts = rank_positions(where, scorer, rows, batch=7)
    assert np.array_equal(whole.ranks, parts.ranks)
    assert whole.coverage == parts.coverage == 1.0
    by_hand = [
        1 + sum(table[p, i] > table[p, where.targets[p]] for i in range(rows)) for p in range(count)
    ]
    assert whole.ranks.tolist() == by_hand


def test_the_bootstrap_draws_owners_and_covers_the_truth():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(60):
        owners = np.repeat(np.arange(60), 5)
        values = np.clip(0.4 + rng.normal(0, 0.2, 60)[owners] + rng.normal(0, 0.05, 300), 0, 1)
        drawn = Bootstrap(owners, draws=300, seed=trial).means(values[:, None])[:, 0]
        low, high = np.percentile(drawn, [2.5, 97.5])
        covered += low <= 0.4 <= high
    assert covered >= 50


def test_owners_that_resemble_themselves_widen_the_interval():
    owners = np.repeat(np.arange(20), 50)
    values = (np.arange(20) % 2)[owners].astype(float)[:, None]
    clustered = Bootstrap(owners, 500, 0).means(values).std()
    independent = Bootstrap(np.arange(1_000), 500, 0).means(values).std()
    assert clustered > 4 * independent


def test_same_seed_same_interval():
    owners, values = np.arange(30), np.random.default_rng(0).random((30, 2))
    first, second = (Bootstrap(owners, 250, 5).means(values) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == (250, 2)


def test_summary_counts_unseen_targets_apart():
    where = positions([2, 3, 1, 1], [0, 0, 1, 2])
    found = RankedPositions(np.array([1, 2, 10, 10]), 0.5)
    row = summarise({"x": found}, where, draws=100, seed=0)["x"]
    assert row["recall@20"] == 1.0
    assert row["mrr@20"] == 0.75
    assert row["recall@20_all"] == 1.0  # rank 10 of a tiny catalogue; a real one ranks them last
    assert row["mrr@20_low"] <= row["mrr@20"] <= row["mrr@20_high"]


def test_systems_of_other_positions_are_refused():
    with pytest.raises(AssertionError):
        summarise({"x": RankedPositions(np.array([1]), 0.5)}, positions([2, 3], [0, 1]), 100, 0)


def test_a_difference_is_paired():
    rng = np.random.default_rng(2)
    base = rng.integers(1, 60, 2_000)
    better = np.maximum(1, base - 1)
    owners = np.arange(2_000)
    found = difference(better, base, owners, draws=300, seed=0)["mrr@20"]
    assert 0 < found["low"] <= found["difference"] <= found["high"]
    none = difference(base, base, owners, draws=300, seed=0)["mrr@20"]
    assert none == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_breakdown_tells_groups_apart():
    where = positions([2, 9, 3, 1], [0, 1, 2, 3])
    parts = breakdown(RankedPositions(np.array([1, 30, 2, 50]), 0.1), where)
    assert parts["repeated_targets"] == {"positions": 2, "recall@20": 1.0, "mrr@20": 0.75}
    assert parts["new_targets"]["recall@20"] == 0.0
    assert parts["unseen_targets"]["positions"] == 1
    assert parts["returning_owners"]["positions"] == 2


def test_the_table_is_sorted_by_mrr():
    where = positions([2, 3], [0, 1])
    table = summarise(
        {
            "worse": RankedPositions(np.array([9, 9]), 0.1),
            "better": RankedPositions(np.array([1, 1]), 0.1),
        },
        where,
        draws=100,
        seed=0,
    )
    lines = text_table(table).splitlines()
    assert lines[1].startswith("better")
    assert lines[2].startswith("worse")
    assert lines[1].endswith(" 2") and lines[2].endswith(" 2")  # the positions they rest on
    assert lines[3] == "positions with a target that training has seen: 2, too few to tell by"
