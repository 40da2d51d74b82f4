"""Diversity: maximal marginal relevance over item vectors.

After Carbonell and Goldstein (1998), "The use of MMR, diversity-based reranking". Deviation: relevance is
not a similarity to a query but the place in the ranking, since scores of different sources (shares of what
comes next, counts of what is popular) cannot be compared.

Legend: C candidates, D width.
"""

from __future__ import annotations

import numpy as np

from recsys.events.array_types import Float32Array, Int64Array

SHORTEST_VECTOR = np.float32(1e-9)  # none counts as shorter, so that a zero vector is like no item


def diversified(vectors: Float32Array, diversity: float, k: int) -> Int64Array:
    """The candidates' places (C,) in their new order: k chosen one by one, then the others as they were.

    vectors (C, D): of the candidates, best first; a zero vector is like no other. At each step the one
    with the largest (1 - diversity) * relevance - diversity * likeness is chosen: relevance falls from 1
    at the first place to 0 behind the last, likeness is the largest cosine with one that was chosen before.
    0 leaves the order as it is; 1 asks for likeness alone.

    >>> alike = np.array([[1, 0], [1, 0.1], [0, 1]], np.float32)
    >>> diversified(alike, 0.0, 3).tolist(), diversified(alike, 0.5, 3).tolist()
    ([0, 1, 2], [0, 2, 1])
    """
    count = len(vectors)
    if diversity <= 0 or count == 0:
        return np.arange(count)
    lengths = np.sqrt(np.einsum("cd,cd->c", vectors, vectors))
    unit = vectors / np.maximum(lengths, SHORTEST_VECTOR)[:, None]
    relevance = (1 - np.arange(count, dtype=np.float32) / count) * np.float32(1 - diversity)
    likeness = np.zeros(count, np.float32)  # of the first choice with nothing
    chosen = np.empty(min(k, count), np.int64)
    for step in range(len(chosen)):
        place = int((relevance - np.float32(diversity) * likeness).argmax())
        chosen[step] = place
        relevance[place] = -np.inf
        cosines = unit @ unit[place]
        likeness = cosines if step == 0 else np.maximum(likeness, cosines)
    others = np.ones(count, np.bool_)
    others[chosen] = False
    return np.concatenate((chosen, np.flatnonzero(others)))
