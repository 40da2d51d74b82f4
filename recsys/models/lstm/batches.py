"""Histories -> padded (B, T) inputs and next-item targets. Training and serving pad here.

Legend: B histories, T time, E events, W windows.

An LSTM is causal, so steps after a sequence's end change nothing before it: batches are padded on
the right to one of a few lengths and never packed, because oneDNN's fast path takes neither packed
nor masked input. Histories of similar length share a batch, so little is wasted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recsys.events.array_types import AnyArray, Float32Array, Float64Array, Int64Array
from recsys.events.sequences import Histories, Sequences
from recsys.events.vocabulary import PADDING

GAP_BUCKETS = 27  # 0 missing, 1 under a second, then one for each power of two seconds
GRID = np.unique(np.concatenate((np.arange(1, 13), np.round(12 * 1.12 ** np.arange(1, 41)))))


@dataclass(frozen=True)
class PaddedBatch:
    """One right-padded batch; every array is (B, T)."""

    items: Int64Array  # item index, 0 = padding
    event_types: Int64Array  # 0 = missing
    gaps: Int64Array  # bucket of the time since the previous event, 0 = missing
    session_starts: Int64Array  # 1 at the first event of a session

    @property
    def shape(self) -> tuple[int, ...]:
        return self.items.shape

    def select(self, rows: Int64Array) -> PaddedBatch:
        """The rows at `rows`."""
        return PaddedBatch(
            self.items[rows], self.event_types[rows], self.gaps[rows], self.session_starts[rows]
        )


@dataclass(frozen=True)
class TrainingBatch:
    inputs: PaddedBatch  # (B, T)
    targets: Int64Array  # (B, T) the item after each input, 0 = not a target
    weights: Float32Array  # (B, T) weight of each target, 0 = not a target


def gap_buckets(seconds: Float64Array) -> Int64Array:
    """The log bucket of each time gap in seconds (any shape).

    >>> gap_buckets(np.array([0.0, 1.0, 60.0, 86400.0])).tolist()
    [1, 2, 6, 17]
    """
    exponents = np.floor(np.log2(1.0 + np.maximum(seconds, 0.0)))
    return (np.minimum(exponents, GAP_BUCKETS - 2) + 1).astype(np.int64)


def pad(histories: Histories, length: int) -> PaddedBatch:
    """The oldest `length` events of each history, padded on the right with 0."""
    index = histories.starts[:, None] + np.arange(length)  # (B, T)
    inside = index < histories.ends[:, None]  # (B, T)
    index = np.where(inside, index, 0) if len(histories.items) else np.zeros_like(index)
    items = np.where(inside, _take(histories.items, index), PADDING).astype(np.int64)
    types = np.where(inside, _take(histories.event_types, index), 0).astype(np.int64)
    starts = np.where(inside, _take(histories.session_starts, index), 0).astype(np.int64)
    timestamps_us: Int64Array = _take(histories.timestamps_us, index)
    gaps = np.where(inside, _gaps(timestamps_us), 0)
    return PaddedBatch(items=items, event_types=types, gaps=gaps, session_starts=starts)


def unpadded(history: Histories) -> PaddedBatch:
    """All of one history (B = 1): what `pad` gives for its own length."""
    at = slice(int(history.starts[0]), int(history.ends[0]))
    return PaddedBatch(
        items=history.items[None, at].astype(np.int64),
        event_types=history.event_types[None, at].astype(np.int64),
        gaps=_gaps(history.timestamps_us[None, at]),
        session_starts=history.session_starts[None, at].astype(np.int64),
    )


def _gaps(timestamps_us: Int64Array) -> Int64Array:
    """The bucket (B, T) of the time since the event before; 0 at the first and where a time is missing."""
    gaps = np.zeros(timestamps_us.shape, np.int64)
    later, earlier = timestamps_us[:, 1:], timestamps_us[:, :-1]
    known = (later > 0) & (earlier > 0)
    gaps[:, 1:] = np.where(known, gap_buckets((later - earlier) / 1e6), 0)
    return gaps


def _take(values: AnyArray, index: Int64Array) -> AnyArray:
    return values[index] if len(values) else np.zeros(index.shape, values.dtype)


def padded_length(length: int, longest: int) -> int:
    """The grid length a history of `length` events is padded to; at most `longest`.

    >>> [padded_length(n, 50) for n in (1, 12, 13, 40, 50)]
    [1, 12, 13, 42, 50]
    """
    place = int(np.searchsorted(GRID, length))
    return longest if place == len(GRID) else min(int(GRID[place]), longest)


def length_buckets(lengths: Int64Array, longest: int) -> list[tuple[int, Int64Array]]:
    """(padded length, numbers of the histories that take it), shortest first; empty ones left out."""
    places = np.searchsorted(GRID, lengths)
    padded = np.where(places == len(GRID), longest, GRID[np.minimum(places, len(GRID) - 1)])
    padded = np.minimum(padded, longest).astype(np.int64)
    padded[lengths == 0] = 0
    return [(int(size), np.flatnonzero(padded == size)) for size in np.unique(padded) if size]


@dataclass(frozen=True)
class Windows:
    """W training windows: slices of at most max_length + 1 events, each target in exactly one."""

    sequences: Sequences
    starts: Int64Array  # (W,)
    ends: Int64Array  # (W,) exclusive; the last event is a target only
    weights: Float32Array  # (E,) weight of each event as a target


def cut_windows(sequences: Sequences, max_length: int, weights: Float32Array) -> Windows:
    """Cut each sequence from its end into windows of max_length inputs, so the newest is full.

    Neighbouring windows share one event: the last target of one is the first input of the next.
    """
    steps = sequences.lengths - 1  # targets of each sequence
    counts = -(-steps // max_length)  # windows of each sequence
    owners = np.repeat(np.arange(len(sequences)), np.maximum(counts, 0))
    first = np.cumsum(np.maximum(counts, 0)) - np.maximum(counts, 0)
    number = np.arange(len(owners)) - first[owners]  # 0 = newest
    ends = sequences.offsets[owners + 1] - number * max_length
    starts = np.maximum(sequences.offsets[owners], ends - max_length - 1)
    return Windows(sequences=sequences, starts=starts, ends=ends, weights=weights)


def training_batches(
    windows: Windows, max_length: int, batch_events: int, rng: np.random.Generator
) -> Iterator[TrainingBatch]:
    """One epoch: every window once, similar lengths together, batches in random order."""
    plan: list[tuple[int, Int64Array]] = []
    for length, numbers in length_buckets(windows.ends - windows.starts - 1, max_length):
        numbers = rng.permutation(numbers)
        size = max(1, batch_events // length)
        plan.extend((length, numbers[at : at + size]) for at in range(0, len(numbers), size))
    for place in rng.permutation(len(plan)):
        length, numbers = plan[place]
        yield _training_batch(windows, numbers, length)


def batch_count(windows: Windows, max_length: int, batch_events: int) -> int:
    """How many batches `training_batches` yields in an epoch."""
    buckets = length_buckets(windows.ends - windows.starts - 1, max_length)
    return sum(-(-len(numbers) // max(1, batch_events // length)) for length, numbers in buckets)


def _training_batch(windows: Windows, numbers: Int64Array, length: int) -> TrainingBatch:
    starts, ends = windows.starts[numbers], windows.ends[numbers]
    inputs = pad(windows.sequences.slices(starts, ends - 1), length)
    index = starts[:, None] + 1 + np.arange(length)  # (B, T)
    inside = index < ends[:, None]
    index = np.where(inside, index, 0)
    weights = np.where(inside, windows.weights[index], np.float32(0)).astype(np.float32)
    targets = np.where(weights > 0, windows.sequences.items[index], PADDING).astype(np.int64)
    return TrainingBatch(inputs=inputs, targets=targets, weights=weights)
