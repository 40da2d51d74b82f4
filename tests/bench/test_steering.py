"""bench steering: its parts by name, and the keys that they promise."""

from datetime import UTC, datetime

import pytest

from bench.steering import SteeringOptions, run_steering
from recsys.errors import InputError
from recsys.progress import quiet


def test_a_part_that_is_none_is_refused_with_the_nearest():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(InputError, match="nearest: off_policy"):
        run_steering(("offpolicy",), SteeringOptions(), now, quiet)


@pytest.mark.slow
def test_off_policy_intervals_are_held_against_the_truth(measure):
    found = measure("steering", "--only", "off_policy", "--draws", 5, "--visitors", 2_000)
    cheap = found["off_policy"]["cheap_first"]
    assert cheap["draws"] == 5 and cheap["refused"] == 0
    assert cheap["true_lift"].keys() == {"clicks", "conversions", "value"}
    lift = cheap["figures"]["clicks_lift"]
    assert lift["estimates"] == 5 and lift["held"] >= 0.6 and 0 < lift["width"] < 1
    other = found["off_policy"]["dear_only"]
    assert "never shown there" in other["reason"] and "visitors" not in other["reason"]


@pytest.mark.slow
def test_diversity_widens_lists_and_rotation_moves_clicks_by_little(measure):
    found = measure("steering", "--only", "effects", "--visitors", 100)["effects"]
    assert [row["diversity"] for row in found["diversity"]] == [0.0, 0.3, 0.6, 0.9]
    assert found["diversity"][-1]["categories"] > found["diversity"][0]["categories"]
    # Of 1,000 visitors it loses 1.4% (docs/benchmarks.md); so few as these do not tell which way.
    assert -0.2 < found["rotation"]["click_lift"] < 0.2


@pytest.mark.slow
def test_purchases_that_name_their_answer_are_attributed_without_error(measure):
    found = measure("steering", "--only", "attribution_error", "--visitors", 200)
    named = found["attribution_error"]["named"]
    assert named["true_conversions"] > 0
    after = named["attributed_conversions"] - named["true_conversions"]
    assert (
        0 <= after <= named["bought_alone_after_shown"]
    )  # those name no answer; the window has them
