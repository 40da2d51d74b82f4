"""Ranker: fitted to past sequences by counting, gives votes for the next item. No training, numpy only.

What else there is to know of a ranker (its label, whether it may be blended, what is chosen for it
on validation) are attributes of its class, so that a new one is its own file and a line in
`recsys.models.rankers`.

Legend: T events of one history, V vocabulary rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsys.events.array_types import AnyArray, Float32Array, Float64Array, Int32Array, Int64Array
from recsys.events.sequences import Sequences
from recsys.models.live_view import LiveMoment

Votes = tuple[Int32Array, Float32Array]

NO_VOTES: Votes = (np.empty(0, np.int32), np.empty(0, np.float32))


@dataclass(frozen=True)
class Ranker(ABC):
    """A ranking fitted to sequences of vocabulary indices."""

    name: ClassVar[str]  # in configuration, reports, answers and files
    label: ClassVar[str]  # for people who run it
    visitor_label: ClassVar[str]  # for those it recommends to: beside an item
    blendable: ClassVar[bool] = True  # whether it may be a component of a blend
    uses_order: ClassVar[bool] = True  # False: it ranks the same whatever the history
    all_events: ClassVar[bool] = False  # fitted to every event, not only to the newest
    # Field -> values tried on validation, in this order; the first is the field's default.
    search_space: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    untuned_name: ClassVar[str | None] = None  # in comparisons, with the defaults of search_space

    @classmethod
    @abstractmethod
    def fit(cls, sequences: Sequences, rows: int) -> Self:
        """`rows` = V, the vocabulary's rows."""

    @abstractmethod
    def votes(self, history: Int32Array) -> Votes:
        """Distinct item indices with a score above 0 each, in any order, for one history (T,)."""

    def live_votes(self, history: Int32Array, moment: LiveMoment) -> Votes:
        """Votes counted on: those of the version's data together with those of the live log.

        history (T,): rows of the moment's vocabulary, beyond V where an item is new. Without more, the
        votes of what the version knows.
        """
        return self.votes(moment.known(history))

    @abstractmethod
    def arrays(self) -> dict[str, AnyArray]:
        """All its state, for saving."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        """The ranker that `arrays` came from. Raises KeyError where one is missing."""

    def as_component(self) -> Self:
        """The ranker as a component of a blend, whose copy head already scores earlier items."""
        return self

    def tuned_like(self, other: Ranker | None) -> Self:
        """This ranker with what validation chose for `other`, if that is one of its kind."""
        if not self.search_space or type(other) is not type(self):
            return self
        return replace(self, **{key: getattr(other, key) for key in self.search_space})

    def untuned(self) -> Self:
        """This ranker with the defaults of its search space."""
        if not self.search_space:
            return self
        return replace(self, **{key: values[0] for key, values in self.search_space.items()})


def vote_shares(votes: Votes, scores: Float32Array) -> Float32Array:
    """Votes divided by their sum, 0 for items whose score (V,) is -inf: they may not come next."""
    items, found = votes
    kept = np.where(np.isfinite(scores[items]), found, np.float32(0))
    shares: Float32Array = (kept / max(float(kept.sum()), 1e-12)).astype(np.float32, copy=False)
    return shares


def add_up(items: Int32Array, weights: NDArray[np.floating[Any]]) -> Votes:
    """Votes with the weights of equal items added up."""
    if len(items) == 0:
        return NO_VOTES
    unique, places = np.unique(items, return_inverse=True)
    return unique, np.bincount(places, weights).astype(np.float32)


def both(one: Votes, other: Votes) -> Votes:
    """The votes of two, added up."""
    if len(other[0]) == 0:
        return one
    return add_up(np.concatenate((one[0], other[0])), np.concatenate((one[1], other[1])))


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
