"""Retraining that can be left alone: what goes live, what does not, and what a broken run leaves."""

import os
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from sqlalchemy import update

from jobs import runs
from jobs.lease import Lease
from jobs.notices import Notices
from jobs.schedule import Scheduler
from recsys import pipeline
from recsys.commands import deployments
from recsys.config import load_settings
from recsys.errors import ConfigError, DataCheckError, LostLeaseError
from recsys.events.times import HOUR_US, to_us
from recsys.ingest.event_files import ReadOptions
from recsys.ops import upkeep
from recsys.ops.guard import guard_champion
from recsys.ops.webhook import SchedulerWatch, Webhook
from recsys.registry import load_champion
from recsys.storage.entities import job_rows, version_rows
from recsys.storage.entities.audit_rows import CLI
from recsys.storage.schema.tables import answer_counts, job_schedules
from recsys.training.run import Run

NOW = datetime(2025, 3, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path):
    return load_settings(
        registry={"path": tmp_path / "models"},
        sequences={"input_event_types": ["view"], "target_event_types": ["view"], "max_length": 20},
        model={"width": 16},
        training={"epochs": 4, "batch_events": 128, "threads": 1, "warm_start": False},
        evaluation={"bootstrap_draws": 100, "window_share": 0.2},
        promotion={"min_positions": 200, "learn_window": False, "guard_min_answers": 1_000},
    )


@pytest.fixture
def load(database, tiny_shop, tmp_path):
    """load(first, last): the shop's events of that share of its time."""
    events = tiny_shop.events.sort_by("timestamp_us")

    def load(first, last):
        part = events.slice(int(first * len(events)), int((last - first) * len(events)))
        path = tmp_path / "part.parquet"
        pq.write_table(part, path)
        pipeline.import_events(database, path, ReadOptions(), NOW)

    return load


def champion(database):
    with database.connect() as connection:
        return version_rows.champion(connection)


def change_settings(settings, **sections):
    return settings.model_copy(
        update={
            name: getattr(settings, name).model_copy(update=values)
            for name, values in sections.items()
        }
    )


def test_a_worse_candidate_is_refused_and_a_better_one_promoted(
    database, settings, load, monkeypatch
):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))
    assert first.promoted
    load(0.6, 1.0)

    real = pipeline.fit_model

    def learn_shuffled(log, *arguments, **more):
        """The same log with its items dealt out anew: nothing to learn but how often each comes."""
        sequences = log.sequences
        items = np.random.default_rng(0).permutation(sequences.items)
        return real(replace(log, sequences=replace(sequences, items=items)), *arguments, **more)

    monkeypatch.setattr(pipeline, "fit_model", learn_shuffled)
    worse = pipeline.train(settings, database, Run(NOW + timedelta(hours=1)))
    monkeypatch.undo()
    assert not worse.promoted
    assert "may be as low as -0." in worse.verdict.reason
    assert worse.verdict.numbers.versus_champion["mrr@20"]["high"] < 0
    assert champion(database).version == first.version
    with database.connect() as connection:
        row = version_rows.get_version(connection, worse.version)
    assert row.state == "refused"
    assert row.verdict["reason"] == worse.verdict.reason

    weak = change_settings(settings, model={"width": 4}, training={"epochs": 1})
    monkeypatch.setattr(pipeline, "fit_model", learn_shuffled)
    forced = pipeline.train(weak, database, Run(NOW + timedelta(hours=2)), force=True)
    monkeypatch.undo()
    assert champion(database).version == forced.version
    with database.connect() as connection:
        latest = version_rows.list_deployments(connection, 1)[0]
    assert latest["reason"].startswith("forced; the gate said: refused")

    better = pipeline.train(settings, database, Run(NOW + timedelta(hours=3)))
    assert better.promoted, better.verdict.reason
    assert champion(database).version == better.version
    assert all(check.passed for check in better.facts.checks)


def test_nothing_is_published_by_a_run_that_may_not(database, settings, load):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))

    def fence(connection):
        raise LostLeaseError("another scheduler leads by now")

    with pytest.raises(LostLeaseError):
        pipeline.train(settings, database, Run(NOW + timedelta(hours=1), fence=fence))
    assert champion(database).version == first.version
    with database.connect() as connection:
        assert len(version_rows.list_versions(connection)) == 1
    # The files that the refused run wrote go once they are a day old.
    assert upkeep.sweep_versions(settings, database, datetime.now(UTC)) == 0
    later = datetime.now(UTC) + timedelta(days=2)
    assert upkeep.sweep_versions(settings, database, later) == 1
    assert (settings.registry.path / first.version).is_dir()
    with database.begin() as connection:  # what serves stays, whatever its row says
        version_rows.set_state(connection, first.version, "deleted")
    assert upkeep.sweep_versions(settings, database, later) == 0


def test_files_of_a_deleted_version_go_though_the_pruning_was_killed(
    database, tiny_shop, publish, settings_for, tmp_path
):
    settings = settings_for(tmp_path)
    gone, *kept = (
        publish(tiny_shop, database, tmp_path, f"2099010{n}-000000-aaaaaa") for n in (1, 2, 3)
    )
    with database.begin() as connection:
        version_rows.set_state(connection, gone, "deleted")
    later = datetime.now(UTC) + timedelta(days=2)
    assert upkeep.sweep_versions(settings, database, later) == 1
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == set(kept)


def test_a_champion_that_changed_meanwhile_is_not_overwritten(database, settings, load):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))

    def meanwhile(connection):
        version_rows.deploy(connection, first.version, 1, "someone", "again")

    second = pipeline.train(settings, database, Run(NOW + timedelta(hours=1)), promote=False)
    deployments.promote(database, CLI, second.version, "by hand", to_us(NOW))

    def other(connection):
        version_rows.deploy(connection, first.version, 1, "someone", "meanwhile")

    eager = change_settings(settings, promotion={"min_positions": 1, "margin": 1.0})
    said = []
    third = pipeline.train(
        eager, database, Run(NOW + timedelta(hours=2), fence=other, say=said.append)
    )
    if third.verdict.promote:
        assert "not promoted: another version became champion meanwhile" in said
    assert not third.promoted
    assert champion(database).version == first.version


def test_a_failed_check_stops_the_run_and_leaves_the_champion(database, settings, load):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))
    strict = change_settings(settings, training={"max_gap_days": 0.0001})
    said = []
    with pytest.raises(DataCheckError, match="longest silence, days"):
        pipeline.train(strict, database, Run(NOW, say=said.append))
    assert any(line.startswith("FAILED: longest silence") for line in said)
    assert champion(database).version == first.version


def put_counts(database, champion_version, control, clicks, empty=0):
    rows = [
        {
            "hour_us": to_us(NOW) + hour * HOUR_US,
            "model_version": version,
            "arm": arm,
            "scenario": "",
            "source": source,
            "shown": shown,
            "clicks": clicked,
        }
        for hour in range(1, 9)
        for version, arm, source, shown, clicked in (
            (champion_version, "champion", "", 2_000, clicks),
            (champion_version, "champion", "empty", empty, 0),
            (control, "control", "", 200, 20),
        )
    ]
    with database.begin() as connection:
        connection.execute(answer_counts.insert(), rows)


@pytest.mark.parametrize(
    ("clicks", "empty", "reason"),
    [(60, 0, "click-through minus the control arm's"), (200, 900, "answers were empty")],
)
def test_a_champion_that_fails_in_service_is_rolled_back(
    database, settings, load, clicks, empty, reason
):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW - timedelta(days=1)))
    second = pipeline.train(settings, database, Run(NOW), promote=False)
    deployments.promote(database, CLI, second.version, "by hand", to_us(NOW))
    later = NOW + timedelta(hours=10)
    assert guard_champion(settings, database, later) is None
    put_counts(database, second.version, first.version, clicks, empty)
    assert reason in guard_champion(settings, database, later)
    assert champion(database).version == first.version
    with database.connect() as connection:
        latest = version_rows.list_deployments(connection, 1)[0]
    assert latest["deployed_by"] == "guard"
    assert guard_champion(settings, database, later) is None  # once


def test_the_guard_can_be_switched_off_and_needs_somewhere_to_go(database, settings, load):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))
    put_counts(database, first.version, "older", 60)
    later = NOW + timedelta(hours=10)
    assert guard_champion(settings, database, later) is None
    off = change_settings(settings, promotion={"auto_rollback": False})
    assert guard_champion(off, database, later) is None
    assert champion(database).version == first.version


def test_tuned_settings_stay_with_the_champion_until_configured_anew(database, settings, load):
    load(0.0, 0.6)
    best = {"model": {"width": 12}, "training": {"epochs": 2}}
    first = pipeline.train(settings, database, Run(NOW), tuned=best)
    assert first.promoted
    assert first.facts.settings["model"]["width"] == 12
    second = pipeline.train(settings, database, Run(NOW + timedelta(hours=1)), promote=False)
    assert second.facts.settings["model"]["width"] == 12
    anew = change_settings(settings, model={"width": 20})
    third = pipeline.train(anew, database, Run(NOW + timedelta(hours=2)), promote=False)
    assert third.facts.settings["model"]["width"] == 20
    assert third.facts.settings["training"]["epochs"] == 2


def run_limited(settings, database_url, tmp_path, run_id, limit):
    environment = {
        **os.environ,
        "RECSYS_DATABASE__URL": database_url,
        "RECSYS_REGISTRY__PATH": str(settings.registry.path),
        "RECSYS_TRAINING__THREADS": "1",
        "RECSYS_TRAINING__EPOCHS": "1",
    }
    start = "from jobs import runs, __main__; runs.OUTCOME_SECONDS = 1.0; "
    start += f"raise SystemExit(__main__.main(['run', '{run_id}']))"
    return subprocess.run(
        [sys.executable, "-c", start],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def test_a_full_disk_fails_the_run_and_nothing_else(
    database, database_url, settings, load, tmp_path
):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))
    with database.begin() as connection:
        run_id = job_rows.request_run(connection, "retrain", "cli", 1)
    done = run_limited(settings, database_url, tmp_path, run_id, 40_000)
    assert done.returncode == 1
    with database.connect() as connection:
        run = job_rows.get_run(connection, run_id)
        assert len(version_rows.list_versions(connection)) == 1
    if run.state == "failed":
        assert "File too large" in run.error
    else:  # SQLite's own file could not grow either: its scheduler marks the run
        assert database.dialect == "sqlite"
        assert "disk" in done.stderr
    assert champion(database).version == first.version
    assert load_champion(settings.registry.path, database, print) is not None
    assert list(settings.registry.path.glob(".*.part")) == []


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


def test_a_damaged_sequence_file_is_built_anew_and_training_goes_on(database, settings, load):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))
    folder = settings.registry.path / ".sequences"
    path = next(folder.glob("segment-*/items.npy"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    said = []
    second = pipeline.train(
        settings, database, Run(NOW + timedelta(hours=1), say=said.append), promote=False
    )
    assert any("items was changed; the files are built anew" in line for line in said)
    assert second.facts.metrics.keys() >= first.facts.metrics.keys()


def test_without_room_for_sequence_files_the_database_is_read(database, settings, load):
    load(0.0, 0.6)
    settings.registry.path.mkdir(parents=True)
    (settings.registry.path / ".sequences").write_text("a file where a folder should be")
    said = []
    frame = pipeline.events_so_far(settings, database, NOW, said.append)
    assert "the database is read instead" in said[-1]
    assert len(frame) > 1_000


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


# --- what must not end unseen -----------------------------------------------------------------


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
