"""What the service attributes to its answers, against what shoppers truly bought because of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from bench.steered_shop import K, SteeredShop
from recsys.demo.reacting_shoppers import ReactingShoppers
from recsys.events.array_types import Int64Array
from recsys.events.fields import Event
from recsys.events.times import HOUR_US, MINUTE_US
from recsys.ops.conversions import attribute_conversions
from recsys.serving.answer_log import Impressions
from recsys.serving.steering.scenarios import Scenario
from recsys.steering.scenario_spec import ScenarioSpec
from recsys.storage.dashboard.conversion_figures import conversion_report
from recsys.storage.entities import event_rows

ROUNDS = 4  # times that each visitor asks, a minute apart
WAYS = ("named", "by_window")  # purchases name their answer, or the window finds it


def attribution_error(shop: SteeredShop, visitors: int, seed: int) -> dict[str, Any]:
    """Of purchases that name their answer and of those that do not: what is attributed, and what is true.

    A purchase is due to a list where the shopper clicked it there. Between two lists shoppers go on alone,
    and buy as readily what they find: sometimes what a list had shown, which the window counts for it.
    """
    return {name: _compared(shop, name, visitors, seed) for name in WAYS}


def _compared(shop: SteeredShop, name: str, visitors: int, seed: int) -> dict[str, Any]:
    crowd = ReactingShoppers(shop.shop, visitors, seed)
    crowd.memory[:] = shop.shoppers.memory[:visitors]
    crowd.last[:] = shop.shoppers.last[:visitors]
    rng = np.random.default_rng([seed, 5])
    database = shop.recommender.database
    true_orders, true_value, alone, alone_shown = 0, 0.0, 0, 0
    seen = np.zeros((visitors, shop.shop.size.products), np.bool_)
    scenario, everyone = Scenario(ScenarioSpec(logic="for_you", k=K)), np.arange(visitors)
    log = Impressions(database, 1.0, lambda _: None)
    with closing(log):
        for turn in range(ROUNDS):
            own = replace(
                shop, shoppers=crowd, prefix=f"{name}-", now_us=shop.now_us + turn * MINUTE_US
            )
            answers = [own.answer(visitor, scenario) for visitor in range(visitors)]
            for answer in answers:
                log.record(replace(answer, scenario=name))
            log.flush()
            lists = own.numbers([[one.item_id for one in answer.items] for answer in answers])
            seen[everyone[:, None], lists] = True
            outcome = crowd.react(everyone, lists)
            true_orders += int(outcome.purchases.sum())
            true_value += float(outcome.value.sum())
            bought = np.argwhere(outcome.purchases > 0)
            names = [one.recommendation_id if name == "named" else None for one in answers]
            events = list(_purchases(own, bought[:, 0], lists[bought[:, 0], bought[:, 1]], names))
            found = crowd.wander(everyone)
            buys = rng.random(visitors) < crowd.buying(found)
            alone += int(buys.sum())
            alone_shown += int((buys & seen[everyone, found]).sum())
            events += _purchases(own, everyone[buys], found[buys], [None] * visitors)
            with database.begin() as connection:
                event_rows.insert_events(connection, events, own.now_us)
    until_us = shop.now_us + HOUR_US
    attribute_conversions(
        shop.recommender.settings, database, datetime.fromtimestamp(until_us / 1e6, UTC)
    )
    with database.connect() as connection:
        since_us = shop.now_us - shop.now_us % HOUR_US
        report = conversion_report(connection, since_us, until_us, ("scenario",), "")
    figures = next(one.found for one in report if one.key == (name,))
    return {
        "true_conversions": true_orders,
        "attributed_conversions": round(figures.conversions, 3),
        "conversion_error": round(figures.conversions / true_orders - 1, 4),
        "true_value": round(true_value, 2),
        "attributed_value": round(figures.value, 2),
        "value_error": round(figures.value / true_value - 1, 4),
        "bought_alone": alone,
        "bought_alone_after_shown": alone_shown,
    }


def _purchases(
    shop: SteeredShop, visitors: Int64Array, products: Int64Array, names: list[str | None]
) -> Iterator[Event]:
    """Each visitor's purchase of a product, half a minute after the list; `names` by visitor."""
    prices = shop.shop.catalogue.prices
    for visitor, product in zip(visitors.tolist(), products.tolist(), strict=True):
        yield Event(
            None,
            f"visitor-{shop.prefix}{visitor}",
            shop.ids[product],
            "purchase",
            shop.now_us + MINUTE_US // 2,
            value=float(prices[product]),
            recommendation_id=names[visitor],
        )
