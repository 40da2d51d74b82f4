"""A bundle's ranking of histories: the one way from history to scores, in training and serving.

`scores` ranks whole batches over the whole catalogue. `best` gives the same top k of one history
without touching most of it: one pass of products over the item matrix finds the candidates by the
network's score, which are scored exactly beside those of the rankers and of the copy head, and they
alone are blended. Every component gives an item outside of them less than the k-th of them.

Legend: B histories, V vocabulary rows, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.events.array_types import BoolArray, Float32Array, Int64Array
from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.blend import SHARPEST, Blend, Components, blended, blended_by_source
from recsys.models.bundle import Bundle
from recsys.models.lstm.inference import NetworkState
from recsys.models.lstm.kernels import add_scaled, largest
from recsys.models.ranker import Votes
from recsys.models.rankers import dense_scores

SLACK = 56  # candidates beyond k: a compact item matrix may misplace some at the edge


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
    return blended(blend, components_of(bundle, histories, _rankers_in(bundle, blend), recent))


def scores_by_source(
    bundle: Bundle, histories: Histories, recent: Float32Array | None = None
) -> dict[str, Float32Array]:
    """The parts (B, V) that add up to the scores the bundle serves, by their source."""
    if bundle.ranking in bundle.rankers:
        return {bundle.ranking: scores(bundle, histories)}
    blend = bundle.blends[bundle.ranking]
    return blended_by_source(
        blend, components_of(bundle, histories, _rankers_in(bundle, blend), recent)
    )


def components_of(
    bundle: Bundle,
    histories: Histories,
    names: Sequence[str],
    recent: Float32Array | None = None,
) -> Components:
    """Component scores of the network and the rankers called `names` for each history."""
    assert bundle.scorer is not None and bundle.network_name is not None
    found = bundle.scorer.predict(histories)
    votes = {
        name: [bundle.component(name).votes(histories[row]) for row in range(len(histories))]
        for name in names
    }
    if recent is None:
        recent = bundle.recent
    return Components(
        network=bundle.network_name,
        scores=found.scores,
        pointed=found.pointed,
        shares=found.shares,
        gate=found.gate,
        votes=votes,
        recent=recent,
    )


def rankings(bundle: Bundle) -> list[str]:
    """The rankings a bundle can serve, the blends first."""
    return [*bundle.blends, *bundle.rankers]


def _rankers_in(bundle: Bundle, blend: Blend) -> list[str]:
    return [n for n, weight in blend.weights.items() if weight and n != bundle.network_name]


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


@dataclass(frozen=True)
class Mask:
    """Which items may be recommended."""

    allowed: BoolArray | None = None  # (V,); None = all
    excluded: Int64Array = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def allows_all(self) -> bool:
        return self.allowed is None and len(self.excluded) == 0

    def apply(self, values: Float32Array, rows: Int64Array | None = None) -> None:
        """Set to -inf, in place, what is masked: values (V,), or (C,) of `rows` (C,), which ascend."""
        if self.allowed is not None:
            values[~(self.allowed if rows is None else self.allowed[rows])] = -np.inf
        if len(self.excluded):
            values[self.excluded if rows is None else np.isin(rows, self.excluded)] = -np.inf


ALLOW_ALL = Mask()


@dataclass(frozen=True)
class HistoryState:
    """All of an answer that depends on the history alone: the network's state and rankers' votes."""

    network: NetworkState
    votes: Mapping[str, Votes]


def history_state(bundle: Bundle, history: Histories) -> HistoryState | None:
    """The state after one history (B = 1); None where the bundle serves a ranker, which has none."""
    if bundle.ranking in bundle.rankers or bundle.scorer is None:
        return None
    names = _rankers_in(bundle, bundle.blends[bundle.ranking])
    votes = {name: bundle.component(name).votes(history[0]) for name in names}
    return HistoryState(bundle.scorer.state(history), votes)


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
    if factors is not None:
        parts = scores_by_source(bundle, history, recent)
        rows = np.arange(len(bundle.vocabulary))
        for part in parts.values():  # -inf stays so, whatever the factor
            np.multiply(part, factors, out=part, where=np.isfinite(part))
    elif bundle.ranking in bundle.rankers:
        voted, votes = bundle.rankers[bundle.ranking].votes(history[0])
        order = np.argsort(voted)
        rows, votes = voted[order].astype(np.int64), votes[order].astype(np.float32)
        kept = bundle.repeats.allows(rows, history[0]) & (rows >= FIRST_ITEM) & (votes > 0)
        parts = {bundle.ranking: np.where(kept, votes, np.float32(-np.inf))[None]}
    else:
        state = state or history_state(bundle, history)
        assert state is not None
        rows, parts = _blended_candidates(bundle, history, k, recent, mask, state)
    names = list(parts)
    table = np.stack([parts[name][0] for name in names])  # (sources, C)
    total = table.sum(axis=0)
    mask.apply(total, rows)
    if bundle.ranking in bundle.rankers:
        total[total <= 0] = -np.inf
    return [
        (int(rows[at]), float(total[at]), names[int(table[:, at].argmax())])
        for at in top_k(total, k, first=0)
    ]


def _blended_candidates(
    bundle: Bundle,
    history: Histories,
    k: int,
    recent: Float32Array | None,
    mask: Mask,
    state: HistoryState,
) -> tuple[Int64Array, dict[str, Float32Array]]:
    """Candidate rows (C,), ascending, and what each component adds to their shares (1, C)."""
    assert bundle.scorer is not None and bundle.network_name is not None
    blend = bundle.blends[bundle.ranking]
    if recent is None:
        recent = bundle.recent
    network, votes = state.network, state.votes
    scan = bundle.scorer.scan(network.vector)
    if blend.recency:
        add_scaled(scan, np.float32(blend.recency), recent)
    scan[:FIRST_ITEM] = -np.inf
    bundle.repeats.mask(scan[None], history)
    chosen: list[NDArray[np.integer[Any]]] = [
        largest(scan, SHARPEST + SLACK),
        network.pointed,
        *(v[0] for v in votes.values()),
    ]
    if not mask.allows_all:
        mask.apply(scan)
        chosen.append(largest(scan, k + SLACK))
    elif k > SHARPEST:
        chosen.append(largest(scan, k + SLACK))
    rows = distinct(np.concatenate(chosen))
    rows = rows[np.searchsorted(rows, FIRST_ITEM) :]
    exact = bundle.scorer.score(network.vector, rows)
    exact[~bundle.repeats.allows(rows, history[0])] = -np.inf
    pointed = network.pointed >= FIRST_ITEM
    components = Components(
        network=bundle.network_name,
        scores=exact[None],
        pointed=np.searchsorted(rows, network.pointed[pointed])[None],
        shares=network.shares[pointed][None],
        gate=np.array([network.gate], np.float32),
        votes={n: [(np.searchsorted(rows, v[0]).astype(np.int32), v[1])] for n, v in votes.items()},
        recent=recent[rows],
    )
    return rows, blended_by_source(blend, components)


def distinct(rows: NDArray[np.integer[Any]]) -> Int64Array:
    """The different ones of `rows` (n,), n > 0, ascending."""
    ordered = np.sort(rows.astype(np.int64))
    first = np.empty(len(ordered), np.bool_)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


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
