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
from recsys.rankers.blend import NETWORK, Blend, Voices, blended, blended_by_source
from recsys.rankers.dense import dense_scores
from recsys.registry import Bundle

Float32Array = NDArray[np.float32]

LSTM = NETWORK
BLEND = "blend"
BLENDED = ("session_knn", "sequential_rules", "transitions")  # the rankers a blend may hold


def scores(
    bundle: Bundle,
    histories: Histories,
    ranking: str | None = None,
    recent: Float32Array | None = None,
) -> Float32Array:
    """Scores (B, V) by `ranking` (default: the one the bundle serves).

    What may not come next (padding, unknown, and what the learned repeat policy rules out) is -inf.
    `recent` (V,): log(1 + recent count) of each item, in place of the bundle's own.
    Raises KeyError where the bundle holds no such ranking.
    """
    name = ranking or bundle.ranking
    if name in bundle.rankers:
        found = dense_scores(bundle.rankers[name], histories, len(bundle.vocabulary))
        bundle.repeats.mask(found, histories)
        return found
    blend = bundle.blends[name]
    return blended(blend, voices_of(bundle, histories, _rankers_in(blend), recent))


def scores_by_source(
    bundle: Bundle, histories: Histories, recent: Float32Array | None = None
) -> dict[str, Float32Array]:
    """The parts (B, V) that add up to the scores the bundle serves, by the voice they come from."""
    if bundle.ranking in bundle.rankers:
        return {bundle.ranking: scores(bundle, histories)}
    blend = bundle.blends[bundle.ranking]
    return blended_by_source(blend, voices_of(bundle, histories, _rankers_in(blend), recent))


def voices_of(
    bundle: Bundle,
    histories: Histories,
    names: Sequence[str],
    recent: Float32Array | None = None,
) -> Voices:
    """What the network and the rankers called `names` say of each history."""
    assert bundle.scorer is not None
    said = bundle.scorer.predict(histories)
    votes = {
        name: [bundle.voice(name).votes(histories[row]) for row in range(len(histories))]
        for name in names
    }
    if recent is None:
        recent = bundle.recent
    return Voices(said.scores, said.pointed, said.shares, said.gate, votes, recent)


def rankings(bundle: Bundle) -> list[str]:
    """The rankings a bundle can serve, the blends first."""
    return [*bundle.blends, *bundle.rankers]


def _rankers_in(blend: Blend) -> list[str]:
    return [name for name, weight in blend.weights.items() if weight and name != NETWORK]


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
