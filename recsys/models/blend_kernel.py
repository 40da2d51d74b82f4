"""The blend of one answer, compiled: `recsys.models.blend` for one history, from candidates to the best k.

A test holds it to the arrays of `blended_by_source`.

Legend: C candidates, V vocabulary rows, D width, T time, S components: the network, then rankers.
"""

from __future__ import annotations

import numpy as np

from recsys.events.array_types import BoolArray, Float32Array, Int32Array, Int64Array
from recsys.models.lstm.kernels import compiled, kth_largest


@compiled
def blend_best(
    rows: Int64Array,
    scores: Float32Array,
    recent: Float32Array,
    recency: np.float32,
    sharpness: np.float32,
    summed: int,
    gate: np.float32,
    pointed: Int64Array,
    shares: Float32Array,
    weights: Float32Array,
    vote_rows: Int32Array,
    votes: Float32Array,
    vote_ends: Int64Array,
    allowed: BoolArray,
    excluded: Int64Array,
    k: int,
) -> tuple[Int64Array, Float32Array, Int32Array]:
    """The places among the candidates of the k best, best first, their shares and components.

    rows (C,) ascend; scores (C,) of the network, -inf where one may not come next; recent (V',) log
    counts by row, none beyond V'. pointed (T,) and shares (T,) of the copy head. weights (S,), 0 where
    a component is absent; ranker s votes for vote_rows[vote_ends[s - 1]:vote_ends[s]], all of them
    candidates. allowed (V,) may be empty: all are. The component S is copying.
    """
    count, components = len(rows), len(weights)
    parts = np.zeros((components + 1, count), np.float32)
    rest = np.float32(1) - gate
    if weights[0] != 0:
        sharp = np.empty(count, np.float32)
        for c in range(count):
            known = recent[rows[c]] if rows[c] < len(recent) else np.float32(0)
            sharp[c] = (scores[c] + recency * known) * sharpness
        head = sharp
        if count > summed:
            head = sharp.copy()
            kth_largest(head, summed)
            head = head[:summed]
        top = np.float32(-np.inf)
        for value in head:
            top = max(top, value)
        if top == -np.inf:
            top = np.float32(0)
        total = np.float32(0)
        for value in head:
            total += np.exp(value - top)
        shift = top + np.log(max(total, np.float32(1e-30)))
        for c in range(count):
            parts[0, c] = np.exp(sharp[c] - shift) * weights[0] * rest
    for s in range(1, components):
        if weights[s] == 0:
            continue
        first, end = vote_ends[s - 1], vote_ends[s]
        places = np.searchsorted(rows, vote_rows[first:end])
        total = np.float32(0)
        for n in range(len(places)):
            if scores[places[n]] > -np.inf:
                total += votes[first + n]
        scale = weights[s] * rest / max(total, np.float32(1e-12))
        for n in range(len(places)):
            parts[s, places[n]] = votes[first + n] * scale
    for t in range(len(pointed)):
        parts[components, np.searchsorted(rows, pointed[t])] += gate * shares[t]

    totals = np.empty(count, np.float32)
    for c in range(count):
        totals[c] = np.float32(0)
        for s in range(components + 1):
            totals[c] += parts[s, c]
        if scores[c] == -np.inf or (len(allowed) > 0 and not allowed[rows[c]]):
            totals[c] = -np.inf
    for row in excluded:
        c = np.searchsorted(rows, row)
        if c < count and rows[c] == row:
            totals[c] = -np.inf
    edge = np.float32(-np.inf)
    if count > k > 0:
        edge = kth_largest(totals.copy(), k)
    chosen = np.flatnonzero((totals >= edge) & (totals > -np.inf))
    # Equal ones by their rows, which ascend.
    order = np.argsort(-totals[chosen], kind="mergesort")[:k]
    chosen = chosen[order]
    sources = np.empty(len(chosen), np.int32)
    for n in range(len(chosen)):
        sources[n] = np.argmax(parts[:, chosen[n]])
    return chosen, totals[chosen], sources
