"""The report of an experiment: what its figures may be."""

from recsys.steering.experiment_report import UnitSums, make_report
from recsys.steering.experiment_spec import Arm, ExperimentSpec

SPEC = ExperimentSpec((Arm("now"), Arm("none", hold_out=True)))


def test_the_interval_of_a_share_lies_between_0_and_1():
    few = UnitSums(
        units=122, answers=122, answers2=122, clicks=30, clicks2=30, answers_clicks=30, converted=22
    )
    most = UnitSums(units=40, converted=39, conversions=39.0, value=9.0, value2=900.0)
    now, none = make_report(SPEC, {"now": few, "none": most}).arms
    assert now.means["conversion"].low == 0.0 < now.means["conversion"].high
    assert none.means["conversion"].high == 1.0 > none.means["conversion"].low
    assert now.means["click_through"].low >= 0.0
    assert none.means["value"].low < 0  # more may come back than was bought
