"""Which items one answer looks at: the best of one pass over the catalogue, and what rankers and the copy
head name.

Legend: B histories, T time, V vocabulary rows, C candidates.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.events.array_types import BoolArray, Float32Array, Int64Array
from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.blend import SHARPEST, Blend
from recsys.models.bundle import Bundle
from recsys.models.lstm.inference import NetworkState
from recsys.models.lstm.kernels import add_scaled, largest
from recsys.models.ranker import Votes

SLACK = 56  # candidates beyond k: a compact item matrix may misplace some at the edge
MOST_FACTORS = 32  # different ones that are looked at one by one
NO_ROWS: Int64Array = np.empty(0, np.int64)


@dataclass(frozen=True)
class Mask:
    """Which items may be recommended."""

    allowed: BoolArray | None = None  # (V,); None = all
    excluded: Int64Array = field(default_factory=lambda: NO_ROWS)

    @property
    def allows_all(self) -> bool:
        return self.allowed is None and len(self.excluded) == 0

    def apply(self, values: Float32Array, rows: Int64Array | None = None) -> None:
        """Set to -inf, in place, what is masked: values (V,), or (C,) of `rows` (C,), which ascend."""
        if self.allowed is not None:
            values[~(self.allowed if rows is None else self.allowed[rows])] = -np.inf
        if len(self.excluded):
            values[self.excluded if rows is None else np.isin(rows, self.excluded)] = -np.inf


ALLOW_ALL = Mask()


@dataclass(frozen=True)
class HistoryState:
    """All of an answer that depends on the history alone: the network's state and rankers' votes."""

    network: NetworkState
    votes: Mapping[str, Votes]


def candidate_rows(
    bundle: Bundle,
    blend: Blend,
    history: Histories,
    k: int,
    recent: Float32Array,
    mask: Mask,
    state: HistoryState,
    asked: Int64Array = NO_ROWS,
    factors: Float32Array | None = None,
) -> Int64Array:
    """Rows (C,), ascending: the best by the network, those of the copy head and of the rankers, and
    `asked` (n,). With `factors` (V,), which multiply what they come to, the best of each factor.
    """
    assert bundle.scorer is not None
    size, live = bundle.scorer.rows, bundle.live
    scan = _scratch.floats(len(bundle.vocabulary))
    bundle.scorer.scan(state.network.vector, scan[:size])
    if live is not None:
        scan[size:] = live.view.scores(state.network.vector, np.arange(size, len(scan)))
    if blend.recency:
        add_scaled(scan, np.float32(blend.recency), recent)
    scan[:FIRST_ITEM] = -np.inf
    bundle.repeats.mask(scan[None], history)
    chosen: list[NDArray[np.integer[Any]]] = [
        largest(scan, SHARPEST + SLACK),
        state.network.pointed,
        asked,
        *(v[0] for v in state.votes.values()),
    ]
    if not mask.allows_all:
        mask.apply(scan)
    if factors is not None:
        chosen += _best_by_factor(scan, factors, k + SLACK)
    elif not mask.allows_all or k > SHARPEST:
        chosen.append(largest(scan, k + SLACK))
    rows = distinct(np.concatenate(chosen))
    return rows[np.searchsorted(rows, FIRST_ITEM) :]


def _best_by_factor(scan: Float32Array, factors: Float32Array, count: int) -> list[Int64Array]:
    """Rows of the `count` largest of `scan` (V,) among those of each factor (V,): within one, their order
    is that of the scan. `scan` is changed.
    """
    boosted = np.flatnonzero(factors != 1)
    left: Int64Array = boosted
    found: list[Int64Array] = []
    while len(left):
        if len(found) == MOST_FACTORS:
            found.append(left)
            break
        same = factors[left] == factors[left[0]]
        rows = left[same]
        found.append(rows[largest(scan[rows], count)])
        left = left[~same]
    scan[boosted] = -np.inf
    return [*found, largest(scan, count)]


def exact_scores(
    bundle: Bundle, history: Histories, rows: Int64Array, network: NetworkState
) -> Float32Array:
    """The network's scores (C,) of rows (C,), ascending; -inf where one may not come next."""
    assert bundle.scorer is not None
    live = bundle.live
    known = int(np.searchsorted(rows, bundle.scorer.rows))
    exact = bundle.scorer.score(network.vector, rows[:known])
    if live is not None and known < len(rows):
        exact = np.concatenate((exact, live.view.scores(network.vector, rows[known:])))
    exact[~bundle.repeats.allows(rows, history[0])] = -np.inf
    return exact


class _Scratch(threading.local):
    """Room for scores of the whole catalogue, kept by each thread: to map and clear as many bytes at
    each answer takes longer than to fill them.
    """

    _floats = np.empty(0, np.float32)

    def floats(self, size: int) -> Float32Array:
        """An array (size,) of what was there before; it is the caller's until the next call."""
        if len(self._floats) < size:
            self._floats = np.empty(size + size // 8, np.float32)
        return self._floats[:size]


_scratch = _Scratch()


def distinct(rows: NDArray[np.integer[Any]]) -> Int64Array:
    """The different ones of `rows` (n,), n > 0, ascending."""
    ordered = rows.astype(np.int64)
    ordered.sort()
    first = np.empty(len(ordered), np.bool_)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]
