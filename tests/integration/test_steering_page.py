"""docs/steering.md: the API takes every example that it shows, and refuses what it says is refused."""

import json
import re
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from recsys.steering.experiment_spec import Arm
from recsys.steering.scenario_spec import Fallback, Logic, ScenarioSpec, read_spec
from recsys.storage.engine.database import Database
from recsys.storage.schema import migrate

PAGE = (Path(__file__).parents[2] / "docs" / "steering.md").read_text()
BLOCKS = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.S)]
CODE = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", PAGE)
TABLES = [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.M)]
REFUSED = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in next(table for table in TABLES if table[0] == "| refused | because |")[2:]
]


def inline():
    """Objects in the text, and the settings that are written without their braces."""
    known = {cell.strip("`") for cell, _ in REFUSED}
    for code in CODE:
        for text in (code, f"{{{code}}}"):
            with suppress(json.JSONDecodeError):
                if isinstance(found := json.loads(text), dict) and text not in known:
                    yield found


def expressions():
    """What the tables show as filters: the last cell of a line, as code."""
    table = next(one for one in TABLES if "how to write it" in one[0])
    return [re.search(r"`([^`]+)` \|$", line)[1].replace("\\|", "|") for line in table[2:]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory, Service, settings_for):
    """A shop that sells what the page speaks of."""
    folder = tmp_path_factory.mktemp("steering")
    database = Database(f"sqlite:///{folder}/x.db")
    migrate.upgrade(database)
    properties = {
        "brand": "Acme", "own_brand": "yes", "margin": 0.4, "on_sale": True,
        "released": "2026-01-05", "ships_to": ["DE"],
    }  # fmt: skip
    items = [
        {"item_id": name, "price": 20, "categories": ["sofas"], "properties": properties}
        for name in ("gift-card", "sofa")
    ]
    with closing(Service(database, settings_for(folder / "models"))) as made:
        made.call("PUT", "/items", json=items)
        made.call("PUT", "/users/u1/attributes", json={"country": "DE"})
        yield made
    database.close()


def put(shop, spec, status=200):
    return shop.call("PUT", "/scenarios/home", json=spec, status=status).get_json()


def test_every_example_is_taken(shop):
    taken = []
    for example in (*BLOCKS, *inline()):
        if "arms" in example:
            shop.post("/experiments", example)
            shop.post(f"/experiments/{example['name']}/start", {})
        elif "scenarios" in example:
            answers = shop.post("/recommendations/page", example, scope="read")["answers"]
            assert len(answers) == len(example["scenarios"])
        else:
            assert put(shop, example)["spec"] == read_spec(example).plain
            arms = [{"name": "now"}, {"name": "otherwise", "settings": example}]
            shop.post("/experiments", {"name": "settings", "arms": arms, "scenario": "home"})
        taken.append(next(iter(example)))
    assert {"logic", "name", "user_id", "score_by", "diversity", "rotation", "explore"} <= {*taken}


def test_what_it_says_is_refused_is_refused_by_that_field(shop):
    assert len(REFUSED) == 5
    for example, because in REFUSED:
        errors = put(shop, json.loads(example.strip("`")), 422)["errors"]
        assert f"`{errors[0]['field']}`:" in because
    message = put(shop, json.loads(REFUSED[0][0].strip("`")), 422)["errors"][0]["message"]
    assert "nearest: price" in message


def test_every_sentence_about_an_item_is_a_filter_and_a_boost(shop):
    found = expressions()
    assert len(found) == 10
    for one in found:
        put(shop, {"filter": one, "boosts": [{"when": one, "factor": 2}]})
        asked = {"user_id": "u1", "filter": [one], "boost": [f"{one}^2"]}
        shop.post("/recommendations", asked, scope="read")
        misspelt = re.sub(r"item\.(\w)\w+", r"item.\1qqqq", one, count=1)
        assert put(shop, {"filter": misspelt}, 422)["errors"][0]["field"] == "filter"


def test_it_names_all_that_a_scenario_and_an_arm_may_say():
    cells = [line.split(" | ")[0] for table in TABLES for line in table]
    named = {name for cell in cells for name in re.findall(r'`"?(\w+)(?:": [^`]*)?`', cell)}
    assert {one.name for one in fields(ScenarioSpec)} <= named
    assert {one.name for one in fields(Arm)} - {"name", "weight"} <= named
    assert {*get_args(Logic), *get_args(Fallback)} <= {*CODE}
