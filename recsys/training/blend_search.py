"""Calibrate the network and choose its blend with the rankers, by search on validation positions.

Legend: P positions, C candidates of a position, S best scores kept.

Every choice is made by coordinate search over short lists, for the geometric mean of recall@20 and
MRR@20, so that a step of one per cent in either counts the same. A position is ranked among its
candidates: the best of each component, and its own history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from recsys.events.array_types import AnyArray, BoolArray, Float32Array, Int64Array
from recsys.events.time_split import Positions
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.batch_ranking import components_of
from recsys.models.blend import NOTHING, SHARPEST, Blend, gate_of, log_sum_of_best
from recsys.models.bundle import Bundle
from recsys.models.ranker import Ranker, Votes, vote_shares
from recsys.training.report import ranker_ranks, recall, reciprocal_rank

BEST = 100  # candidates taken from each component
BATCH = 256
K = 20
SHARPNESS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.3)
GATE_SHIFTS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
WEIGHTS = (0.0, 0.03, 0.06, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
RECENCY = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3)
ROUNDS = 2
RANKER_POSITIONS = 1_000  # of validation, on which a ranker is tuned
MISSED = (
    1_000_000  # the rank of a target that is no candidate, has no vote, or is not among the best
)


@dataclass(frozen=True)
class Candidates:
    """The component scores of each position's candidates."""

    network: str  # the network's name among a blend's weights
    scores: Float32Array  # (P, C) the network's; -inf in empty places
    best: Float32Array  # (P, S) its highest scores over the catalogue, for the softmax
    best_recent: Float32Array  # (P, S) log(1 + recent count) of those items
    copies: Float32Array  # (P, C) the pointer's share
    gate: Float32Array  # (P,)
    votes: Mapping[str, Float32Array]  # ranker -> (P, C), each row a share of its sum
    recent: Float32Array  # (P, C) log(1 + recent count)
    wanted: BoolArray  # (P, C) which candidates are a hit
    _kept: dict[tuple[float, float], Float32Array] = field(default_factory=dict)

    def network_share(self, recency: float, sharpness: float) -> Float32Array:
        """The network's softmax over the candidates, (P, C); the latest one is kept."""
        key = (recency, sharpness)
        if key not in self._kept:
            sharp = (self.scores + np.float32(recency) * self.recent) * np.float32(sharpness)
            best = (self.best + np.float32(recency) * self.best_recent) * np.float32(sharpness)
            sharp -= log_sum_of_best(best)[:, None]
            self._kept.clear()
            self._kept[key] = np.exp(sharp, out=sharp)
        return self._kept[key]

    def ranks(self, blend: Blend) -> Int64Array:
        """Conservative ranks (P,) of the targets."""
        gate = gate_of(self.gate, blend)[:, None]
        share = self.network_share(blend.recency, blend.sharpness)
        total = np.float32(blend.weights.get(self.network, 0.0)) * share
        for name, votes in self.votes.items():
            weight = blend.weights.get(name, 0.0)
            if weight:
                total += np.float32(weight) * votes
        total = (1 - gate) * total + gate * self.copies
        total[np.isneginf(self.scores)] = -np.inf
        own = np.where(self.wanted, total, np.float32(-np.inf)).max(axis=1)
        found = (total >= own[:, None]).sum(axis=1)
        return np.where(np.isneginf(own), MISSED, found).astype(np.int64)

    def objective(self, blend: Blend) -> float:
        """The geometric mean of recall@20 and MRR@20 by `blend`."""
        return ValidationMetrics.of(self.ranks(blend)).objective


def candidates_of(bundle: Bundle, positions: Positions, names: Sequence[str]) -> Candidates:
    """Candidates of `positions` by the network and the rankers called `names`."""
    parts = [
        _part(bundle, positions, at, min(at + BATCH, len(positions)), names)
        for at in range(0, len(positions), BATCH)
    ]
    width = max(part.scores.shape[1] for part in parts)

    def joined(pick: Sequence[AnyArray], empty: float) -> AnyArray:
        wide = [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=empty) for a in pick]
        return np.concatenate(wide)

    return Candidates(
        network=parts[0].network,
        scores=joined([p.scores for p in parts], -np.inf),
        best=np.concatenate([p.best for p in parts]),
        best_recent=np.concatenate([p.best_recent for p in parts]),
        copies=joined([p.copies for p in parts], 0.0),
        gate=np.concatenate([p.gate for p in parts]),
        votes={name: joined([p.votes[name] for p in parts], 0.0) for name in names},
        recent=joined([p.recent for p in parts], 0.0),
        wanted=joined([p.wanted for p in parts], 0).astype(np.bool_),
    )


def _part(
    bundle: Bundle, positions: Positions, first: int, last: int, names: Sequence[str]
) -> Candidates:
    components = components_of(bundle, positions.histories.batch(first, last), names)
    scores, count = components.scores, last - first
    rows = np.arange(count)[:, None]
    keep = min(SHARPEST, scores.shape[1])
    order = np.argpartition(scores, scores.shape[1] - keep, axis=1)[:, -keep:]
    best = np.take_along_axis(scores, order, axis=1)
    strongest = np.take_along_axis(order, np.argsort(-best, axis=1)[:, :BEST], axis=1)
    chosen = [
        strongest,
        components.pointed,
        *(_strongest_votes(components.votes[n]) for n in names),
    ]
    items = np.sort(np.concatenate(chosen, axis=1), axis=1)  # (P, C)
    # Doubles and padding give way to 0, which scores -inf.
    items[:, 1:][items[:, 1:] == items[:, :-1]] = 0
    items[items < FIRST_ITEM] = 0
    votes = {}
    for name in names:
        dense = np.zeros_like(scores)
        for row, given in enumerate(components.votes[name]):
            dense[row, given[0]] = vote_shares(given, scores[row])
        votes[name] = np.take_along_axis(dense, items, axis=1)
    copies = np.zeros_like(scores)
    np.add.at(copies, (rows, components.pointed), components.shares)
    recent = (
        components.recent
        if components.recent is not None
        else np.zeros(scores.shape[1], np.float32)
    )
    hit = np.zeros(items.shape, np.bool_)
    for row in range(count):
        hit[row] = np.isin(items[row], positions.wanted(first + row))
    hit &= items >= FIRST_ITEM
    return Candidates(
        network=components.network,
        scores=np.take_along_axis(scores, items, axis=1),
        best=best,
        best_recent=recent[order],
        copies=np.take_along_axis(copies, items, axis=1),
        gate=components.gate,
        votes=votes,
        recent=recent[items],
        wanted=hit,
    )


def _strongest_votes(votes: Sequence[Votes]) -> Int64Array:
    """The items with the BEST strongest votes of each position, (P, BEST), 0 in empty places."""
    out = np.zeros((len(votes), BEST), np.int64)
    for row, (items, found) in enumerate(votes):
        if len(items) > BEST:
            items = items[np.argpartition(-found, BEST)[:BEST]]
        out[row, : len(items)] = items
    return out


@dataclass(frozen=True)
class RatedBlend:
    """A blend and the objective it reaches on the candidates."""

    blend: Blend
    objective: float


def calibrate(candidates: Candidates) -> RatedBlend:
    """Search the network's own sharpness, gate shift and recency; no ranker is blended in."""
    return search(candidates, Blend({candidates.network: 1.0}), ())


def choose_blend(candidates: Candidates, start: Blend) -> RatedBlend:
    """Search the weights of network and rankers together, from `start` on; 0 and 1 are allowed."""
    return search(candidates, start, tuple(candidates.votes))


def search(
    candidates: Candidates, start: Blend, names: Sequence[str], least_gain: float = 0.0
) -> RatedBlend:
    """Coordinate search from `start`: the weights of `names`, then what calibrates the network.

    A step is taken where the objective gains more than `least_gain` of itself by it.
    """
    best = RatedBlend(start, candidates.objective(start))
    for _ in range(ROUNDS):
        before = best.objective
        for name in names:
            tries = [_weighted(best.blend, name, w, candidates.network) for w in WEIGHTS]
            best = _better(candidates, best, tries, least_gain)
        tries = [replace(best.blend, sharpness=v) for v in SHARPNESS]
        best = _better(candidates, best, tries, least_gain)
        if (candidates.gate > NOTHING).any():
            tries = [replace(best.blend, gate_shift=v) for v in GATE_SHIFTS]
            best = _better(candidates, best, tries, least_gain)
        tries = [replace(best.blend, recency=v) for v in RECENCY]
        best = _better(candidates, best, tries, least_gain)
        if best.objective <= before:
            break
    return best


def _better(
    candidates: Candidates, best: RatedBlend, tries: Sequence[Blend], least_gain: float
) -> RatedBlend:
    """The best of `tries`, each held against the best before it, where one is better than `best`."""
    for blend in tries:
        objective = candidates.objective(blend)
        if objective > best.objective * (1.0 + least_gain) + 1e-6:
            best = RatedBlend(blend, objective)
    return best


def _weighted(blend: Blend, name: str, weight: float, network: str) -> Blend:
    """`blend` with the share of `name` set, the others' shares shrunk or grown in proportion."""
    others = {key: value for key, value in blend.weights.items() if key != name}
    total = sum(others.values())
    if total == 0:
        others, total = {network: 1.0}, 1.0
    scale = (1.0 - weight) / total
    shares = {key: round(value * scale, 6) for key, value in others.items()}
    return replace(blend, weights={**shares, name: weight})


def tune_ranker(ranker: Ranker, positions: Positions, bundle: Bundle) -> Ranker:
    """The values of the ranker's search space that rank a sample of validation best, one field after
    the other.
    """
    if not ranker.search_space:
        return ranker
    sample = positions.sample(RANKER_POSITIONS, np.random.default_rng(0))
    best, objective = ranker, ranker_metrics(ranker, sample, bundle).objective
    for key, values in ranker.search_space.items():
        start = best
        for value in values[1:]:
            other = replace(start, **{key: value})
            found = ranker_metrics(other, sample, bundle).objective
            if found > objective:
                best, objective = other, found
    return best


@dataclass(frozen=True)
class ValidationMetrics:
    """Mean recall@20 and MRR@20 of one ranking on validation."""

    recall: float
    mrr: float

    @classmethod
    def of(cls, ranks: Int64Array) -> ValidationMetrics:
        return cls(float(recall(ranks, K).mean()), float(reciprocal_rank(ranks, K).mean()))

    @property
    def objective(self) -> float:
        """What every choice maximises: the geometric mean of both."""
        return float(np.sqrt(self.recall * self.mrr))

    def to_json(self) -> dict[str, float]:
        return {"recall@20": self.recall, "mrr@20": self.mrr}


def ranker_metrics(ranker: Ranker, positions: Positions, bundle: Bundle) -> ValidationMetrics:
    """The validation metrics of a ranker by itself; an item without a vote is a miss."""
    return ValidationMetrics.of(ranker_ranks(ranker, positions, bundle.repeats, MISSED))
