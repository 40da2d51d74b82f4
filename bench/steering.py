"""bench steering: what steering promises, against the known truth of shoppers who react to what they see.

Each part is a function of its own; `--only` chooses some. Seeds are fixed, so the figures repeat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from bench.experiment_errors import run_experiment_errors
from bench.steered_shop import K, SteeredShop, steered_shop
from bench.steering_attribution import attribution_error
from bench.steering_effects import diversity_effect, rotation_effect
from recsys.errors import NotEnoughDataError, unknown
from recsys.events.array_types import Float64Array, Int64Array
from recsys.progress import Say
from recsys.serving.answers import Answer
from recsys.serving.steering.scenario_estimate import positions_of
from recsys.serving.steering.scenarios import Scenario
from recsys.steering.off_policy import Interval, estimate
from recsys.steering.scenario_spec import read_spec
from recsys.storage.entities.logged_answers import CLICKS, REWARDS, LoggedAnswer, LoggedItem

CURRENT = {"logic": "for_you", "k": K}
EXPLORING = {**CURRENT, "explore": {"share": 0.3}}
EXPERIMENT_VISITORS = 4_000  # of each experiment, as in bench experiments
EXPLORATIONS = 20  # answers to each visitor, of which a draw takes any
CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "cheap_first": {"logic": "for_you", "k": K, "boosts": [{"when": "price<30", "factor": 1.2}]},
    "dear_only": {"logic": "for_you", "k": K, "filter": "price>40"},
}


@dataclass(frozen=True)
class SteeringOptions:
    """How much is simulated."""

    draws: int = 100  # of the off-policy estimate
    visitors: int = 1_000
    experiments: int = 200  # of each kind; bench experiments simulates 1,000
    seed: int = 11


def run_steering(
    only: tuple[str, ...], options: SteeringOptions, now: datetime, say: Say
) -> dict[str, Any]:
    """The figures of the parts named in `only`, of all without any. Raises InputError for another name."""
    for name in only:
        if name not in PARTS:
            raise unknown("--only", name, "a part", list(PARTS))
    started, found = time.perf_counter(), {}
    for name in only or PARTS:
        found[name] = PARTS[name](options, now, say)
    return {**found, "seconds": round(time.perf_counter() - started, 1)}


def off_policy(options: SteeringOptions, now: datetime, say: Say) -> dict[str, Any]:
    """How often the estimate's 95% intervals hold what the candidate would truly earn."""
    with steered_shop(options.visitors, options.seed, now, say) as shop:
        say(f"{options.visitors * EXPLORATIONS:,} answers that explore")
        pool = _explored(shop, Scenario(read_spec(EXPLORING)), options.visitors)
        return {
            name: _coverage(shop, pool, Scenario(read_spec(spec)), options)
            for name, spec in CANDIDATES.items()
        }


def _coverage(
    shop: SteeredShop,
    pool: list[list[LoggedAnswer]],
    candidate: Scenario,
    options: SteeringOptions,
) -> dict[str, Any]:
    """Draws of visitors with replacement, so the truth is the mean over all of them."""
    everyone = np.arange(options.visitors)
    lists = {
        name: [_items(shop.answer(visitor, each)) for visitor in range(options.visitors)]
        for name, each in (("candidate", candidate), ("current", Scenario(read_spec(CURRENT))))
    }
    truth = {
        name: shop.shoppers.expected(everyone, shop.numbers(shown)).totals.mean(axis=0)
        for name, shown in lists.items()
    }  # (3,) each
    held: dict[str, list[bool]] = {}
    reasons: list[str] = []
    lifts, overlaps = [], []
    rng = np.random.default_rng([options.seed, 4])
    for _ in range(options.draws):
        drawn = rng.integers(0, options.visitors, options.visitors)
        answers, rewards = _logged(shop, pool, drawn, rng)
        shown = [lists["candidate"][visitor] for visitor in drawn.tolist()]
        try:
            found = estimate(positions_of(answers, shown, rewards))
        except NotEnoughDataError as error:
            reasons.append(str(error))
            continue
        overlaps.append(found.overlap)
        for place, name in enumerate(REWARDS):
            one = found.rewards[place]
            if one is None:
                continue
            lift = truth["candidate"][place] / truth["current"][place] - 1
            held.setdefault(name, []).append(_holds(one.candidate, truth["candidate"][place]))
            held.setdefault(f"{name}_lift", []).append(_holds(one.lift, lift))
            if place == CLICKS:
                lifts.append(one.lift.mean)
    lift = truth["candidate"] / truth["current"] - 1
    return {
        "draws": options.draws,
        "refused": len(reasons),
        "reason": reasons[0] if reasons else None,
        "coverage": {name: round(float(np.mean(each)), 3) for name, each in held.items()},
        "estimates": {name: len(each) for name, each in held.items()},
        "true_lift": dict(zip(REWARDS, lift.round(4).tolist(), strict=True)),
        "mean_estimated_click_lift": round(float(np.mean(lifts)), 4) if lifts else None,
        "mean_overlap": round(float(np.mean(overlaps)), 3) if overlaps else None,
    }


def _items(answer: Answer) -> list[str]:
    return [one.item_id for one in answer.items]


def _explored(shop: SteeredShop, current: Scenario, visitors: int) -> list[list[LoggedAnswer]]:
    """EXPLORATIONS answers to each visitor, each explored anew."""
    return [
        [_as_logged(shop, shop.answer(visitor, current)) for _ in range(EXPLORATIONS)]
        for visitor in range(visitors)
    ]


def _as_logged(shop: SteeredShop, answer: Answer) -> LoggedAnswer:
    items = tuple(
        LoggedItem(one.item_id, one.source, 1.0 if one.propensity is None else one.propensity)
        for one in answer.items
    )
    return LoggedAnswer(answer.recommendation_id, shop.now_us, None, answer.session_id, items)


def _logged(
    shop: SteeredShop, pool: list[list[LoggedAnswer]], drawn: Int64Array, rng: np.random.Generator
) -> tuple[list[LoggedAnswer], dict[tuple[str, str], list[float]]]:
    """One of its answers to each visitor that was drawn, and what came of it."""
    answers, rewards = [], {}
    for place, visitor in enumerate(drawn.tolist()):
        one = pool[visitor][int(rng.integers(EXPLORATIONS))]
        name = f"{place}-{one.recommendation_id}"
        answers.append(one._replace(recommendation_id=name, session_id=f"visitor-{place}"))
    lists = shop.numbers([[one.item_id for one in answer.items] for answer in answers])
    clicks, purchases, value = _drawn(shop, drawn, lists, rng)
    for row, answer in enumerate(answers):
        for column in np.flatnonzero(clicks[row]):
            key = answer.recommendation_id, answer.items[column].item_id
            rewards[key] = [1.0, float(purchases[row, column]), float(value[row, column])]
    return answers, rewards


def _drawn(
    shop: SteeredShop, visitors: Int64Array, lists: Int64Array, rng: np.random.Generator
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Clicks, purchases and value of lists by their chances; nobody remembers them."""
    expected = shop.shoppers.expected(visitors, lists)
    clicks = rng.random(lists.shape) < expected.clicks
    buys = expected.purchases / np.maximum(expected.clicks, 1e-12)
    purchases = clicks & (rng.random(lists.shape) < buys)
    value = purchases * shop.shop.catalogue.prices[lists]
    return clicks.astype(np.float64), purchases.astype(np.float64), value


def _holds(interval: Interval, truth: float) -> bool:
    return bool(interval.low <= truth <= interval.high)


def aa(options: SteeringOptions, now: datetime, say: Say) -> dict[str, Any]:
    """How often experiments of equal arms err that are looked at every hour, and the power to find an effect."""
    return run_experiment_errors(options.experiments, EXPERIMENT_VISITORS, options.seed, say)


def attribution(options: SteeringOptions, now: datetime, say: Say) -> dict[str, Any]:
    """What is attributed to answers, against what was bought because of them."""
    with steered_shop(options.visitors, options.seed, now, say) as shop:
        say("visitors who buy what a list showed, and what they find alone")
        return attribution_error(shop, options.visitors, options.seed)


def effects(options: SteeringOptions, now: datetime, say: Say) -> dict[str, Any]:
    """What diversity and rotation do to clicks and value."""
    with steered_shop(options.visitors, options.seed, now, say) as shop:
        say("the same visitors with and without diversity and rotation")
        return {
            "diversity": diversity_effect(shop, options.visitors),
            "rotation": rotation_effect(shop, options.visitors, options.seed),
        }


PARTS: dict[str, Callable[[SteeringOptions, datetime, Say], dict[str, Any]]] = {
    "aa": aa,
    "attribution_error": attribution,
    "off_policy": off_policy,
    "effects": effects,
}
