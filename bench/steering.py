"""bench steering: what steering promises, against the known truth of shoppers who react to what they see.

Each part is a function of its own; `--only` chooses some. Seeds are fixed, so the figures repeat.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bench.experiment_errors import run_experiment_errors
from bench.off_policy_coverage import coverage
from bench.steered_shop import steered_shop
from bench.steering_attribution import attribution_error
from bench.steering_effects import diversity_effect, rotation_effect
from recsys.errors import unknown
from recsys.progress import Say

EXPERIMENT_VISITORS = 4_000  # of each experiment, as in bench experiments


@dataclass(frozen=True)
class SteeringOptions:
    """How much is simulated."""

    draws: int = 200  # of the off-policy estimate
    visitors: int = 3_000
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
        say(f"{options.draws:,} logs of {options.visitors:,} answers that explore")
        return coverage(shop, options.visitors, options.draws, options.seed)


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
