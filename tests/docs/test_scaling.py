"""docs/scaling.md: the table of shops is what `recsys plan` works out, and its command is one."""

import re
from pathlib import Path

from recsys.config import Settings
from recsys.ops.capacity import SHIPPED, Shop, lines, plan

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()


def test_the_table_of_shops_is_what_the_plan_says():
    section = PAGE.split("## What a shop needs")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in section.splitlines()
        if line.startswith("| ")
    ]
    settings = Settings.model_construct()
    shops = [
        Shop(int(events), int(items), float(requests))
        for events, items, requests in (
            cell.replace(", ", " ").replace(",", "").split() for cell in rows[0][1:]
        )
    ]
    assert [shop.events for shop in shops] == [10**4, 10**7, 10**9]
    found = [
        lines(
            plan(shop, SHIPPED, settings.training, settings.serving.live_events),
            SHIPPED,
        )
        for shop in shops
    ]
    assert rows[1:] == [
        [first[0], *(value for _, value in (first, *others))]
        for first, *others in zip(*found, strict=True)
    ]


def test_the_figures_that_are_shipped_are_those_of_the_page():
    assert f"training at {SHIPPED.training_events:,.0f}\nevents/s" in PAGE
    assert f"an answer at {SHIPPED.answer_ms:g} ms of a core and {SHIPPED.item_ns:g} ns" in PAGE
    rate = 1e3 / (SHIPPED.answer_ms + 50_000 * SHIPPED.item_ns / 1e6)
    assert f"which is {round(rate)} answers/s at 50,000 items" in PAGE
    table, indexes = map(int, re.findall(r"(\d+) bytes of table, (\d+) of indexes", PAGE)[0])
    assert table + indexes == SHIPPED.event_bytes
    assert f"Import is at {SHIPPED.import_events:,.0f} events/s" in PAGE
