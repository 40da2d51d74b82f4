"""What a scenario's diversity and rotation do to shoppers who tire of what they have seen.

Legend: n visitors, K items of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from bench.steered_shop import K, SteeredShop
from recsys.demo.reacting_shoppers import ReactingShoppers
from recsys.events.array_types import Int64Array
from recsys.events.times import MINUTE_US
from recsys.serving.answer_log import Impressions
from recsys.serving.steering.scenarios import Scenario
from recsys.steering.scenario_spec import Rotation, ScenarioSpec

DIVERSITIES = (0.0, 0.3, 0.6, 0.9)
ROTATION = Rotation(shown=2, hours=1.0)
ROUNDS = 6  # times that each visitor asks, a minute apart, whatever they clicked


def diversity_effect(shop: SteeredShop, visitors: int) -> list[dict[str, Any]]:
    """Of each diversity, the expected clicks and value of a list, and the categories in it."""
    found = []
    for diversity in DIVERSITIES:
        scenario = Scenario(ScenarioSpec(logic="for_you", k=K, diversity=diversity))
        lists = _lists(shop, scenario, range(visitors))
        totals = shop.shoppers.expected(np.arange(visitors), lists).totals.mean(axis=0)
        categories = shop.shop.catalogue.categories[lists]
        distinct = [len(set(row)) for row in categories.tolist()]
        found.append(
            {
                "diversity": diversity,
                "clicks": round(float(totals[0]), 4),
                "value": round(float(totals[2]), 4),
                "categories": round(float(np.mean(distinct)), 3),
                "different_items": len(np.unique(lists)),
            }
        )
    return found


def rotation_effect(shop: SteeredShop, visitors: int, seed: int) -> dict[str, Any]:
    """Clicks and value of an answer to visitors who ask ROUNDS times, with rotation and without."""
    still = ScenarioSpec(logic="for_you", k=K)
    found: dict[str, Any] = {"shown": ROTATION.shown, "hours": ROTATION.hours, "rounds": ROUNDS}
    for name, spec in (("without", still), ("with", replace(still, rotation=ROTATION))):
        found[name] = _asked_again(shop, Scenario(spec), visitors, seed)
    found["click_lift"] = round(found["with"]["clicks"] / found["without"]["clicks"] - 1, 4)
    found["value_lift"] = round(found["with"]["value"] / found["without"]["value"] - 1, 4)
    return found


def _asked_again(
    shop: SteeredShop, scenario: Scenario, visitors: int, seed: int
) -> dict[str, float | list[float]]:
    """What lists bring on average, in expectation, as shoppers are who saw the ones before."""
    crowd = ReactingShoppers(shop.shop, visitors, seed)
    crowd.memory[:] = shop.shoppers.memory[:visitors]
    crowd.last[:] = shop.shoppers.last[:visitors]
    own = replace(shop, shoppers=crowd, prefix=f"{scenario.spec.rotation is not None}-")
    log = Impressions(shop.recommender.database, 1.0, lambda _: None)
    everyone, rounds, value = np.arange(visitors), [], 0.0
    with closing(log):
        for turn in range(ROUNDS):
            own = replace(own, now_us=shop.now_us + turn * MINUTE_US)
            answers = [own.answer(visitor, scenario) for visitor in range(visitors)]
            for answer in answers:
                log.record(answer)
            log.flush()
            lists = shop.numbers([[one.item_id for one in answer.items] for answer in answers])
            totals = crowd.expected(everyone, lists).totals.mean(axis=0)
            rounds.append(round(float(totals[0]), 4))
            value += float(totals[2]) / ROUNDS
            crowd.react(everyone, lists)
    return {
        "clicks": round(float(np.mean(rounds)), 4),
        "value": round(value, 4),
        "by_round": rounds,
    }


def _lists(shop: SteeredShop, scenario: Scenario, visitors: Sequence[int]) -> Int64Array:
    return shop.numbers(
        [[one.item_id for one in shop.answer(visitor, scenario).items] for visitor in visitors]
    )
