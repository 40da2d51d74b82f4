"""`recsys bench experiments`."""


def test_errors_and_power_are_measured(measure):
    found = measure("experiments", "--experiments", 2, "--visitors", 2_000)
    assert set(found["aa_error_rate"]) == {"click_through", "conversion", "value"}
    for rate in (*found["aa_error_rate"].values(), found["power"], found["sample_ratio_alarms"]):
        assert 0 <= rate["low"] <= rate["share"] <= rate["high"] <= 1
    assert found["minimum_detectable_lift"] > 0 and found["looks"] == 336
