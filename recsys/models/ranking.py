"""A bundle's ranking of one history: the one way from history to an answer, in training and serving.

`recsys.models.batch_ranking` ranks whole batches over the whole catalogue. `best` gives the same top k
of one history without touching most of it: one pass of products over the item matrix finds the
candidates by the network's score, which are scored exactly beside those of the rankers and of the copy
head, and they alone are blended. Every component gives an item outside of them less than the k-th of
them.

Legend: B histories, V vocabulary rows, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from operator import ne

import numpy as np

from recsys.events.array_types import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
)
from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.blend import (
    COPY,
    LIVE,
    SHARPEST,
    TRENDING_US,
    Blend,
    Components,
    blended,
    blended_by_source,
    gate_of,
)
from recsys.models.blend_kernel import blend_best
from recsys.models.bundle import Bundle
from recsys.models.catalogue_scan import (
    ALLOW_ALL,
    NO_ROWS,
    HistoryState,
    Mask,
    candidate_rows,
    exact_scores,
)
from recsys.models.lstm.inference import NetworkState
from recsys.models.popular import Popular
from recsys.models.ranker import NO_VOTES, Votes

NO_MASK: BoolArray = np.empty(0, np.bool_)


def rankings(bundle: Bundle) -> list[str]:
    """The rankings a bundle can serve without a live log, the blends first."""
    return [*(name for name in bundle.blends if name != LIVE), *bundle.rankers]


def rankers_in(bundle: Bundle, blend: Blend) -> list[str]:
    names = [n for n, weight in blend.weights.items() if weight and n != bundle.network_name]
    return [n for n in names if n not in TRENDING_US or bundle.live is not None]


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
    if inputs and not inputs.issuperset(event_types):
        kept = [kind in inputs for kind in event_types]
        item_ids, event_types = list(compress(item_ids, kept)), list(compress(event_types, kept))
        timestamps_us = list(compress(timestamps_us, kept))
        session_ids = list(compress(session_ids, kept))
    count = len(item_ids)
    codes = {name: code for code, name in enumerate(bundle.event_types, 1)}
    times = np.array(timestamps_us, np.int64)
    starts = np.ones(count, np.bool_)
    if count > 1:
        np.greater(times[1:] - times[:-1], bundle.session_gap_seconds * 1e6, out=starts[1:])
        starts[1:] |= np.array(list(map(ne, session_ids[1:], session_ids[:-1])), np.bool_)
    return Histories(
        items=bundle.vocabulary.encode(item_ids),
        event_types=np.array([codes.get(kind, 0) for kind in event_types], np.int16),
        timestamps_us=times,
        session_starts=starts,
        starts=np.zeros(1, np.int64),
        ends=np.full(1, count, np.int64),
    )


def scores_at(
    bundle: Bundle, history: Histories, rows: Int64Array, recent: Float32Array | None = None
) -> Float32Array:
    """Scores (n,) of `rows` (n,) after one history (B = 1), as `best` gives them; -inf where one may
    not come next.
    """
    blend = served_blend(bundle)
    if blend is None:
        voted, votes = votes_of(bundle, history[0], [bundle.ranking])[bundle.ranking]
        found = np.zeros(len(bundle.vocabulary), np.float32)
        found[voted] = votes
        found = found[rows]
        found[~bundle.repeats.allows(rows, history[0])] = -np.inf
        return found
    state = history_state(bundle, history)
    assert state is not None
    at, components = candidates(bundle, blend, history, 0, recent, ALLOW_ALL, state, asked=rows)
    scored: Float32Array = blended(blend, components)[0][np.searchsorted(at, rows)]
    return scored


def served_blend(bundle: Bundle) -> Blend | None:
    """The blend that ranks: the one chosen for the live log where there is one, else the version's.

    None where the bundle serves a ranker.
    """
    if bundle.live is not None and LIVE in bundle.blends:
        return bundle.blends[LIVE]
    return bundle.blends.get(bundle.ranking)


def sources_of(bundle: Bundle) -> list[str]:
    """What an item that the bundle ranks may have come from most."""
    return [*filter(None, [bundle.network_name]), COPY, *TRENDING_US, *bundle.rankers]


def history_state(
    bundle: Bundle, history: Histories, network: NetworkState | None = None
) -> HistoryState | None:
    """The state after one history (B = 1); None where the bundle serves a ranker, which has none.

    `network`: what the network made of this very history, where it is at hand.
    """
    blend = served_blend(bundle)
    if blend is None or bundle.scorer is None:
        return None
    names = rankers_in(bundle, blend)
    network = network or network_state(bundle, history)
    return HistoryState(network, votes_of(bundle, history[0], names))


def votes_of(bundle: Bundle, history: Int32Array, names: Sequence[str]) -> dict[str, Votes]:
    """The votes of the rankers called `names` for one history (T,), counted on where there is a live log."""
    live = bundle.live
    if live is None:
        counted = [name for name in names if name not in TRENDING_US]
        return {name: bundle.component(name).votes(history) for name in counted}
    return {
        name: live.trending(TRENDING_US[name])
        if name in TRENDING_US
        else bundle.component(name).live_votes(history, live)
        for name in names
    }


def network_state(bundle: Bundle, history: Histories) -> NetworkState:
    assert bundle.scorer is not None
    return bundle.scorer.state(history, None if bundle.live is None else bundle.live.view.vectors)


def item_vectors(bundle: Bundle, rows: Int64Array) -> Float32Array:
    """The network's vectors (n, D) of `rows` (n,); zero where it knows nothing of an item, or is none."""
    if bundle.scorer is None:
        return np.zeros((len(rows), 1), np.float32)
    found = bundle.scorer.vectors(rows, None if bundle.live is None else bundle.live.view.vectors)
    found[rows < FIRST_ITEM] = 0
    return found


def owners_of(bundle: Bundle, rows: Int64Array) -> Float64Array:
    """Users and sessions (n,) that had each of `rows` (n,) in the training's data; 0 for newer items."""
    popular = bundle.rankers["popular"]
    assert isinstance(popular, Popular)
    known = rows < len(popular.counts)
    return np.where(known, popular.counts[np.where(known, rows, 0)], 0.0).astype(np.float64)


def best(
    bundle: Bundle,
    history: Histories,
    k: int,
    recent: Float32Array | None = None,
    mask: Mask = ALLOW_ALL,
    factors: Float32Array | None = None,
    state: HistoryState | None = None,
) -> list[tuple[int, float, str]]:
    """(row, score, source) of the k best items after one history (B = 1), best first.

    `factors` (V,) multiply the scores; `recent` as in `scores`; `state`: what `history_state` gave
    for this very history and bundle, where it is at hand. The source of an item is the component
    that gives it most. Where a ranker serves, an item without a vote is left out.
    """
    blend = served_blend(bundle)
    if blend is None:
        rows, parts = _ranker_candidates(bundle, history)
    else:
        state = state or history_state(bundle, history)
        assert state is not None
        if factors is None:
            return _best_blended(bundle, blend, history, k, recent, mask, state)
        rows, components = candidates(
            bundle, blend, history, k, recent, mask, state, factors=factors
        )
        parts = blended_by_source(blend, components)
    if factors is not None:
        for part in parts.values():  # -inf stays so, whatever the factor
            np.multiply(part, factors[rows], out=part, where=np.isfinite(part))
    names = list(parts)
    table = np.stack([parts[name][0] for name in names])  # (sources, C)
    total = table.sum(axis=0)
    mask.apply(total, rows)
    if blend is None:
        total[total <= 0] = -np.inf
    return [
        (int(rows[at]), float(total[at]), names[int(table[:, at].argmax())])
        for at in top_k(total, k, first=0)
    ]


def _ranker_candidates(
    bundle: Bundle, history: Histories
) -> tuple[Int64Array, dict[str, Float32Array]]:
    """The rows (C,), ascending, that the served ranker votes for, and its votes (1, C)."""
    voted, votes = votes_of(bundle, history[0], [bundle.ranking])[bundle.ranking]
    order = np.argsort(voted)
    rows, votes = voted[order].astype(np.int64), votes[order].astype(np.float32)
    kept = bundle.repeats.allows(rows, history[0]) & (rows >= FIRST_ITEM) & (votes > 0)
    return rows, {bundle.ranking: np.where(kept, votes, np.float32(-np.inf))[None]}


def _best_blended(
    bundle: Bundle,
    blend: Blend,
    history: Histories,
    k: int,
    recent: Float32Array | None,
    mask: Mask,
    state: HistoryState,
) -> list[tuple[int, float, str]]:
    """As `best`, by compiled loops from the candidates on."""
    network, votes = state.network, state.votes
    if recent is None:
        recent = bundle.recent
    rows = candidate_rows(bundle, blend, history, k, recent, mask, state)
    assert bundle.network_name is not None
    names = [bundle.network_name, *votes]
    pointed = network.pointed >= FIRST_ITEM
    chosen, totals, sources = blend_best(
        rows,
        exact_scores(bundle, history, rows, network),
        recent,
        np.float32(blend.recency),
        np.float32(blend.sharpness),
        SHARPEST,
        gate_of(np.array([network.gate], np.float32), blend)[0],
        network.pointed[pointed],
        network.shares[pointed],
        np.array([blend.weights.get(name, 0.0) for name in names], np.float32),
        np.concatenate([NO_VOTES[0], *(v[0] for v in votes.values())]),
        np.concatenate([NO_VOTES[1], *(v[1] for v in votes.values())]),
        np.cumsum([0, *(len(v[0]) for v in votes.values())]),
        NO_MASK if mask.allowed is None else mask.allowed,
        mask.excluded,
        max(k, 0),
    )
    names.append(COPY)
    return [
        (row, total, names[source])
        for row, total, source in zip(
            rows[chosen].tolist(), totals.tolist(), sources.tolist(), strict=True
        )
    ]


def candidates(
    bundle: Bundle,
    blend: Blend,
    history: Histories,
    k: int,
    recent: Float32Array | None,
    mask: Mask,
    state: HistoryState,
    everything: bool = False,
    asked: Int64Array = NO_ROWS,
    factors: Float32Array | None = None,
) -> tuple[Int64Array, Components]:
    """Candidate rows (C,), ascending, and the component scores of one history's (B = 1).

    With `everything` all rows are candidates; `asked` (n,) are candidates in any case. `factors`: as in
    `candidate_rows`.
    """
    assert bundle.network_name is not None
    network, votes = state.network, state.votes
    if recent is None:
        recent = bundle.recent
    if everything:
        rows = np.arange(FIRST_ITEM, len(bundle.vocabulary))
    else:
        rows = candidate_rows(bundle, blend, history, k, recent, mask, state, asked, factors)
    pointed = network.pointed >= FIRST_ITEM
    return rows, Components(
        network=bundle.network_name,
        scores=exact_scores(bundle, history, rows, network)[None],
        pointed=np.searchsorted(rows, network.pointed[pointed])[None],
        shares=network.shares[pointed][None],
        gate=np.array([network.gate], np.float32),
        votes={n: [(np.searchsorted(rows, v[0]).astype(np.int32), v[1])] for n, v in votes.items()},
        recent=np.where(rows < len(recent), recent[np.minimum(rows, len(recent) - 1)], 0),
    )


def top_k(scores: Float32Array, k: int, first: int = FIRST_ITEM) -> Int64Array:
    """Indices of the k largest finite scores of one row, best first; ties by lower index.

    `first`: how many of the row's places are no items.
    """
    k = min(k, len(scores) - first)
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
