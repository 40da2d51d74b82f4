"""Next-item metrics over the full catalogue, position by position.

Legend: P positions, V vocabulary rows.

A rank is conservative: the number of items scored at least as high as the target, so that ties
count against the ranking. With one relevant item a position, recall@k is the hit rate, and NDCG@k
is 1 / log2(1 + rank) (Jarvelin and Kekalainen 2002, one gain of 1).
"""

from __future__ import annotations

import numpy as np

from recsys.events.array_types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.time_split import Positions
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.ranker import Ranker


def ranks(scores: Float32Array, targets: Int32Array) -> Int64Array:
    """1-based conservative rank of each target (P,) in scores (P, V).

    A target outside the vocabulary, or scored -inf, ranks last: V.

    >>> scores = np.array([[-np.inf, -np.inf, 0.5, 0.9, 0.5]], np.float32)
    >>> ranks(scores, np.array([4], np.int32)).tolist()
    [3]
    """
    rows = np.arange(len(targets))
    own = scores[rows, targets]
    found = (scores >= own[:, None]).sum(axis=1)
    missed = (targets < FIRST_ITEM) | np.isneginf(own)
    return np.where(missed, scores.shape[1], found).astype(np.int64)


def target_ranks(scores: Float32Array, positions: Positions, first: int) -> Int64Array:
    """1-based conservative rank of the best wanted item of positions first, first + 1, ...

    scores (P, V) are of those positions.
    """
    last = first + len(scores)
    if positions.baskets is None:
        return ranks(scores, positions.targets[first:last])
    best = positions.targets[first:last].copy()
    for row in range(len(scores)):
        wanted = positions.wanted(first + row)
        known = wanted[wanted >= FIRST_ITEM]
        if len(known):
            best[row] = known[np.argmax(scores[row, known])]
    return ranks(scores, best)


def ranker_ranks(
    ranker: Ranker, positions: Positions, repeats: RepeatPolicy, missed: int
) -> Int64Array:
    """1-based conservative rank of the best wanted item of each position (P,) among a ranker's votes.

    `missed` is the rank of a target without a vote. What `repeats` rules out has none.
    """
    found = np.full(len(positions), missed, np.int64)
    for number in range(len(positions)):
        history = positions.histories[number]
        items, votes = ranker.votes(history)
        votes = np.where(repeats.allows(items, history), votes, 0.0)
        own = votes[np.isin(items, positions.wanted(number))].max(initial=0.0)
        if own > 0:
            found[number] = int((votes >= own).sum())
    return found


def recall(ranks: Int64Array, k: int) -> Float64Array:
    """1 where the target is among the first k, else 0; (P,)."""
    return (ranks <= k).astype(np.float64)


def reciprocal_rank(ranks: Int64Array, k: int) -> Float64Array:
    """1 / rank where the target is among the first k, else 0; (P,)."""
    return np.where(ranks <= k, 1.0 / np.maximum(ranks, 1), 0.0)


def ndcg(ranks: Int64Array, k: int) -> Float64Array:
    """1 / log2(1 + rank) where the target is among the first k, else 0; (P,)."""
    return np.where(ranks <= k, 1.0 / np.log2(1.0 + np.maximum(ranks, 1)), 0.0)


def coverage(shown: BoolArray) -> float:
    """Share of the catalogue that was among anyone's first k; shown (V,) without special rows."""
    items = shown[FIRST_ITEM:]
    return float(items.mean()) if len(items) else 0.0
