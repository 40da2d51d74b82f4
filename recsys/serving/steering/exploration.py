"""Exploration: a bounded share of positions shows new or uncertain items, with known chances.

Each position is explored independently, with the chance `share`. An explored position shows an item of a pool
of its own, each with the same chance. The pools have no item in common with one another or with the
answer as it would be, so that no draw depends on another and the chance of every item at its position is
exact: 1 - share for what stands there, share / size for each of the pool's. Items are dealt to pools at random,
so that what is tried is as good at one position as at another.

Legend: C candidates beyond the answer, K positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from recsys.events.array_types import Float64Array, Int64Array

EXPLORED = "explored"  # the source of an item that exploration shows
POOL = 5  # items of a position's pool at most


def most_uncertain(events: Float64Array, count: int) -> Int64Array:
    """The places (n,), n <= `count`, of the candidates that are most worth a try, the best first.

    events (C,): how many users and sessions had an event of each candidate, best first by the ranking. Tried
    first is what has the largest sum of its relevance, which falls from 1 to 0 by place, and of
    1 / sqrt(1 + events), the bonus of upper confidence bounds: 1 for what nobody has had yet.

    >>> most_uncertain(np.array([900.0, 400.0, 2.0, 0.0]), 2).tolist()
    [3, 2]
    """
    if len(events) == 0:
        return np.empty(0, np.int64)
    relevance = 1 - np.arange(len(events)) / len(events)
    return np.argsort(-(relevance + 1 / np.sqrt(1 + events)), kind="stable")[:count]


def pools_of(
    tried: Iterable[int],
    positions: Sequence[int],
    fits: Callable[[int, int], bool] = lambda _, position: True,
) -> dict[int, list[int]]:
    """The pool of each of `positions`, POOL at most: each of `tried` goes where fewest are and it `fits`.

    >>> pools_of([7, 3, 9], [0, 2]), pools_of([7, 3], [0, 2], lambda tried, position: position == 2)
    ({0: [7, 9], 2: [3]}, {0: [], 2: [7, 3]})
    """
    pools: dict[int, list[int]] = {position: [] for position in positions}
    for one in tried:
        open_to = [at for at in positions if len(pools[at]) < POOL and fits(one, at)]
        if open_to:
            pools[min(open_to, key=lambda at: len(pools[at]))].append(one)
    return pools


def dealt(recommendation_id: str, count: int) -> list[int]:
    """The order of 0..count - 1 in which items are dealt to pools; it follows from the answer's id.

    Dealt best first, higher positions would try better items, and clicks would fall with the rank for that
    reason too.
    """
    order: list[int] = _generator(recommendation_id, "deal").permutation(count).tolist()
    return order


def drawn_places(recommendation_id: str, sizes: Int64Array, share: float) -> Int64Array:
    """Which of its pool each position shows (K,); -1: what stands there anyway.

    sizes (K,) of the pools; a position without a pool is not explored. The draws follow from the answer's
    id, so that they can be made once more from it.
    """
    uniform = _generator(recommendation_id, "draw").random((2, len(sizes)))
    explored = (uniform[0] < share) & (sizes > 0)
    return np.where(explored, (uniform[1] * sizes).astype(np.int64), -1)


def _generator(recommendation_id: str, purpose: str) -> np.random.Generator:
    seed = hashlib.blake2b(
        recommendation_id.encode(), digest_size=16, person=purpose.encode()
    ).digest()
    return np.random.default_rng(int.from_bytes(seed))
