"""Answers of scenarios that ask for diversity, rotation or exploration, over REST and both databases."""

from collections import Counter

import numpy as np
import pytest

from recsys.serving.steering.exploration import POOL, drawn_places
from recsys.steering.scenario_spec import Explore, Rotation, ScenarioSpec
from recsys.storage.entities import scenario_rows

URL = "/users/u/recommendations?scenario=home&k=8"


@pytest.fixture
def asked(service):
    """asked(spec) -> the answer of the scenario `home`, stored as `spec`; asked() -> one more."""
    assert service.post("/events", [{"user_id": "u", "item_id": "P0001"}])["rejected"] == 0

    def ask(spec=None):
        if spec is not None:
            with service.database.begin() as connection:
                scenario_rows.add_version(connection, "home", spec, "test", 1)
        answer = service.get(URL)
        service.app.extensions["recsys"].impressions.flush()
        return answer

    return ask


def names(answer):
    return [item["item_id"] for item in answer["items"]]


def test_diversity_and_rotation(service, asked):
    plain = names(service.get("/users/u/recommendations?k=8"))
    assert names(asked(ScenarioSpec())) == names(asked(ScenarioSpec(diversity=0))) == plain
    told = asked(ScenarioSpec(diversity=0.8))
    given = service.get("/users/u/recommendations?k=59")["items"]
    scores = {item["item_id"]: (item["score"], item["source"]) for item in given}
    for item in told["items"]:
        assert (item["score"], item["source"]) == scores[item["item_id"]]
    diverse = names(told)
    assert diverse[0] == plain[0] and set(diverse) != set(plain) and len(set(diverse)) == 8
    assert names(asked()) == diverse

    rotates = ScenarioSpec(rotation=Rotation(shown=10, hours=1))
    before = asked(rotates)
    assert names(before) == plain  # each was shown at most seven times so far
    for answer in (before, asked(), asked()):  # said to have shown the first of them alone
        told = {"recommendation_id": answer["recommendation_id"], "items": plain[:1]}
        service.post("/impressions", told)
    sinks = asked(ScenarioSpec(rotation=Rotation(shown=7, hours=1)))
    assert names(sinks)[:7] == plain[1:] and plain[0] not in names(sinks)
    assert names(service.get("/users/u/recommendations?k=8")) == plain  # elsewhere as before


def test_exploration_logs_the_chances_of_what_it_shows(service, asked):
    plain = names(service.get("/users/u/recommendations?k=8"))
    seen = Counter()
    for answer in [asked(ScenarioSpec(explore=Explore(share=0.3)))] + [asked() for _ in range(5)]:
        stored = service.get(f"/recommendations/{answer['recommendation_id']}")["items"]
        drawn = drawn_places(answer["recommendation_id"], np.full(8, POOL), 0.3)
        for at, item in enumerate(stored):
            assert (item["source"] == "explored") == (drawn[at] >= 0)
            assert (item["item_id"] == plain[at]) == (drawn[at] < 0)
            chance = 0.7 if drawn[at] < 0 else 0.3 / POOL
            assert item["propensity"] == pytest.approx(chance)
            seen[item["source"]] += 1
        assert names(answer) == [item["item_id"] for item in stored]
        assert len(set(names(answer))) == 8
    assert 0 < seen["explored"] < 40


def test_exploration_keeps_to_the_most_of_a_category(service, asked, tiny_shop):
    categories = {item.item_id: item.categories for item in tiny_shop.shop.items}
    asked(ScenarioSpec(explore=Explore(share=0.3), max_per_category=2))
    for _ in range(4):
        counts = Counter(one for name in names(asked()) for one in categories[name])
        assert max(counts.values()) <= 2


def test_value_decides_where_the_scenario_says_so(service, asked, tiny_shop):
    prices = {item.item_id: item.price for item in tiny_shop.shop.items}
    plain = service.get("/users/u/recommendations?k=8")
    assert names(asked(ScenarioSpec(score_by="chance"))) == names(plain)
    by_price = asked(ScenarioSpec(score_by="item.price"))["items"]
    dearest = sorted(prices.values(), reverse=True)[:12]
    assert all(prices[one["item_id"]] == one["score"] >= min(dearest) for one in by_price)
    worth = asked(ScenarioSpec(score_by="chance * item.price"))["items"]
    scores = [one["score"] for one in worth]
    assert scores == sorted(scores, reverse=True)
    chance = {one["item_id"]: one["score"] for one in plain["items"]}
    for one in worth:
        if one["item_id"] in chance:
            expected = chance[one["item_id"]] * prices[one["item_id"]]
            assert one["score"] == pytest.approx(expected, rel=1e-4)
