"""What short forms of the drills need: a stage, and a fault that held."""

from contextlib import closing

import pytest

from bench.drills.fault_stage import Fault, Stage
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


def _held(fault: Fault) -> dict:
    assert fault.held, fault
    return fault.figures


@pytest.fixture(scope="session")
def held():
    """held(fault): the figures of a fault that did no harm."""
    return _held
