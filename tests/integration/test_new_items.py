"""An item of the catalogue that no training has seen and nobody has clicked, over HTTP."""

import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from recsys.events.sequences import Histories
from recsys.models.blend import Blend
from recsys.models.content import COLUMNS, ContentMap, content_columns
from recsys.models.ranking import network_state
from recsys.storage.entities import item_rows

VIEWED = ("P0001", "P0002")


@pytest.fixture
def shop(database, tmp_path, tiny_shop, publish, Service, settings_for):
    """A service whose version takes a category "Right" for what comes next after VIEWED."""
    bundle = replace(tiny_shop.bundle, blends={"lstm": Blend({"lstm": 1.0})})
    rows = bundle.vocabulary.encode(VIEWED).tolist()
    state = network_state(bundle, Histories.from_lists([rows])).vector
    weights = np.zeros((COLUMNS, len(state)), np.float32)
    for name, sign in (("Right", 3), ("Wrong", -3)):
        weights[content_columns(None, [name], {})] = sign * state
    idf = weights.any(axis=1).astype(np.float32)
    content = ContentMap(idf, weights, np.zeros_like(state), 0.5)
    known = replace(tiny_shop, bundle=replace(bundle, content=content))
    publish(known, database, tmp_path / "models")
    with database.begin() as connection:
        item_rows.put_items(connection, tiny_shop.shop.items, 1)
    with closing(Service(database, settings_for(tmp_path / "models"))) as made:
        yield made


def answer(service, wanted=lambda found: True):
    """Item ids and sources of the first answer that is as `wanted`, of those within half a minute."""
    end = time.monotonic() + 30
    while True:
        service.app.extensions["recsys"].recommender.follow_once(time.time_ns() // 1_000)
        body = {"events": [{"item_id": name} for name in VIEWED], "k": 5}
        items = service.post("/recommendations", body)["items"]
        found = {one["item_id"]: one["source"] for one in items}
        if wanted(found) or time.monotonic() > end:
            return found
        time.sleep(0.05)


def put(service, item_id, category):
    body = [{"item_id": item_id, "title": "Moon", "categories": [category]}]
    service.call("PUT", "/items", json=body)


def test_a_new_item_is_ranked_by_its_content_before_anyone_clicks_it(shop):
    answer(shop)
    put(shop, "first moon", "Right")
    put(shop, "other moon", "Wrong")
    found = answer(shop, lambda found: "first moon" in found)
    assert next(iter(found.items())) == ("first moon", "lstm")
    assert "other moon" not in found
    # The catalogue changes its mind, and takes it away.
    put(shop, "first moon", "Wrong")
    put(shop, "other moon", "Right")
    found = answer(shop, lambda found: "other moon" in found and "first moon" not in found)
    assert next(iter(found)) == "other moon" and "first moon" not in found
    shop.call("DELETE", "/items/other moon")
    assert not {"first moon", "other moon"} & answer(shop).keys()
