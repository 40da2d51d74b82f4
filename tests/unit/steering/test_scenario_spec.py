"""What a scenario may say, and how it is told what it may not."""

import pytest

from recsys.errors import InputError
from recsys.steering.scenario_spec import ScenarioSpec, read_spec

WHOLE = {
    "logic": "similar",
    "k": 8,
    "exclude_seen": "purchase,cart",
    "exclude_items": ["gone"],
    "filter": "price<50",
    "boosts": [{"when": "brand=Acme", "factor": 1.5}],
    "diversity": 0.3,
    "max_per_category": 3,
    "pins": [{"item_id": "i1", "position": 1}, {"item_id": "i2", "position": 8}],
    "promote": {"when": "own=true", "share": 0.25},
    "rotation": {"shown": 3, "hours": 24.0},
    "explore": {"share": 0.1},
    "score_by": "chance * item.margin",
    "fallback": "latest",
}
ROWS = [{"logic": "because_you_viewed", "title": "Because you viewed {item}", "rows": 2}]


def test_what_is_read_is_written_again():
    assert read_spec(WHOLE).plain == WHOLE
    assert read_spec({}) == ScenarioSpec()
    assert ScenarioSpec().plain == {}
    assert read_spec({"rows": ROWS}).plain["rows"] == [{**ROWS[0], "k": 10}]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"logik": "similar"}, "logik"),
        ({"logic": "magic"}, "logic"),
        ({"k": 1_001}, "k"),
        ({"exclude_seen": "all,cart"}, "exclude_seen"),
        ({"boosts": [{"when": "a=b", "factor": -1}]}, "boosts[0].factor"),
        ({"boosts": [{"when": "a=b", "factor": 1, "more": 2}]}, "boosts[0].more"),
        ({"diversity": 1.1}, "diversity"),
        ({"explore": {"share": 0.31}}, "explore.share"),
        ({"promote": {"when": "a=b", "share": 0}}, "promote.share"),
        ({"rotation": {"shown": 0, "hours": 1}}, "rotation.shown"),
        ({"filter": "a=\x00"}, "filter"),
        ({"k": 3, "pins": [{"item_id": "a", "position": 4}]}, "pins[0].position"),
        (
            {"pins": [{"item_id": "a", "position": 1}, {"item_id": "b", "position": 1}]},
            "pins[1].position",
        ),
        (
            {"pins": [{"item_id": "a", "position": 1}, {"item_id": "a", "position": 2}]},
            "pins[1].item_id",
        ),
        ({"rows": ROWS, "k": 5}, "k"),
        ({"rows": ROWS, "logic": "similar"}, "logic"),
        ({"rows": [{"logic": "popular", "title": "x", "k": 600}] * 2}, "rows"),
        ([], "scenario"),
    ],
)
def test_what_is_wrong_is_named(given, field):
    with pytest.raises(InputError) as caught:
        read_spec(given)
    assert caught.value.field == field
