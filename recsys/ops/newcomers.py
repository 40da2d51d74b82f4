"""What has come right after what since the model learned, where an item of the two is new to it.

A step's share is how often it was taken of all recent steps from its first item, held down by a few
steps that were not seen, so that one visitor's whim stays small. It is a probability like the shares
a blend gives, and so may stand among them.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from recsys.events.frame import EventFrame
from recsys.events.sequences import build_sequences

LEAST = 2  # times a step was taken
HELD_DOWN = 5.0  # steps from an item that were not seen
FOLLOWERS = 20  # kept of each item
MOST = 100_000  # kept in all, the surest first

Step = tuple[str, str, float]  # item id, next item id, share


def recent_steps(
    frame: EventFrame, known: Container[str], session_gap_seconds: float
) -> list[Step]:
    """Steps from or to items that are not `known`, in the events of `frame`."""
    sequences = build_sequences(frame, session_gap_seconds)
    owners, items = sequences.owners(), sequences.items
    if len(items) < 2:
        return []
    steps = (owners[1:] == owners[:-1]) & (items[1:] != items[:-1])
    first, second = items[:-1][steps].astype(np.int64), items[1:][steps].astype(np.int64)
    count = len(frame.item_ids)
    taken = np.bincount(first, minlength=count)
    pairs, times = np.unique(first * count + second, return_counts=True)
    of, to = pairs // count, pairs % count
    new = np.array([name not in known for name in frame.item_ids], np.bool_)
    kept = (times >= LEAST) & (new[of] | new[to])
    of, to, times = of[kept], to[kept], times[kept]
    order = np.lexsort((to, -times, of))
    of, to, times = of[order], to[order], times[order]
    rank = np.arange(len(of)) - np.searchsorted(of, of)
    kept = rank < FOLLOWERS
    of, to, shares = of[kept], to[kept], times[kept] / (taken[of[kept]] + HELD_DOWN)
    surest = np.argsort(-shares, kind="stable")[:MOST]
    names = frame.item_ids
    return [(names[of[at]], names[to[at]], float(shares[at])) for at in surest]
