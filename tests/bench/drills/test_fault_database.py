"""Short forms of `recsys bench faults`: databases that fail; nothing is lost."""

import pytest

from bench.drills import fault_database
from bench.drills.fault_stage import own_postgres


@pytest.mark.slow
def test_postgresql_stopped_and_started_again(stage_at, held):
    with own_postgres() as server:
        if server is None:
            pytest.skip("no PostgreSQL binaries")
        stage = stage_at(server.url)
        figures = held(fault_database.postgres_stopped(stage, server, 5.0))
        assert set(figures["writes"]) <= {"200", "503"}
        assert "503" in figures["writes"]
        assert figures["reads"].keys() == {"200"}
        figures = held(fault_database.postgres_hung(stage, server, 8.0))
        assert "503" in figures["writes"]
        assert figures["reads"].keys() == {"200"}


@pytest.mark.slow
def test_postgresql_slow_and_out_of_connections(stage_at, held):
    with own_postgres(connections=40) as server:
        if server is None:
            pytest.skip("no PostgreSQL binaries")
        stage = stage_at(server.url)
        held(fault_database.postgres_slow(stage, 2.0))
        held(fault_database.postgres_out_of_connections(stage, 3.0))


@pytest.mark.slow
def test_sqlite_locked_full_and_read_only(stage_at, tmp_path, held):
    stage = stage_at(fault_database.sqlite_file(tmp_path))
    for fault in (
        fault_database.sqlite_locked,
        fault_database.sqlite_full,
        fault_database.sqlite_read_only,
    ):
        figures = held(fault(stage, 1.0))
        assert figures["integrity_check"] == "ok"
        assert "503" in figures["writes"]
