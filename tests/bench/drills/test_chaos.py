"""`recsys bench chaos` in small: schedulers and trainings killed at random."""

import pytest


@pytest.mark.slow
def test_schedulers_and_trainings_killed_at_random(measure, database_url):
    # The second training that is killed goes with its scheduler.
    kills, spare = (2, ("--postgresql", database_url)) if "postgresql" in database_url else (1, ())
    found = measure(
        *("chaos", "--slots", 2, "--leader-kills", 1, "--training-kills", kills),
        *("--schedulers", 2, "--seed", 3, *spare),
    )
    assert (found["duplicate_slots"], found["missed_slots"]) == (0, 0)
    assert found["slots"] >= 2
    assert found["leader_kills"] == 1
    assert found["takeover_p50_s"] > 0
    assert (found["training_kills"], found["champion_kept"]) == (kills, kills)
    assert (found["orphans"], found["half_versions"]) == (0, 0)
    assert found["next_run"] == "succeeded"
