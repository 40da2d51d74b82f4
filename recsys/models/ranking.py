"""A bundle's ranking of histories: the one way from history to scores, in training and serving.

`scores` ranks whole batches over the whole catalogue. `best` gives the same top k of one history
without touching most of it: one pass of products over the item matrix finds the items whose score
by the network could matter, those and the voted and copied ones are scored exactly, and they alone
are blended. An item outside of them has less than the k-th of them by every voice.

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
from recsys.models.blend import (
    NETWORK,
    SHARPEST,
    Blend,
    Voices,
    blended,
    blended_by_source,
)
from recsys.models.bundle import Bundle
from recsys.models.lstm.inference import Reading
from recsys.models.lstm.kernels import add_scaled, largest
from recsys.models.ranker import Votes
from recsys.models.rankers import dense_scores

SLACK = 56  # candidates beyond those wanted: a compact matrix may misplace some at the edge
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


@dataclass(frozen=True)
class Bounds:
    """Which rows may be shown."""

    allowed: BoolArray | None = None  # (V,); None = all
    barred: Int64Array = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def open(self) -> bool:
        """Whether everything may be shown."""
        return self.allowed is None and len(self.barred) == 0

    def close(self, values: Float32Array, rows: Int64Array | None = None) -> None:
        """Set to -inf what may not be shown; values (V,), or (C,) of `rows` (C,), which ascend."""
        if self.allowed is not None:
            values[~(self.allowed if rows is None else self.allowed[rows])] = -np.inf
        if len(self.barred):
            values[self.barred if rows is None else np.isin(rows, self.barred)] = -np.inf


EVERYTHING = Bounds()


@dataclass(frozen=True)
class Read:
    """One history as a bundle has read it: all of an answer that depends on the history alone."""

    reading: Reading
    votes: Mapping[str, Votes]


def read_history(bundle: Bundle, history: Histories) -> Read | None:
    """Read one history (B = 1); None where the bundle serves a ranker, which has nothing to keep."""
    if bundle.ranking in bundle.rankers or bundle.scorer is None:
        return None
    names = _rankers_in(bundle.blends[bundle.ranking])
    votes = {name: bundle.voice(name).votes(history[0]) for name in names}
    return Read(bundle.scorer.read(history), votes)


def best(
    bundle: Bundle,
    history: Histories,
    k: int,
    recent: Float32Array | None = None,
    bounds: Bounds = EVERYTHING,
    factors: Float32Array | None = None,
    read: Read | None = None,
) -> list[tuple[int, float, str]]:
    """(row, score, source) of the k best items after one history (B = 1), best first.

    `factors` (V,) multiply the scores; `recent` as in `scores`; `read`: what `read_history` gave for
    this very history and bundle, where it is at hand. The source of an item is the voice that gives
    it most. Where a ranker serves, an item without a vote is left out.
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
        read = read or read_history(bundle, history)
        assert read is not None
        rows, parts = _blended_candidates(bundle, history, k, recent, bounds, read)
    names = list(parts)
    table = np.stack([parts[name][0] for name in names])  # (sources, C)
    total = table.sum(axis=0)
    bounds.close(total, rows)
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
    bounds: Bounds,
    known: Read,
) -> tuple[Int64Array, dict[str, Float32Array]]:
    """Candidate rows (C,), ascending, and each voice's part of their shares (1, C)."""
    assert bundle.scorer is not None
    blend = bundle.blends[bundle.ranking]
    if recent is None:
        recent = bundle.recent
    read, votes = known.reading, known.votes
    scan = bundle.scorer.scan(read.state)
    if blend.recency:
        add_scaled(scan, np.float32(blend.recency), recent)
    scan[:FIRST_ITEM] = -np.inf
    bundle.repeats.mask(scan[None], history)
    chosen: list[NDArray[np.integer[Any]]] = [
        largest(scan, SHARPEST + SLACK),
        read.pointed,
        *(v[0] for v in votes.values()),
    ]
    if not bounds.open:
        bounds.close(scan)
        chosen.append(largest(scan, k + SLACK))
    elif k > SHARPEST:
        chosen.append(largest(scan, k + SLACK))
    rows = distinct(np.concatenate(chosen))
    rows = rows[np.searchsorted(rows, FIRST_ITEM) :]
    exact = bundle.scorer.score(read.state, rows)
    exact[~bundle.repeats.allows(rows, history[0])] = -np.inf
    pointed = read.pointed >= FIRST_ITEM
    voices = Voices(
        exact[None],
        np.searchsorted(rows, read.pointed[pointed])[None],
        read.shares[pointed][None],
        np.array([read.gate], np.float32),
        {n: [(np.searchsorted(rows, v[0]).astype(np.int32), v[1])] for n, v in votes.items()},
        recent[rows],
    )
    return rows, blended_by_source(blend, voices)


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
