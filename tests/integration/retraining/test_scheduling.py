"""Runs are requested, started, written down and told of, whatever fails meanwhile."""

import os
import socket
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread
from types import SimpleNamespace

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import update

from jobs import runs
from jobs.lease import Lease
from jobs.notices import Notices
from jobs.schedule import Scheduler
from recsys.config import load_settings
from recsys.errors import ConfigError
from recsys.events.times import HOUR_US, to_us
from recsys.ops import upkeep
from recsys.ops.webhook import SchedulerWatch, Webhook
from recsys.storage.entities import job_rows, version_rows
from recsys.storage.schema.tables import job_schedules
from tests.integration.retraining.conftest import NOW


def test_bad_requests_for_runs_are_refused_by_name(bare):
    run = bare.call("POST", "/jobs/prune/run", status=202).get_json()
    with bare.database.begin() as connection:
        job_rows.start_run(connection, run["run_id"], 1, "host", 1)
        job_rows.finish_run(connection, run["run_id"], "succeeded", 2, {"events": 0})
    refused = bare.call("POST", f"/jobs/runs/{run['run_id']}/cancel", status=409).get_json()
    assert "already ended (succeeded)" in refused["detail"]
    assert "'polish'" in bare.call("POST", "/jobs/polish/run", status=404).get_json()["detail"]
    listed = bare.get("/jobs")
    assert listed["scheduler"] == {"holder": None, "renewed_at": None}


def test_what_must_be_known_is_told_once_to_an_allowed_host(database, settings):
    got, asked = [], []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append((self.command, self.path))
            got.append(orjson.loads(self.rfile.read(int(self.headers.get("Content-Length", 2)))))
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{server.server_port}/elsewhere")
            self.end_headers()

        def do_GET(self):  # what a followed POST becomes
            asked.append((self.command, self.path))
            self.send_response(204)
            self.end_headers()

        do_HEAD = do_PUT = do_GET

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/secret"
    with pytest.raises(ConfigError, match="webhook_hosts"):
        Notices(load_settings(schedule={"webhook_url": url}))
    with pytest.raises(ConfigError, match="webhook_url"):
        Notices(load_settings(schedule={"webhook_url": "file:///etc/passwd"}))
    notices = Notices(load_settings(schedule={"webhook_url": url, "webhook_hosts": ["127.0.0.1"]}))
    notices.look(database, 1)
    for number, (state, outcome) in enumerate(
        [("failed", None), ("succeeded", None), ("succeeded", {"rolled_back": "v2 -> v1: why"})]
    ):
        with database.begin() as connection:
            run_id = job_rows.request_run(connection, "refresh", "cli", number)
            error = "broken" if state == "failed" else None
            job_rows.finish_run(connection, run_id, state, 100 + number, outcome, error)
    for moment in (20_000_000, 40_000_000, 60_000_000):
        notices.look(database, moment)
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    while len(got) < 2 and datetime.now(UTC) < deadline:
        time.sleep(0.01)
    for posting in threading.enumerate():
        if "_post" in posting.name:  # once these are over, a redirect would have been followed
            posting.join(30)
    server.shutdown()
    server.server_close()
    found = sorted((message["event"], message.get("reason")) for message in got)
    assert found == [("rolled_back", "v2 -> v1: why"), ("run_failed", "broken")]
    assert asked == [("POST", "/secret")] * 2


def test_ended_runs_go_after_their_time_but_a_slot_never_comes_twice(database, settings):
    old = to_us(NOW) - 200 * 24 * HOUR_US
    with database.begin() as connection:
        for number in range(5):
            run_id = job_rows.claim_slot(connection, "refresh", old + number, old + number)
            job_rows.add_line(connection, run_id, "a line", 1)
            job_rows.finish_run(connection, run_id, "succeeded", old + number)
        job_rows.request_run(connection, "prune", "cli", old)
    assert upkeep.prune_runs(settings, database, NOW) == 4
    with database.begin() as connection:
        assert job_rows.last_slot_us(connection, "refresh", 2**62) == old + 4
        assert job_rows.claim_slot(connection, "refresh", old + 4, 1) is None
        left = {run.job for run in job_rows.list_runs(connection)}
    assert left == {"refresh", "prune"}


def test_slots_that_find_one_waiting_are_written_off(database):
    with database.begin() as connection:
        first = job_rows.claim_slot(connection, "refresh", 1, 1)
        second = job_rows.claim_slot(connection, "refresh", 2, 2)
        assert job_rows.claim_slot(connection, "refresh", 2, 3) is None
        run = job_rows.get_run(connection, second)
    assert run.state == "cancelled"
    assert f"run {first}" in run.error


def test_a_paused_schedule_starts_nothing_and_makes_up_for_nothing(bare, settings):
    database = bare.database
    hourly = settings.schedule.model_copy(update={"retrain": "* * * * *"})
    scheduler = Scheduler(settings.model_copy(update={"schedule": hourly}), database, None)

    def slots_claimed() -> int:
        """Of retrain, with slots due since an hour."""
        with database.begin() as connection:
            connection.execute(
                update(job_schedules).where(job_schedules.c.paused).values(created_at_us=1)
            )
        scheduler._claim_due()
        with database.connect() as connection:
            return sum(run.job == "retrain" for run in job_rows.list_runs(connection))

    assert slots_claimed() == 0  # writes the schedules down
    paused = bare.call("POST", "/jobs/retrain/pause").get_json()
    assert paused["paused"] is True
    assert slots_claimed() == 0
    assert bare.call("POST", "/jobs/retrain/run", status=202)
    assert bare.call("POST", "/jobs/retrain/resume").get_json()["paused"] is False
    assert slots_claimed() == 1  # the one that was asked for
    assert [s["paused"] for s in bare.get("/jobs")["schedules"]] == [False] * 3
    assert "'polish'" in bare.call("POST", "/jobs/polish/pause", status=404).get_json()["detail"]
    bare.call("POST", "/jobs/retrain/pause", scope="write", status=403)


def test_an_assigned_run_is_begun_by_its_own_leader_only(database):
    with database.begin() as connection:
        run_id = job_rows.request_run(connection, "refresh", "cli", 1)
        assert job_rows.assign_run(connection, run_id, 1)
        assert job_rows.assign_run(connection, run_id, 2)  # the next leader
        assert not job_rows.start_run(connection, run_id, 10, "host", 1, token=1)
        assert job_rows.start_run(connection, run_id, 11, "host", 1_000_000, token=2)
        assert not job_rows.assign_run(connection, run_id, 3)
        job_rows.beat(connection, run_id, 2_000_000, "half", 0.5)
        run = job_rows.get_run(connection, run_id)
    assert run.estimated_end_us(3_000_000) == 5_000_000


def test_that_nobody_schedules_is_told_once_by_the_service(database):
    class Told(list):
        tell = list.append

    told, clock = Told(), [0.0]
    watch = SchedulerWatch(database, told, lambda: clock[0])
    for moment in (0.0, 400.0, 800.0):  # nobody ever did: nothing to miss
        clock[0] = moment
        watch.look()
    lease = Lease(database, 15.0, lambda: clock[0], lambda: 7)
    lease.step()
    watch.look()
    for moment in (900.0, 1_000.0):
        clock[0] = moment
        lease.step()
        watch.look()
    assert told == []
    for moment in (1_200.0, 1_301.0, 1_400.0):
        clock[0] = moment
        watch.look()
    assert [message["event"] for message in told] == ["no_scheduler"]


def test_writes_refused_for_a_while_cost_no_run(database, database_url, read_only, monkeypatch):
    with database.begin() as connection:
        run_id = job_rows.request_run(connection, "prune", "cli", 1)
    with ExitStack() as refused:

        def job(_settings, own, run_log):
            refused.enter_context(read_only(own))
            run_log.say("a line that is not stored")
            return SimpleNamespace(to_json=lambda: {"done": 1})

        monkeypatch.setitem(runs.JOBS, "prune", job)
        monkeypatch.setattr(runs.time, "sleep", lambda _: refused.close())
        assert runs.run_in_this_process(load_settings(database={"url": database_url}), run_id)
    with database.connect() as connection:
        run = job_rows.get_run(connection, run_id)
    assert (run.state, run.outcome) == ("succeeded", {"done": 1})


def test_a_run_that_cannot_be_started_waits_and_the_scheduler_goes_on(
    database, settings, monkeypatch
):
    with database.begin() as connection:
        run_id = job_rows.request_run(connection, "prune", "cli", 1)
    scheduler = Scheduler(settings, database, None)
    monkeypatch.setattr("jobs.children.sys.executable", "/nowhere/python")
    for _ in range(2):
        scheduler.turn()
        with database.connect() as connection:
            assert job_rows.get_run(connection, run_id).state == "requested"


def test_an_unforeseen_error_ends_no_scheduler(database, settings, monkeypatch):
    scheduler = Scheduler(settings, database, None)

    def broken(*_):
        scheduler.stop()
        raise KeyError("gone")

    monkeypatch.setattr(scheduler._notices, "look", broken)
    scheduler.run()


def test_an_unforeseen_error_ends_no_thread(database, settings, monkeypatch):
    monkeypatch.setattr("recsys.ops.webhook.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("jobs.runs.BEAT_SECONDS", 0.0)
    watch = SchedulerWatch(database, Webhook(settings), lambda: 0.0)
    run_log = runs.RunLog(database, 1)
    for owner, name, loop in (
        (watch, "look", watch.run),
        (run_log, "beat", lambda stop: runs._beat(run_log, stop, os.getppid())),
    ):
        stop, calls = Event(), []

        def broken(stop=stop, calls=calls):
            calls.append(1)
            if len(calls) == 2:
                stop.set()
            raise KeyError("gone")

        monkeypatch.setattr(owner, name, broken)
        loop(stop)
        assert len(calls) == 2


def test_a_receiver_that_speaks_no_http_is_told_of_without_its_address(capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"nonsense\r\n\r\n")

        answering = Thread(target=answer)
        answering.start()
        url = f"http://127.0.0.1:{port}/secret"
        allowed = {"webhook_url": url, "webhook_hosts": ["127.0.0.1"]}
        Webhook(load_settings(schedule=allowed))._post({"event": "model_old"})
        answering.join()
    told = capsys.readouterr().out
    assert "not reached" in told and "secret" not in told


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ("torchrun", "0 of the 1 other ranks of the training came within 1 seconds"),
        ("ray", "no Ray cluster answers at 127.0.0.1:"),
    ],
)
def test_ranks_that_are_away_are_a_failed_run_and_the_champion_serves_on(
    database, database_url, settings, load, publish, tiny_shop, engine, told
):
    load(0.0, 1.0)
    champion = publish(tiny_shop, database, settings.registry.path)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    chosen = settings.training.model_copy(
        update={"engine": engine, "engine_address": address, "join_timeout_seconds": 1}
    )
    away = settings.model_copy(
        update={
            "training": chosen,
            "database": settings.database.model_copy(update={"url": SecretStr(database_url)}),
        }
    )
    with database.begin() as connection:
        run_id = job_rows.request_run(connection, "retrain", "cli", 1)
    assert not runs.run_in_this_process(away, run_id)
    with database.connect() as connection:
        run = job_rows.get_run(connection, run_id)
        assert [row.version for row in version_rows.list_versions(connection, 9)] == [champion]
        assert version_rows.champion(connection).version == champion
    assert run.state == "failed"
    assert run.error.startswith(told)
