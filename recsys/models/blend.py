"""Blend: scores of the network and of rankers, weighted and added up to one ranking.

Legend: B histories, T time, V vocabulary rows.

    share of item j = (1 - g) * (w_n * softmax(sharpness * scores)_j + sum of w_r * votes_r(j))
                      + g * pointer(j),        g = sigmoid(gate + gate_shift)

A network is surer of what it was trained on than it has a right to be, and its copy gate has
learned to lean on that. Both are put right on data it has not seen: `sharpness` multiplies its
scores (temperature scaling, Guo et al. 2017), `gate_shift` is added to the gate's logit. Votes of a
ranker are divided by their sum (`recsys.models.ranker.vote_shares`). The softmax is taken over the SHARPEST best scores, so that a flat
tail of a large catalogue does not dilute them; below them the shares go on falling. `recency` times
the logarithm of an item's recent count is added to its score: popularity that moves on between
trainings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recsys.events.array_types import Float32Array, Int64Array
from recsys.events.times import DAY_US, HOUR_US
from recsys.models.ranker import Votes, vote_shares

BLEND = "blend"  # the name of the ranking that blends the network with rankers
LIVE = "live"  # the name of the blend that was chosen with a live log, for answers with one
COPY = "copy"  # the source of what the network's copy head gave most
TRENDING, TRENDING_DAY = "trending", "trending_day"
# Components of that blend: what most owners had in so many us before the answer.
TRENDING_US = {TRENDING: HOUR_US, TRENDING_DAY: DAY_US}
SHARPEST = 200
NOTHING = -1e8  # a gate below it has nothing to copy
NO_COPIES = -60.0  # a gate_shift that leaves the network's copies out


@dataclass(frozen=True)
class Blend:
    """Component weights, which sum to one, and the network's calibration."""

    weights: Mapping[str, float]  # the network's and rankers' names
    sharpness: float = 1.0
    gate_shift: float = 0.0
    recency: float = 0.0

    def plain(self) -> dict[str, Any]:
        """JSON-ready; Blend(**plain) takes it back."""
        return {**asdict(self), "weights": dict(self.weights)}


@dataclass(frozen=True)
class Components:
    """Component scores for B histories; arrays as in `recsys.models.lstm.batch_scorer.Predictions`."""

    network: str  # the network's name among the weights: its body
    scores: Float32Array  # (B, V); -inf where an item may not come next
    pointed: Int64Array  # (B, T)
    shares: Float32Array  # (B, T)
    gate: Float32Array  # (B,)
    votes: Mapping[str, Sequence[Votes]]  # for each ranker, B votes
    recent: Float32Array | None = None  # (V,) log(1 + recent count)


def blended(blend: Blend, components: Components) -> Float32Array:
    """Shares (B, V), -inf where an item may not come next."""
    total = np.zeros_like(components.scores)
    _add_copies(total, blend, components)
    for name in _present(blend, components):
        total += _weighted_scores(name, blend, components)
    total[np.isneginf(components.scores)] = -np.inf
    return total


def blended_by_source(blend: Blend, components: Components) -> dict[str, Float32Array]:
    """What each component adds to the shares, (B, V); -inf where an item may not come next.

    Copies stand apart from what the network gives any item of the catalogue.
    """
    parts = {
        name: _weighted_scores(name, blend, components) for name in _present(blend, components)
    }
    parts[COPY] = np.zeros_like(components.scores)
    _add_copies(parts[COPY], blend, components)
    excluded = np.isneginf(components.scores)
    for part in parts.values():
        part[excluded] = -np.inf
    return parts


def _present(blend: Blend, components: Components) -> list[str]:
    """The names that have a weight and scores; those of TRENDING_US have none without a live log."""
    return [
        name
        for name, weight in blend.weights.items()
        if weight and (name == components.network or name in components.votes)
    ]


def _weighted_scores(name: str, blend: Blend, components: Components) -> Float32Array:
    """The component's shares (B, V) times its weight and 1 - g."""
    if name == components.network:
        part = softmax_of_best(with_recency(components.scores, blend, components.recent), blend)
    else:
        part = np.zeros_like(components.scores)
        for row, votes in enumerate(components.votes[name]):
            part[row, votes[0]] = vote_shares(votes, components.scores[row])
    part *= np.float32(blend.weights[name]) * (1.0 - gate_of(components.gate, blend))[:, None]
    return part


def _add_copies(total: Float32Array, blend: Blend, components: Components) -> None:
    rows = np.arange(len(total))[:, None]
    np.add.at(
        total,
        (rows, components.pointed),
        gate_of(components.gate, blend)[:, None] * components.shares,
    )


def gate_of(logits: Float32Array, blend: Blend) -> Float32Array:
    """g of each history from its gate's logit (B,); 0 where there is nothing to copy."""
    shifted = np.clip(logits.astype(np.float64) + blend.gate_shift, -60.0, 60.0)
    gate = np.where(logits < NOTHING, 0.0, 1.0 / (1.0 + np.exp(-shifted)))
    found: Float32Array = gate.astype(np.float32)
    return found


def with_recency(scores: Float32Array, blend: Blend, recent: Float32Array | None) -> Float32Array:
    """Network scores (B, V) plus `recency` times log(1 + recent count) (V,)."""
    if recent is None or blend.recency == 0:
        return scores
    return scores + np.float32(blend.recency) * recent


def softmax_of_best(scores: Float32Array, blend: Blend) -> Float32Array:
    """exp(sharpness * scores), scaled so that the SHARPEST best of each row sum to one."""
    sharp = scores * np.float32(blend.sharpness)
    log_total = log_sum_of_best(sharp)
    sharp -= log_total[:, None]
    return np.exp(sharp, out=sharp)


def log_sum_of_best(sharp: Float32Array) -> Float32Array:
    """log of the sum of exp over the SHARPEST best of each row; (B,)."""
    width = sharp.shape[1]
    if width > SHARPEST:
        sharp = np.partition(sharp, width - SHARPEST, axis=1)[:, width - SHARPEST :]
    top = sharp.max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, np.float32(0))
    total = np.exp(sharp - top).sum(axis=1)
    found: Float32Array = top[:, 0] + np.log(np.maximum(total, 1e-30)).astype(np.float32)
    return found
