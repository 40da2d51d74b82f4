"""What followed the last item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from recsys.events.array_types import AnyArray, Float32Array, Float64Array, Int32Array, Int64Array
from recsys.events.sequences import Sequences
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.live_view import LiveMoment
from recsys.models.ranker import NO_VOTES, Ranker, Votes, both, strongest

KEEP = 500  # successors kept of each item
TIE_BREAK = 0.01
LIVE_EVENTS = 1_000  # newest events of an item in the live log that are looked at


@dataclass(frozen=True)
class Transitions(Ranker):
    """First-order Markov chain: counts of each direct successor."""

    name: ClassVar[str] = "transitions"
    label: ClassVar[str] = "transitions"
    visitor_label: ClassVar[str] = "often next"
    offsets: Int64Array  # (V + 1,)
    items: Int32Array
    weights: Float32Array

    @classmethod
    def fit(cls, sequences: Sequences, rows: int) -> Self:
        of, to, freshness = steps_apart(sequences, 1)
        return cls(*strongest(of, to, freshness, rows, KEEP))

    def votes(self, history: Int32Array) -> Votes:
        if len(history) == 0:
            return NO_VOTES
        row = slice(self.offsets[history[-1]], self.offsets[history[-1] + 1])
        return self.items[row], self.weights[row]

    def live_votes(self, history: Int32Array, moment: LiveMoment) -> Votes:
        steps = moment.steps_after(history[-1:], ahead=1, walked=LIVE_EVENTS)
        counted = both(self.votes(moment.known(history)), steps)
        own = history[1:][
            history[:-1] == history[-1:]
        ]  # what this very history did after it before
        return both(counted, (own, np.ones(len(own), np.float32)))

    def arrays(self) -> dict[str, AnyArray]:
        return {"offsets": self.offsets, "items": self.items, "weights": self.weights}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        return cls(arrays["offsets"], arrays["items"], arrays["weights"])


def steps_apart(sequences: Sequences, distance: int) -> tuple[Int64Array, Int64Array, Float64Array]:
    """All pairs (item, the item `distance` steps later in the same sequence) of known items.

    The third array counts each pair as 1 plus up to TIE_BREAK for the log's newest: of equal
    counts, what happened lately goes first.
    """
    owners = sequences.owners()
    same = owners[distance:] == owners[:-distance]
    of = sequences.items[:-distance][same].astype(np.int64)
    to = sequences.items[distance:][same].astype(np.int64)
    known = (of >= FIRST_ITEM) & (to >= FIRST_ITEM)
    times = sequences.timestamps_us[distance:][same][known].astype(np.float64)
    if len(times) == 0:
        return of[known], to[known], times
    age = (sequences.timestamps_us.max() - times) / max(1, np.ptp(sequences.timestamps_us))
    return of[known], to[known], 1.0 + TIE_BREAK * (1.0 - age)
