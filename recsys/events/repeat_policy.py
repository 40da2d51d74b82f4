"""The repeat policy: whether the current item, or an earlier one, may be recommended next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.events.array_types import BoolArray, Float32Array, Int32Array
from recsys.events.sequences import Histories, Sequences
from recsys.events.vocabulary import FIRST_ITEM

MIN_SHARE = 0.005


@dataclass(frozen=True)
class RepeatPolicy:
    """Whether a ranking masks the current item and earlier ones of the history.

    A share below MIN_SHARE of all steps is taken for an accident of logging: even if every such
    step were then missed, recall would lose less than half a point, while an item that never
    comes next but is ranked first costs every position a rank.
    """

    current_may_recur: bool
    seen_may_recur: bool

    def mask(self, scores: Float32Array, histories: Histories) -> None:
        """Set the scores (B, V) of items that may not come next to -inf, in place."""
        if self.seen_may_recur and self.current_may_recur:
            return
        for row in range(len(histories)):
            history = histories[row]
            if len(history) == 0:
                continue
            if not self.seen_may_recur:
                current = history[-1]
                kept = scores[row, current]
                scores[row, history] = -np.inf
                if self.current_may_recur:
                    scores[row, current] = kept
            elif history[-1] >= FIRST_ITEM:
                scores[row, history[-1]] = -np.inf

    def allows(self, items: NDArray[np.integer[Any]], history: Int32Array) -> BoolArray:
        """Mask (n,) of the `items` (n,) that may come next after `history` (T,)."""
        if len(history) == 0 or (self.seen_may_recur and self.current_may_recur):
            return np.ones(len(items), np.bool_)
        current = items == history[-1]
        if self.seen_may_recur:
            return ~current
        barred = np.isin(items, history)
        return ~(barred & ~current) if self.current_may_recur else ~barred

    def said(self) -> str:
        """What the log says of items seen before, for people.

        >>> RepeatPolicy(False, True).said()
        'an earlier item may be recommended again, the current one not'
        """
        if self.current_may_recur and self.seen_may_recur:
            return "the current item and earlier ones may be recommended again"
        if self.seen_may_recur:
            return "an earlier item may be recommended again, the current one not"
        if self.current_may_recur:
            return "the current item may be recommended again, an earlier one not"
        return "no item seen before is recommended again"

    def plain(self) -> dict[str, bool]:
        return asdict(self)


def learn_repeat_policy(sequences: Sequences) -> RepeatPolicy:
    """Count the steps whose next item is the current one, or an earlier one of the sequence."""
    owners = sequences.owners()
    inner = np.ones(sequences.event_count, np.bool_)
    inner[sequences.offsets[:-1]] = False
    steps = max(1, int(inner.sum()))
    again = np.zeros(sequences.event_count, np.bool_)
    again[1:] = inner[1:] & (sequences.items[1:] == sequences.items[:-1])
    # An event whose (sequence, item) came before it, other than as the current item.
    order = np.lexsort((np.arange(len(owners)), sequences.items, owners))
    same = (owners[order][1:] == owners[order][:-1]) & (
        sequences.items[order][1:] == sequences.items[order][:-1]
    )
    seen = np.zeros(sequences.event_count, np.bool_)
    seen[order[1:]] = same
    current_share = float(again.sum()) / steps
    seen_share = float((seen & ~again).sum()) / steps
    return RepeatPolicy(current_share >= MIN_SHARE, seen_share >= MIN_SHARE)
