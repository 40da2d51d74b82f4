"""How often the off-policy estimate's intervals hold what a candidate would truly earn, and how wide they are.

Each draw is a log of its own: visitors with replacement, whose lists explore anew and are clicked anew by known
chances. The service answers each visitor once by each version; what exploration would try in their list is
kept, so that a draw costs no answer.

Legend: n visitors, K positions, M rewards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bench.steered_shop import K, SteeredShop
from recsys.errors import NotEnoughDataError
from recsys.events.array_types import BoolArray, Float64Array, Int64Array
from recsys.serving.steering.exploration import POOL
from recsys.serving.steering.scenarios import Scenario
from recsys.steering.off_policy import LoggedPositions, OffPolicyEstimate, estimate
from recsys.steering.off_policy_intervals import Interval, Z
from recsys.steering.scenario_spec import read_spec
from recsys.storage.entities.logged_answers import REWARDS

CURRENT = {"logic": "for_you", "k": K}
SHARE = 0.3  # of positions that explore
CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "cheap_first": {**CURRENT, "boosts": [{"when": "price<30", "factor": 1.2}]},
    "dear_only": {**CURRENT, "filter": "price>40"},
}


class _Figure(NamedTuple):
    """One figure of one draw, beside the truth."""

    interval: Interval
    truth: float


@dataclass(frozen=True)
class _Lists:
    """What each visitor is shown, by product; and what exploration tries in the current list."""

    current: Int64Array  # (n, K)
    tried: Int64Array  # (n, K * POOL), dealt to the positions at random
    candidates: Mapping[str, Int64Array]  # (n, K) each


@dataclass(frozen=True)
class _Log:
    """Lists that were shown, in part explored, and what came of them."""

    visitors: Int64Array  # (n,)
    shown: Int64Array  # (n, K) products
    explored: BoolArray  # (n, K)
    rewards: Float64Array  # (n, K, M)


def coverage(shop: SteeredShop, visitors: int, draws: int, seed: int) -> dict[str, Any]:
    """Of each candidate: how many estimates, how many held the truth, and how wide they were."""
    lists = _lists(shop, visitors)
    truth = {
        name: _expected(shop, shown)
        for name, shown in {"current": lists.current, **lists.candidates}.items()
    }  # (M,) each
    found: dict[str, list[OffPolicyEstimate]] = defaultdict(list)
    reasons: dict[str, list[str]] = defaultdict(list)
    for number in range(draws):
        log = _drawn(shop, lists, np.random.default_rng([seed, 4, number]))
        for name, shown in lists.candidates.items():
            try:
                found[name].append(estimate(_positions(log, shown, len(shop.ids))))
            except NotEnoughDataError as error:
                reasons[name].append(str(error))
    return {
        name: {
            "draws": draws,
            "refused": len(reasons[name]),
            "reason": reasons[name][0] if reasons[name] else None,
            "true_lift": dict(
                zip(REWARDS, (truth[name] / truth["current"] - 1).round(4).tolist(), strict=True)
            ),
            "figures": _figures(found[name], truth[name], truth["current"]),
        }
        for name in CANDIDATES
    }


def _lists(shop: SteeredShop, visitors: int) -> _Lists:
    def shown(spec: Mapping[str, Any]) -> Int64Array:
        scenario = Scenario(read_spec(spec))
        answers = [shop.answer(visitor, scenario) for visitor in range(visitors)]
        return shop.numbers([[one.item_id for one in answer.items] for answer in answers])

    spec = read_spec({**CURRENT, "explore": {"share": SHARE}})
    tried = shop.numbers([shop.tried(visitor, spec) for visitor in range(visitors)])
    assert tried.shape[1] == K * POOL  # so every position has POOL items
    candidates = {name: shown(each) for name, each in CANDIDATES.items()}
    return _Lists(shown(CURRENT), tried, candidates)


def _expected(shop: SteeredShop, shown: Int64Array) -> Float64Array:
    everyone = np.arange(len(shown))
    found: Float64Array = shop.shoppers.expected(everyone, shown).totals.mean(axis=0)
    return found


def _drawn(shop: SteeredShop, lists: _Lists, rng: np.random.Generator) -> _Log:
    """As many visitors as there are, an answer each, explored as the service does; nobody remembers them."""
    count = len(lists.current)
    visitors = rng.integers(0, count, count)
    places = rng.permuted(np.tile(np.arange(K * POOL), (count, 1)), axis=1)[:, :K]
    explored = rng.random((count, K)) < SHARE
    tried = lists.tried[visitors[:, None], places]
    shown = np.where(explored, tried, lists.current[visitors])
    expected = shop.shoppers.expected(visitors, shown)
    clicks = rng.random(shown.shape) < expected.clicks
    purchases = clicks & (rng.random(shown.shape) < shop.shoppers.buying(shown))
    value = purchases * shop.shop.catalogue.prices[shown]
    rewards = np.stack([clicks, purchases, value], axis=2).astype(np.float64)
    return _Log(visitors, shown, explored, rewards)


def _positions(log: _Log, candidate: Int64Array, products: int) -> LoggedPositions:
    """The log's positions; `candidate` (n, K) are the products of each visitor of the shop."""
    count = len(log.visitors)
    ranks = np.arange(1, K + 1)
    place = np.zeros((count, products), np.int64)
    place[np.arange(count)[:, None], candidate[log.visitors]] = ranks
    return LoggedPositions(
        answers=np.repeat(np.arange(count), K),
        units=np.arange(count),
        ranks=np.tile(ranks, count),
        propensities=np.where(log.explored, SHARE / POOL, 1 - SHARE).ravel(),
        explored=log.explored.ravel(),
        candidate_ranks=np.take_along_axis(place, log.shown, axis=1).ravel(),
        candidate_sizes=np.full(count, K),
        rewards=log.rewards.reshape(-1, len(REWARDS)),
    )


def _figures(
    found: Sequence[OffPolicyEstimate], truth: Float64Array, current: Float64Array
) -> dict[str, Any]:
    figures: dict[str, list[_Figure]] = defaultdict(list)
    for one in found:
        for place, name in enumerate(REWARDS):
            reward = one.rewards[place]
            if reward is not None:
                lift = float(truth[place] / current[place]) - 1
                figures[name].append(_Figure(reward.candidate, float(truth[place])))
                figures[f"{name}_lift"].append(_Figure(reward.lift, lift))
    return {name: _summed(each) for name, each in figures.items()}


def _summed(figures: Sequence[_Figure]) -> dict[str, Any]:
    """`oracle_width` is that of an interval whose maker knows how the estimates of these logs spread."""
    means = np.array([one.interval.mean for one in figures])
    widths = [one.interval.high - one.interval.low for one in figures]
    held = [one.interval.low <= one.truth <= one.interval.high for one in figures]
    return {
        "estimates": len(figures),
        "held": round(float(np.mean(held)), 3),
        "bias": round(float(means.mean() - figures[0].truth), 4),
        "width": round(float(np.mean(widths)), 4),
        "oracle_width": round(2 * Z * float(means.std()), 4),
    }
