"""Short form of `recsys bench faults`: clients and workers killed while they write."""

import pytest

from bench.drills import fault_writes


@pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
def test_nothing_acknowledged_is_lost_when_clients_and_workers_are_killed(
    database_url, stage_at, held
):
    figures = held(fault_writes.killed_writes(stage_at(database_url), 4_000, kills=2))
    assert figures["stored"] == figures["events"] == 4_000
    assert figures["client_kills"] + figures["worker_kills"] == 2
