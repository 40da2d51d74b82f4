"""Next-item metrics over the full catalogue, position by position, and every system's on the same
positions, with intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.events.array_types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Histories
from recsys.events.time_split import Positions
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.ranker import Ranker

Scorer = Callable[[Histories], Float32Array]
SeenTypes = frozenset[str] | None  # event types whose items are left out; None: all, empty: none

METRICS: dict[str, Callable[[Int64Array], Float64Array]] = {
    "recall@20": lambda found: recall(found, 20),
    "mrr@20": lambda found: reciprocal_rank(found, 20),
    "ndcg@10": lambda found: ndcg(found, 10),
}
K = 20
LEVEL = 95.0
ENOUGH_POSITIONS = 200  # by fewer nothing is chosen, and their figures tell nothing


@dataclass(frozen=True)
class RankedPositions:
    """The ranks that one system gives the targets of the positions."""

    ranks: Int64Array  # (P,)
    coverage: float  # of the catalogue, among anyone's first 20


def rank_positions(
    positions: Positions, scorer: Scorer, rows: int, batch: int = 256
) -> RankedPositions:
    """Rank every target of `positions` by `scorer`; rows = V."""
    found = np.empty(len(positions), np.int64)
    shown = np.zeros(rows, np.bool_)
    for at in range(0, len(positions), batch):
        scores = scorer(positions.histories.batch(at, at + batch))
        found[at : at + batch] = target_ranks(scores, positions, at)
        k = min(K, rows - FIRST_ITEM)
        if k > 0:
            best = np.argpartition(scores, rows - k, axis=1)[:, -k:]
            shown[best[np.take_along_axis(scores, best, axis=1) > -np.inf]] = True
    return RankedPositions(found, coverage(shown))


def leaving_out(scorer: Scorer, seen: SeenTypes, type_names: Sequence[str]) -> Scorer:
    """`scorer` without the items of a history's events of the types `seen`; `type_names`: code 1.. in order."""
    if seen is not None and not seen:
        return scorer
    barred = barred_codes(seen, type_names)

    def scores(histories: Histories) -> Float32Array:
        found = scorer(histories)
        for row in range(len(histories)):
            at = slice(histories.starts[row], histories.ends[row])
            found[row, histories.items[at][barred[histories.event_types[at]]]] = -np.inf
        return found

    return scores


def barred_codes(seen: SeenTypes, type_names: Sequence[str]) -> BoolArray:
    """Which event type codes are of `seen`; (types + 1,), code 0 is of no known type."""
    if seen is None:
        return np.ones(len(type_names) + 1, np.bool_)
    return np.array([False, *(name in seen for name in type_names)])


class Bootstrap:
    """Seeded draws of owners with replacement, shared by every figure of one report."""

    def __init__(self, owners: Int64Array, draws: int, seed: int) -> None:
        """`owners` (P,): whose each position is."""
        unique, self._owner = np.unique(owners, return_inverse=True)
        self._count = len(unique)
        self._draws = draws
        self._seed = seed

    def means(self, values: Float64Array, mask: BoolArray | None = None) -> Float64Array:
        """Mean of values (P, M) over the positions of `mask` (P,) in each draw; (draws, M)."""
        chosen = self._owner if mask is None else self._owner[mask]
        values = values if mask is None else values[mask]
        sums = np.stack(
            [np.bincount(chosen, column, minlength=self._count) for column in values.T], axis=1
        )  # (U, M)
        sizes = np.bincount(chosen, minlength=self._count).astype(np.float64)  # (U,)
        rng = np.random.default_rng(self._seed)
        table = np.column_stack((sums, sizes))  # (U, M + 1)
        means = np.empty((self._draws, values.shape[1]))
        for at in range(0, self._draws, 100):
            size = min(100, self._draws - at)
            picks = rng.integers(0, self._count, (size, self._count))
            offsets = np.arange(size)[:, None] * self._count
            weights = np.bincount((picks + offsets).ravel(), minlength=size * self._count)
            totals = weights.reshape(size, self._count).astype(np.float64) @ table
            means[at : at + size] = totals[:, :-1] / np.maximum(totals[:, -1:], 1e-12)
        return means


def summarise(
    ranked: Mapping[str, RankedPositions], positions: Positions, draws: int, seed: int
) -> dict[str, dict[str, float]]:
    """For each system: each metric with `_low` and `_high` over the targets training has seen, how
    many `positions` that are, `coverage@20`, and `recall@20_all`, `mrr@20_all` with unseen targets as
    misses.

    Raises AssertionError where the systems did not rank the same positions.
    """
    assert all(len(system.ranks) == len(positions) for system in ranked.values())
    known = positions.targets >= FIRST_ITEM
    bootstrap = Bootstrap(positions.owners, draws, seed)
    table = {}
    for name, system in ranked.items():
        values = np.stack([metric(system.ranks) for metric in METRICS.values()], axis=1)  # (P, M)
        row: dict[str, float] = {}
        if known.any():
            drawn = bootstrap.means(values, known)
            low, high = np.percentile(drawn, [(100 - LEVEL) / 2, (100 + LEVEL) / 2], axis=0)
            for number, metric in enumerate(METRICS):
                row[metric] = float(values[known, number].mean())
                row[f"{metric}_low"], row[f"{metric}_high"] = (
                    float(low[number]),
                    float(high[number]),
                )
        else:
            row = {f"{m}{end}": 0.0 for m in METRICS for end in ("", "_low", "_high")}
        row["positions"] = int(known.sum())
        row["coverage@20"] = system.coverage
        row["recall@20_all"] = float(recall(system.ranks, 20).mean()) if len(known) else 0.0
        row["mrr@20_all"] = float(reciprocal_rank(system.ranks, 20).mean()) if len(known) else 0.0
        table[name] = row
    return table


def difference(
    first: Int64Array, second: Int64Array, owners: Int64Array, draws: int, seed: int
) -> dict[str, dict[str, float]]:
    """First minus second for each metric, from ranks (P,) of the same positions, with its interval."""
    assert len(first) == len(second) == len(owners)
    values = np.stack([m(first) - m(second) for m in METRICS.values()], axis=1)  # (P, M)
    drawn = Bootstrap(owners, draws, seed).means(values)
    low, high = np.percentile(drawn, [(100 - LEVEL) / 2, (100 + LEVEL) / 2], axis=0)
    return {
        metric: {
            "difference": float(values[:, number].mean()),
            "low": float(low[number]),
            "high": float(high[number]),
        }
        for number, metric in enumerate(METRICS)
    }


def breakdown(ranked: RankedPositions, positions: Positions) -> dict[str, dict[str, float]]:
    """Recall and MRR apart for returning and new owners, and for repeated and new targets."""
    histories = positions.histories
    repeated = np.fromiter(
        (np.isin(positions.wanted(p), histories[p]).any() for p in range(len(positions))), np.bool_
    )
    known = positions.targets >= FIRST_ITEM
    groups = {
        "returning_owners": positions.returning & known,
        "new_owners": ~positions.returning & known,
        "repeated_targets": repeated & known,
        "new_targets": ~repeated & known,
        "unseen_targets": ~known,
    }
    return {
        name: {
            "positions": int(mask.sum()),
            "recall@20": float(recall(ranked.ranks[mask], 20).mean()) if mask.any() else 0.0,
            "mrr@20": float(reciprocal_rank(ranked.ranks[mask], 20).mean()) if mask.any() else 0.0,
        }
        for name, mask in groups.items()
    }


def text_table(table: Mapping[str, Mapping[str, float]]) -> str:
    """The summary for people, best MRR first, with what it rests on; intervals are 95%.

    >>> row = {"recall@20": 0.5, "recall@20_low": 0.4, "recall@20_high": 0.6, "mrr@20": 0.25,
    ...        "mrr@20_low": 0.2, "mrr@20_high": 0.3, "ndcg@10": 0.3, "ndcg@10_low": 0.25,
    ...        "ndcg@10_high": 0.35, "coverage@20": 0.1, "positions": 1200}
    >>> print(text_table({"lstm": row}))
    ranking              recall@20            mrr@20               ndcg@10        coverage@20  positions
    lstm           0.500 (0.400-0.600)  0.250 (0.200-0.300)  0.300 (0.250-0.350)       0.100      1,200
    """
    width = max(13, *(len(name) for name in table)) if table else 13
    lines = [
        f"{'ranking':<{width}}  {'recall@20':>15}{'':4}  {'mrr@20':>12}{'':7}  "
        f"{'ndcg@10':>13}{'':6}  coverage@20  positions"
    ]
    few = set()
    for name, row in sorted(table.items(), key=lambda item: -item[1]["mrr@20"]):
        cells = [
            f"{row[metric]:.3f} ({row[f'{metric}_low']:.3f}-{row[f'{metric}_high']:.3f})"
            for metric in METRICS
        ]
        count = row.get("positions")  # a version of an earlier release does not say
        shown = "-" if count is None else f"{count:,.0f}"
        lines.append(f"{name:<{width}}  {'  '.join(cells)}  {row['coverage@20']:10.3f}  {shown:>9}")
        if count is not None and count < ENOUGH_POSITIONS:
            few.add(int(count))
    if few:
        said = " and ".join(f"{count:,}" for count in sorted(few))
        lines.append(f"positions with a target that training has seen: {said}, too few to tell by")
    return "\n".join(line.rstrip() for line in lines)


def rounded(table: Mapping[str, Any]) -> dict[str, Any]:
    """Nested figures rounded to six places, for JSON."""
    return {
        key: rounded(value)
        if isinstance(value, Mapping)
        else round(value, 6)
        if isinstance(value, float)
        else value
        for key, value in table.items()
    }


def ranks(scores: Float32Array, targets: Int32Array) -> Int64Array:
    """1-based conservative rank of each target (P,) in scores (P, V).

    A target outside the vocabulary, or scored -inf, ranks last: V.

    >>> scores = np.array([[-np.inf, -np.inf, 0.5, 0.9, 0.5]], np.float32)
    >>> ranks(scores, np.array([4], np.int32)).tolist()
    [3]
    """
    rows = np.arange(len(targets))
    own = scores[rows, targets]
    found = (scores >= own[:, None]).sum(axis=1)
    missed = (targets < FIRST_ITEM) | np.isneginf(own)
    return np.where(missed, scores.shape[1], found).astype(np.int64)


def target_ranks(scores: Float32Array, positions: Positions, first: int) -> Int64Array:
    """1-based conservative rank of the best wanted item of positions first, first + 1, ...

    scores (P, V) are of those positions.
    """
    last = first + len(scores)
    if positions.baskets is None:
        return ranks(scores, positions.targets[first:last])
    best = positions.targets[first:last].copy()
    for row in range(len(scores)):
        wanted = positions.wanted(first + row)
        known = wanted[wanted >= FIRST_ITEM]
        if len(known):
            best[row] = known[np.argmax(scores[row, known])]
    return ranks(scores, best)


def ranker_ranks(
    ranker: Ranker, positions: Positions, repeats: RepeatPolicy, missed: int
) -> Int64Array:
    """1-based conservative rank of the best wanted item of each position (P,) among a ranker's votes.

    `missed` is the rank of a target without a vote. What `repeats` rules out has none.
    """
    found = np.full(len(positions), missed, np.int64)
    for number in range(len(positions)):
        history = positions.histories[number]
        items, votes = ranker.votes(history)
        votes = np.where(repeats.allows(items, history), votes, 0.0)
        own = votes[np.isin(items, positions.wanted(number))].max(initial=0.0)
        if own > 0:
            found[number] = int((votes >= own).sum())
    return found


def recall(ranks: Int64Array, k: int) -> Float64Array:
    """1 where the target is among the first k, else 0; (P,)."""
    return (ranks <= k).astype(np.float64)


def reciprocal_rank(ranks: Int64Array, k: int) -> Float64Array:
    """1 / rank where the target is among the first k, else 0; (P,)."""
    return np.where(ranks <= k, 1.0 / np.maximum(ranks, 1), 0.0)


def ndcg(ranks: Int64Array, k: int) -> Float64Array:
    """1 / log2(1 + rank) where the target is among the first k, else 0; (P,)."""
    return np.where(ranks <= k, 1.0 / np.log2(1.0 + np.maximum(ranks, 1)), 0.0)


def coverage(shown: BoolArray) -> float:
    """Share of the catalogue that was among anyone's first k; shown (V,) without special rows."""
    items = shown[FIRST_ITEM:]
    return float(items.mean()) if len(items) else 0.0
