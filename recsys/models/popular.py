"""Most events first, over all time or the last days."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from recsys.events.array_types import AnyArray, BoolArray, Float32Array, Int32Array
from recsys.events.large_arrays import count_codes
from recsys.events.sequences import Sequences
from recsys.events.times import DAY_US
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.ranker import Ranker, Votes

RECENT_US = 7 * DAY_US


@dataclass(frozen=True)
class Popular(Ranker):
    """Counts over the whole log."""

    name: ClassVar[str] = "popular"
    label: ClassVar[str] = "popular"
    blendable: ClassVar[bool] = False  # a blend has `recency` for what is popular
    uses_order: ClassVar[bool] = False
    all_events: ClassVar[bool] = True
    counts: Float32Array  # (V,)

    @classmethod
    def fit(cls, sequences: Sequences, rows: int) -> Self:
        return cls(_counts(sequences.items, rows))

    def votes(self, history: Int32Array) -> Votes:
        items = np.flatnonzero(self.counts).astype(np.int32)
        return items, self.counts[items]

    def arrays(self) -> dict[str, AnyArray]:
        return {"counts": self.counts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        return cls(arrays["counts"])


@dataclass(frozen=True)
class PopularRecent(Popular):
    """Counts over the log's last seven days."""

    name: ClassVar[str] = "popular_recent"
    label: ClassVar[str] = "popular, last 7 days"

    @classmethod
    def fit(cls, sequences: Sequences, rows: int) -> Self:
        newest = int(sequences.timestamps_us.max(initial=0))
        return cls(_counts(sequences.items, rows, sequences.timestamps_us > newest - RECENT_US))


def _counts(items: Int32Array, rows: int, mask: BoolArray | None = None) -> Float32Array:
    counts = count_codes(items, rows, mask).astype(np.float32)
    counts[:FIRST_ITEM] = 0
    return counts
