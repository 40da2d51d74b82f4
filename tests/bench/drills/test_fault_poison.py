"""Short forms of poisoned logs."""

import pytest

from bench.drills import fault_poison


@pytest.mark.slow
def test_one_user_with_half_of_all_events_is_stopped_or_harmless(tmp_path):
    fault = fault_poison.loud_user(tmp_path, 4_000)
    assert fault.held, fault
    assert "max_user_share" in fault.figures["failed_checks"]


@pytest.mark.slow
def test_a_thousand_bots_on_one_item_are_stopped_or_harmless(tmp_path):
    fault = fault_poison.many_bots(tmp_path, 4_000)
    assert fault.held, fault
