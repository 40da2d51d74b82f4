"""What a ranker is: past sequences in, votes for the next item out. No training, numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from recsys.events.array_types import AnyArray, Float32Array, Float64Array, Int32Array, Int64Array
from recsys.events.sequences import Sequences

Votes = tuple[Int32Array, Float32Array]

NO_VOTES: Votes = (np.empty(0, np.int32), np.empty(0, np.float32))


class Ranker(Protocol):
    """A ranking fitted to sequences of vocabulary indices."""

    name: ClassVar[str]

    @classmethod
    def fit(cls, sequences: Sequences, rows: int) -> Self:
        """`rows` = V, the vocabulary's rows."""
        ...

    def votes(self, history: Int32Array) -> Votes:
        """Distinct item indices with a score above 0 each, in any order, for one history (T,)."""
        ...

    def arrays(self) -> dict[str, AnyArray]:
        """All its state, for saving."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        """The ranker that `arrays` came from. Raises KeyError where one is missing."""
        ...


def add_up(items: Int32Array, weights: NDArray[np.floating[Any]]) -> Votes:
    """Votes with the weights of equal items added up."""
    if len(items) == 0:
        return NO_VOTES
    unique, places = np.unique(items, return_inverse=True)
    return unique, np.bincount(places, weights).astype(np.float32)


def gather(offsets: Int64Array, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Places of all entries of CSR `rows`, and for each entry the number of the row it is of.

    >>> places, of = gather(np.array([0, 2, 2, 5]), np.array([2, 0]))
    >>> places.tolist(), of.tolist()
    ([2, 3, 4, 0, 1], [0, 0, 0, 1, 1])
    """
    starts = offsets[rows]
    counts = offsets[rows + 1] - starts
    of = np.repeat(np.arange(len(rows)), counts)
    first = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) - first[of] + starts[of], of


def strongest(
    sources: Int64Array, items: Int64Array, weights: Float64Array, rows: int, keep: int
) -> tuple[Int64Array, Int32Array, Float32Array]:
    """Weighted pairs source -> item as CSR (offsets, items, weights), the `keep` strongest a source.

    Equal pairs are added up. Memory is linear in the pairs.
    """
    keys = sources * rows + items
    unique, places = np.unique(keys, return_inverse=True)
    totals = np.bincount(places, weights, minlength=len(unique))
    of, to = unique // rows, unique % rows
    order = np.lexsort((to, -totals, of))
    of, to, totals = of[order], to[order], totals[order]
    first = np.searchsorted(of, np.arange(rows + 1))
    rank = np.arange(len(of)) - first[of]
    kept = rank < keep
    counts = np.bincount(of[kept], minlength=rows)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return offsets, to[kept].astype(np.int32), totals[kept].astype(np.float32)
