"""Decayed sequential rules: each of the last ten items votes for what followed it.

Sequential rules with a vote that falls with distance, after Ludewig and Jannach, "Evaluation of
session-based recommendation algorithms" (2018), section 3.1. Deviation: there only the last item
votes; here the last `WINDOW` do, each with weight 1 / distance, which is what long histories need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from recsys.events.array_types import AnyArray, Float32Array, Int32Array, Int64Array
from recsys.events.sequences import Sequences
from recsys.models.live_view import LiveMoment
from recsys.models.ranker import NO_VOTES, Ranker, Votes, add_up, both, gather, strongest
from recsys.models.transitions import steps_apart

WINDOW = 10
KEEP = 500
LIVE_STEPS = 5  # that are counted after an event of the live log
LIVE_EVENTS = 300  # newest events of an item in the live log that are looked at


@dataclass(frozen=True)
class SequentialRules(Ranker):
    """Rules a -> b weighted by 1 / steps between them, summed over the log."""

    name: ClassVar[str] = "sequential_rules"
    label: ClassVar[str] = "sequential rules"
    visitor_label: ClassVar[str] = "often later"
    offsets: Int64Array  # (V + 1,)
    items: Int32Array
    weights: Float32Array

    @classmethod
    def fit(cls, sequences: Sequences, rows: int) -> Self:
        pairs = [steps_apart(sequences, distance) for distance in range(1, WINDOW + 1)]
        of = np.concatenate([pair[0] for pair in pairs])
        to = np.concatenate([pair[1] for pair in pairs])
        weights = np.concatenate([pair[2] / d for d, pair in enumerate(pairs, 1)])
        different = of != to
        return cls(*strongest(of[different], to[different], weights[different], rows, KEEP))

    def votes(self, history: Int32Array) -> Votes:
        recent = history[: -WINDOW - 1 : -1].astype(np.int64)  # newest first
        if len(recent) == 0:
            return NO_VOTES
        places, of = gather(self.offsets, recent)
        return add_up(self.items[places], self.weights[places] / (of + 1.0))

    def live_votes(self, history: Int32Array, moment: LiveMoment) -> Votes:
        recent = history[: -WINDOW - 1 : -1]  # newest first
        steps = moment.steps_after(recent, ahead=LIVE_STEPS, walked=LIVE_EVENTS)
        return both(self.votes(moment.known(history)), steps)

    def arrays(self) -> dict[str, AnyArray]:
        return {"offsets": self.offsets, "items": self.items, "weights": self.weights}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        return cls(arrays["offsets"], arrays["items"], arrays["weights"])
