"""A bundle's ranking of histories: the one way from history to scores, in training and serving.

Legend: B histories, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from recsys.data.sequences import Histories
from recsys.data.vocabulary import FIRST_ITEM
from recsys.rankers.dense import dense_scores
from recsys.registry import Bundle

Float32Array = NDArray[np.float32]

LSTM = "lstm"


def scores(bundle: Bundle, histories: Histories, ranking: str | None = None) -> Float32Array:
    """Scores (B, V) by `ranking` (default: the one the bundle serves).

    What may not come next (padding, unknown, and what the learned repeat policy rules out) is -inf.
    Raises KeyError where the bundle holds no such ranking.
    """
    name = ranking or bundle.ranking
    rows = len(bundle.vocabulary)
    if name == LSTM:
        if bundle.scorer is None:
            raise KeyError(name)
        found = bundle.scorer.scores(histories)
    else:
        found = dense_scores(bundle.rankers[name], histories, rows)
    bundle.repeats.mask(found, histories)
    return found


def rankings(bundle: Bundle) -> list[str]:
    """The rankings a bundle can serve, the LSTM first."""
    return ([LSTM] if bundle.network is not None else []) + list(bundle.rankers)


def encode_history(
    bundle: Bundle,
    item_ids: Sequence[str],
    event_types: Sequence[str],
    timestamps_us: Sequence[int],
    session_ids: Sequence[str | None],
) -> Histories:
    """One history (B = 1) of the events the bundle's model reads, oldest first.

    Events whose type is no input are left out; items the model does not know stay as unknown.
    """
    inputs = set(bundle.input_event_types)
    kept = [at for at, kind in enumerate(event_types) if not inputs or kind in inputs]
    codes = {name: code for code, name in enumerate(bundle.event_types, 1)}
    times = np.array([timestamps_us[at] for at in kept], np.int64)
    starts = np.ones(len(kept), np.bool_)
    if len(kept) > 1:
        changed = [session_ids[a] != session_ids[b] for a, b in pairwise(kept)]
        gaps = np.diff(times) > bundle.session_gap_seconds * 1e6
        starts[1:] = np.array(changed, np.bool_) | gaps
    return Histories(
        items=bundle.vocabulary.encode(item_ids[at] for at in kept),
        event_types=np.array([codes.get(event_types[at], 0) for at in kept], np.int16),
        timestamps_us=times,
        session_starts=starts,
        starts=np.zeros(1, np.int64),
        ends=np.full(1, len(kept), np.int64),
    )


def top_k(scores: Float32Array, k: int) -> NDArray[np.int64]:
    """Indices of the k largest finite scores of one row (V,), best first; ties by lower index."""
    k = min(k, len(scores) - FIRST_ITEM)
    if k <= 0:
        return np.empty(0, np.int64)
    chosen = np.argpartition(-scores, k - 1)[:k]
    # The partition is free to choose among equals at the edge: take the lowest indices instead.
    edge = scores[chosen].min()
    above = np.flatnonzero(scores > edge)
    level = np.flatnonzero(scores == edge)[: k - len(above)]
    chosen = np.concatenate((above, level))
    chosen = chosen[np.lexsort((chosen, -scores[chosen]))]
    return chosen[np.isfinite(scores[chosen])]
