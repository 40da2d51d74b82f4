"""Most users and sessions first, over all time or the last days.

Each counts once for an item, as serving counts them: one that sends a thousand events weighs no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from recsys.events.array_types import AnyArray, Float32Array, Int32Array, Int64Array
from recsys.events.large_arrays import CHUNK
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
    visitor_label: ClassVar[str] = "popular"
    blendable: ClassVar[bool] = False  # a blend has `recency` for what is popular
    uses_order: ClassVar[bool] = False
    all_events: ClassVar[bool] = True
    counts: Float32Array  # (V,)

    @classmethod
    def fit(cls, sequences: Sequences, rows: int) -> Self:
        return cls(_counts(sequences, rows))

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
    visitor_label: ClassVar[str] = "popular lately"

    @classmethod
    def fit(cls, sequences: Sequences, rows: int) -> Self:
        newest = int(sequences.timestamps_us.max(initial=0))
        return cls(_counts(sequences, rows, newest - RECENT_US))


def _counts(sequences: Sequences, rows: int, after_us: int | None = None) -> Float32Array:
    """How many sequences hold each item, in events after `after_us`; (rows,)."""
    counts = np.zeros(rows, np.int64)
    for first, last in _parts(sequences.offsets):
        at = slice(int(sequences.offsets[first]), int(sequences.offsets[last]))
        lengths = np.diff(sequences.offsets[first : last + 1])
        owners = np.repeat(np.arange(last - first, dtype=np.int64), lengths)
        pairs = owners * rows + sequences.items[at]
        if after_us is not None:
            pairs = pairs[sequences.timestamps_us[at] > after_us]
        counts += np.bincount(np.unique(pairs) % rows, minlength=rows)
    counts[:FIRST_ITEM] = 0
    return counts.astype(np.float32)


def _parts(offsets: Int64Array) -> Iterator[tuple[int, int]]:
    """Ranges of whole sequences of about CHUNK events."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + CHUNK, "right")) - 1
        last = min(max(last, first + 1), len(offsets) - 1)
        yield first, last
        first = last
