"""Experiments as JSON."""

import pytest

from recsys.errors import InputError
from recsys.steering.experiment_report import UnitSums, detectable, make_report
from recsys.steering.experiment_spec import ExperimentSpec, read_experiment

TWO = [{"name": "now"}, {"name": "none", "hold_out": True}]


def test_what_was_read_is_what_is_written():
    given = {
        "arms": [
            {"name": "now"},
            {"name": "new", "weight": 2.0, "scenario_version": 3},
            {"name": "varied", "settings": {"diversity": 0.4}, "shadow": True},
        ],
        "allocation": 0.2,
        "metric": "value",
        "scenario": "home",
        "group": "ranking",
        "include_pages": True,
        "note": "why",
    }
    spec = read_experiment(given)
    assert spec.plain == given
    assert read_experiment(spec.plain) == spec
    least = read_experiment({"arms": TWO})
    assert read_experiment(least.plain) == least and least.note == ""
    assert spec.arms[1].changes == {"scenario"} and spec.arms[2].changes == {"diversity"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"arms": TWO[:1]}, "arms"),
        ({"arms": [{"name": "a"}, {"name": "b"}]}, "arms"),
        ({"arms": [{"name": "a"}, {"name": "a", "hold_out": True}]}, "arms[1].name"),
        ({"arms": [{"name": "A b"}, TWO[1]]}, "arms[0].name"),
        (
            {"arms": [TWO[0], {"name": "b", "hold_out": True, "model_version": "v"}]},
            "arms[1].hold_out",
        ),
        ({"arms": [TWO[0], {"name": "b", "scenario_version": 1}]}, "arms[1].scenario_version"),
        ({"arms": [{"name": "a", "hold_out": True, "shadow": True}, TWO[0]]}, "arms[0].shadow"),
        ({"arms": [TWO[0], {"name": "b", "shadow": True}]}, "arms[1].shadow"),
        ({"arms": [TWO[0], {"name": "b", "settings": {}}]}, "arms[1].settings"),
        ({"arms": [TWO[0], {"name": "b", "weight": 0, "hold_out": True}]}, "arms[1].weight"),
        ({"arms": TWO, "allocation": 1.5}, "allocation"),
        ({"arms": TWO, "metric": "joy"}, "metric"),
        ({"arms": TWO, "group": "Ä"}, "group"),
        ({"arms": TWO, "rampe": 1}, "rampe"),
    ],
)
def test_what_does_not_go_together_is_named(change, field):
    with pytest.raises(InputError) as refused:
        read_experiment(change)
    assert refused.value.field == field


def sums(units, converted):
    return UnitSums(units, units * 2.0, units * 4.0, 0.0, 0.0, 0.0, converted, converted, 0.0, 0.0)


def test_the_leader_is_surely_better_in_the_metric_that_decides():
    spec = read_experiment({"arms": [*TWO, {"name": "third", "settings": {"diversity": 1}}]})
    found = make_report(
        spec, {"now": sums(5_000, 500), "none": sums(5_000, 300), "third": sums(5_000, 800)}
    )
    assert found.leader == "third" and found.alpha == 0.025 and found.sample_ratio_holds
    assert found.arms[1].uplift["conversion"].high < 0
    assert found.arms[1].uplift["value"].low is None
    close = make_report(spec, {"now": sums(5_000, 500), "third": sums(5_000, 510)})
    assert close.leader is None
    assert not close.sample_ratio_holds  # of the second arm nobody came


def test_what_can_be_found_shrinks_with_time_and_allocation():
    def least(allocation):
        spec = ExperimentSpec(read_experiment({"arms": TWO}).arms, allocation)
        return [one.effect for one in detectable(spec, sums(10_000, 1_000), 7.0, (7, 28))]

    assert least(1.0)[0] > least(1.0)[1] > 0
    assert least(0.1)[0] > least(1.0)[0]
    assert least(0.001) == [None, None]
