"""Histories from a standby: a real one, paused, behind and gone; no answer misses an acknowledged event."""

import os
import signal
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from bench.drills.fault_stage import own_postgres
from recsys.config import Settings
from recsys.errors import ConfigError
from recsys.ops import diagnosis
from recsys.storage.engine.database import Database
from recsys.storage.engine.replica import Replica
from recsys.storage.entities import key_rows
from recsys.storage.schema import migrate
from recsys.web.app import create_app


@pytest.fixture(scope="module")
def pair():
    """A primary and its standby."""
    with ExitStack() as stack:
        primary = stack.enter_context(own_postgres())
        if primary is None:
            pytest.skip("no PostgreSQL binaries")
        yield primary, stack.enter_context(own_postgres(standby_of=primary))


def settings_of(pair, folder, **more):
    primary, standby = pair
    database = {"url": primary.url, "replica_url": standby.url, "replica_wait_ms": 500, **more}
    return Settings(database=database, registry={"path": folder}, logging={"level": "error"})


@pytest.fixture
def service(pair, tmp_path):
    """A service over both; `outcomes` are what its reads of histories came to."""
    settings = settings_of(pair, tmp_path)
    with closing(Database(pair[0].url)) as database:
        migrate.upgrade(database)
        with database.begin() as connection:
            key = key_rows.create_key(connection, "test", ["admin"], 1)
        app = create_app(settings, database)
        outcomes = []
        app.extensions["recsys"].recommender.source.replica.note = outcomes.append
        client = app.test_client()

        def ask(method, path, **body):
            headers = {"X-API-Key": key}
            return client.open(f"/api/v1{path}", method=method, headers=headers, **body).get_json()

        ask.outcomes, ask.settings, ask.database = outcomes, settings, database
        yield ask
        app.extensions["recsys"].close()


def post_and_ask(service, number):
    """Whether the answer holds the event that was acknowledged before it."""
    event = {"user_id": "ada", "item_id": f"i{number}"}
    posted = service("POST", "/events", json=event)["results"][0]["event_id"]
    return service("GET", "/users/ada/recommendations")["last_event_id"] == posted


def replay(pair, verb):
    with closing(Database(pair[1].url)) as standby, standby.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_wal_replay_{verb}()")


def test_every_acknowledged_event_is_in_the_next_answer(pair, service):
    assert all(post_and_ask(service, number) for number in range(20))
    assert service.outcomes.count("replica") >= 15


def test_a_standby_that_is_behind_is_passed_over(pair, service):
    replay(pair, "pause")
    try:
        assert post_and_ask(service, 100)
        assert service.outcomes == ["behind"]
    finally:
        replay(pair, "resume")
    assert post_and_ask(service, 101)


def test_doctor_looks_at_the_standby(pair, service, monkeypatch):
    with service.database.connect() as connection:
        (found,) = diagnosis._replica(service.settings, service.database, connection, None)
    assert (found.check, found.state) == ("replica", "ok")
    with service.database.connect() as connection, monkeypatch.context() as patch:
        patch.setattr(diagnosis, "MUCH_LOG_BYTES", -1)
        (found,) = diagnosis._replica(service.settings, service.database, connection, None)
    assert found.state == "warn" and found.advice
    alone = Settings(database={"url": pair[0].url, "replica_url": pair[0].url})
    with service.database.connect() as connection:
        (found,) = diagnosis._replica(alone, service.database, connection, None)
    assert found.state == "fail" and "not a standby" in found.found


def test_a_standby_that_stands_still_holds_nobody_up(pair, service):
    assert post_and_ask(service, 150)
    server = int((pair[1].folder / "data" / "postmaster.pid").read_text().split()[0])
    family = [server, *map(int, Path(f"/proc/{server}/task/{server}/children").read_text().split())]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        service.outcomes.clear()
        started = time.monotonic()
        assert post_and_ask(service, 151)
        assert time.monotonic() - started < 10
        assert service.outcomes == ["away"]
        assert post_and_ask(service, 152)
    finally:
        for pid in family:
            os.kill(pid, signal.SIGCONT)


def test_a_primary_that_fails_while_the_standby_is_tried_does_not_end_trying(pair, service):
    settings = Settings(database={"url": pair[0].url, "replica_url": pair[1].url})
    outcomes = []
    with (
        closing(Replica(settings.database)) as replica,
        service.database.connect() as primary,
        service.database.connect() as lost,
    ):
        replica.note = outcomes.append
        pid = lost.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        primary.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 10000)")
        with pytest.raises(DBAPIError):
            replica.read(lost, lambda where: None)
        lost.invalidate()
        assert outcomes == []
        replica.read(primary, lambda where: None)
        assert outcomes == ["replica"]


def test_another_database_is_no_standby(pair, service):
    other = pair[1].url.removesuffix("postgres") + "template1"
    settings = Settings(database={"url": pair[0].url, "replica_url": other})
    outcomes = []
    with closing(Replica(settings.database)) as replica, service.database.connect() as primary:
        replica.note = outcomes.append
        for _ in range(2):
            assert replica.read(primary, lambda where: where.engine.url.database) == "postgres"
        assert outcomes == ["away"]
        with pytest.raises(ConfigError, match="another database"):
            replica.lag_bytes(primary)


def test_what_can_be_no_standby_is_refused(pair):
    for url, replica, reason in (
        (pair[0].url, "sqlite:///x.db", "expected a postgresql"),
        ("sqlite:///x.db", pair[1].url, "is not of PostgreSQL"),
    ):
        settings = Settings(database={"url": url, "replica_url": replica})
        with pytest.raises(ConfigError, match=reason):
            Replica(settings.database)


def test_a_standby_that_is_gone_is_left_alone(pair, service):
    assert post_and_ask(service, 200)
    pair[1].stop()
    try:
        service.outcomes.clear()
        assert all(post_and_ask(service, number) for number in range(201, 206))
        assert service.outcomes == ["away"]  # asked once, then left alone for a while
    finally:
        pair[1].start()
