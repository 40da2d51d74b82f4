"""Short forms of poisoning, and of what clocks may do."""

from bench.drills import fault_poison, fault_soak


def test_one_user_with_half_of_all_events_is_stopped_or_harmless(tmp_path):
    fault = fault_poison.loud_user(tmp_path, 4_000)
    assert fault.held, fault
    assert "max_user_share" in fault.figures["failed_checks"]


def test_a_thousand_bots_on_one_item_are_stopped_or_harmless(tmp_path):
    fault = fault_poison.many_bots(tmp_path, 4_000)
    assert fault.held, fault


def test_no_slot_comes_twice_or_is_missed_whatever_the_clock_does():
    fault = fault_soak.clocks(["Australia/Lord_Howe"])  # half an hour of daylight saving
    assert fault.held, fault
    assert fault.figures["slots"] > 1_500
    assert fault.figures["clock_steps"] > 250
