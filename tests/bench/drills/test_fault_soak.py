"""What clocks may do to a schedule."""

import pytest

from bench.drills import fault_soak


@pytest.mark.slow
def test_no_slot_comes_twice_or_is_missed_whatever_the_clock_does():
    fault = fault_soak.clocks(["Australia/Lord_Howe"])  # half an hour of daylight saving
    assert fault.held, fault
    assert fault.figures["slots"] > 1_500
    assert fault.figures["clock_steps"] > 250
