import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.events.sequences import Histories, Sequences
from recsys.models.lstm.batches import (
    cut_windows,
    gap_buckets,
    length_buckets,
    pad,
    padded_length,
    training_batches,
)


def sequences_of(lengths: list[int]) -> Sequences:
    events = sum(lengths)
    return Sequences(
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        items=np.arange(2, events + 2, dtype=np.int32),
        event_types=np.ones(events, np.int16),
        timestamps_us=np.arange(1, events + 1, dtype=np.int64) * 60_000_000,
        session_starts=np.zeros(events, np.bool_),
        keys=[f"u:{n}" for n in range(len(lengths))],
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(2, 15))
def test_every_event_but_a_first_one_is_a_target_exactly_once(lengths, max_length):
    sequences = sequences_of(lengths)
    windows = cut_windows(sequences, max_length, np.ones(sequences.event_count, np.float32))
    seen = []
    for batch in training_batches(windows, max_length, 32, np.random.default_rng(0)):
        assert batch.inputs.items.shape[1] <= max_length
        inputs, targets = batch.inputs.items, batch.targets
        real = targets > 0
        assert (inputs[real] == targets[real] - 1).all()  # the input just before each target
        seen.extend(targets[real].tolist())
    expected = np.delete(sequences.items, sequences.offsets[:-1])
    assert sorted(seen) == expected.tolist()


def test_no_window_crosses_into_another_sequence():
    sequences = sequences_of([5, 1, 9])
    windows = cut_windows(sequences, 4, np.ones(15, np.float32))
    owners = sequences.owners()
    assert (owners[windows.starts] == owners[windows.ends - 1]).all()
    assert (windows.ends - windows.starts).tolist() == [5, 5, 5]


def test_targets_of_weight_zero_are_no_targets():
    sequences = sequences_of([4])
    weights = np.array([1, 0, 2, 1], np.float32)
    windows = cut_windows(sequences, 10, weights)
    (batch,) = training_batches(windows, 10, 32, np.random.default_rng(0))
    assert batch.inputs.items.tolist() == [[2, 3, 4]]
    assert batch.targets.tolist() == [[0, 4, 5]]
    assert batch.weights.tolist() == [[0, 2, 1]]


def test_padding_is_zero_in_every_channel():
    histories = Histories(
        items=np.array([5, 6, 7], np.int32),
        event_types=np.array([1, 2, 1], np.int16),
        timestamps_us=np.array([1_000_000, 2_000_000, 66_000_000], np.int64),
        session_starts=np.array([True, False, True]),
        starts=np.array([0, 2]),
        ends=np.array([3, 3]),
    )
    inputs = pad(histories, 4)
    assert inputs.items.tolist() == [[5, 6, 7, 0], [7, 0, 0, 0]]
    assert inputs.event_types.tolist() == [[1, 2, 1, 0], [1, 0, 0, 0]]
    assert inputs.gaps.tolist() == [[0, 2, 7, 0], [0, 0, 0, 0]]
    assert inputs.session_starts.tolist() == [[1, 0, 1, 0], [1, 0, 0, 0]]


def test_a_missing_time_gives_a_missing_gap():
    histories = Histories.from_lists([[2, 3, 4]])
    assert pad(histories, 3).gaps.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(("seconds", "bucket"), [(0, 1), (0.9, 1), (1, 2), (1e12, 26), (-5, 1)])
def test_gap_buckets_are_bounded(seconds, bucket):
    assert gap_buckets(np.array([float(seconds)])).tolist() == [bucket]


@given(st.integers(1, 200), st.integers(1, 200))
def test_the_padded_length_holds_the_history_and_wastes_little(length, longest):
    length = min(length, longest)
    padded = padded_length(length, longest)
    assert length <= padded <= longest
    assert padded <= max(length * 1.13, length + 1)
    ((bucket, numbers),) = length_buckets(np.array([length]), longest)
    assert (bucket, numbers.tolist()) == (padded, [0])


def test_an_empty_history_takes_no_bucket():
    assert length_buckets(np.array([0, 0]), 5) == []
