"""Short forms of `recsys bench faults`: processes killed, databases that fail; nothing is lost."""

from contextlib import closing

import pytest

from bench.drills import fault_database, fault_writes
from bench.drills.fault_stage import Stage, own_postgres
from recsys.config import Settings
from recsys.storage.engine.database import Database
from recsys.storage.entities import key_rows
from recsys.storage.schema import migrate


@pytest.fixture
def stage_at(tmp_path, tiny_shop, publish):
    """stage_at(url): tables, a key and a champion there."""

    def make(url):
        with closing(Database(url)) as database:
            migrate.upgrade(database)
            publish(tiny_shop, database, tmp_path / "models")
            with database.begin() as connection:
                key = key_rows.create_key(connection, "faults", ["admin"], 1)
        return Stage(
            url, tmp_path / "models", Settings(registry={"path": tmp_path / "models"}), key
        )

    return make


def held(fault):
    assert fault.held, fault
    return fault.figures


def test_nothing_acknowledged_is_lost_when_clients_and_workers_are_killed(database_url, stage_at):
    figures = held(fault_writes.killed_writes(stage_at(database_url), 4_000, kills=2))
    assert figures["stored"] == figures["events"] == 4_000
    assert figures["client_kills"] + figures["worker_kills"] == 2


def test_postgresql_stopped_and_started_again(stage_at):
    with own_postgres() as server:
        if server is None:
            pytest.skip("no PostgreSQL binaries")
        stage = stage_at(server.url)
        figures = held(fault_database.postgres_stopped(stage, server, 5.0))
        assert set(figures["writes"]) <= {"200", "503"}
        assert "503" in figures["writes"]
        assert figures["reads"].keys() == {"200"}
        figures = held(fault_database.postgres_hung(stage, server, 4.0))
        assert "503" in figures["writes"]
        assert figures["reads"].keys() == {"200"}


def test_postgresql_slow_and_out_of_connections(stage_at):
    with own_postgres(connections=40) as server:
        if server is None:
            pytest.skip("no PostgreSQL binaries")
        stage = stage_at(server.url)
        held(fault_database.postgres_slow(stage, 2.0))
        held(fault_database.postgres_out_of_connections(stage, 3.0))


def test_sqlite_locked_full_and_read_only(stage_at, tmp_path):
    stage = stage_at(fault_database.sqlite_file(tmp_path))
    for fault in (
        fault_database.sqlite_locked,
        fault_database.sqlite_full,
        fault_database.sqlite_read_only,
    ):
        figures = held(fault(stage, 1.0))
        assert figures["integrity_check"] == "ok"
        assert "503" in figures["writes"]
