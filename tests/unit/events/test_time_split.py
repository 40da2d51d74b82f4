import numpy as np
import pytest

from recsys.events.sequences import Sequences
from recsys.events.time_split import baskets_from, positions_from, tied_share
from recsys.training.report import target_ranks


def log(*sequences: list[tuple[int, int]]) -> Sequences:
    """Sequences of (item, time in seconds)."""
    lengths = [len(sequence) for sequence in sequences]
    events = [event for sequence in sequences for event in sequence]
    count = len(events)
    return Sequences(
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        items=np.array([item for item, _ in events], np.int32),
        event_types=np.zeros(count, np.int16),
        timestamps_us=np.array([time for _, time in events], np.int64) * 1_000_000,
        session_starts=np.zeros(count, np.bool_),
        keys=[f"u:{number}" for number in range(len(sequences))],
    )


BASKETS = log([(2, 1), (3, 1), (4, 5), (5, 5), (4, 5), (6, 9)], [(7, 6), (8, 6)], [(9, 2), (1, 7)])


def test_baskets_are_moments_after_the_cut_with_what_came_before_as_history():
    found = baskets_from(BASKETS, cut_us=4_000_000)
    assert [found.histories[n].tolist() for n in range(len(found))] == [
        [2, 3],
        [2, 3, 4, 5, 4],
        [9],
    ]
    assert [found.wanted(n).tolist() for n in range(len(found))] == [[4, 5], [6], [1]]
    assert found.targets.tolist() == [5, 6, 1]  # the last is unknown: no item of it was seen
    assert found.owners.tolist() == [0, 0, 2]
    assert found.returning.tolist() == [True, True, True]


def test_selected_baskets_keep_their_items():
    found = baskets_from(BASKETS, 0).where(np.array([False, True, True]))
    assert [found.wanted(n).tolist() for n in range(2)] == [[6], [1]]
    masked = baskets_from(BASKETS, 0, target_mask=BASKETS.items != 5)
    assert masked.wanted(0).tolist() == [4]


def test_the_best_item_of_a_basket_counts():
    found = baskets_from(BASKETS, 0)
    scores = np.zeros((3, 10), np.float32)
    scores[:, :2] = -np.inf
    scores[0, [7, 5, 4]] = [3.0, 2.0, 1.0]
    scores[1, 6] = 1.0
    assert target_ranks(scores, found, 0).tolist() == [2, 1, 10]


def test_single_targets_rank_as_before():
    found = positions_from(BASKETS, 4_000_000)
    assert found.targets.tolist() == [4, 5, 4, 6, 8, 1]
    scores = np.tile(np.arange(10, dtype=np.float32), (6, 1))
    assert target_ranks(scores, found, 0).tolist() == [6, 5, 6, 4, 2, 10]


def test_tied_share_counts_steps_within_sequences():
    assert tied_share(BASKETS) == pytest.approx(4 / 7)
    assert tied_share(log([(2, 1)], [(3, 1)])) == 0.0
