"""What runs on: the service, the scheduler, and runs that are stopped."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from jobs.__main__ import main as jobs_main
from recsys.storage.engine.database import Database
from recsys.storage.entities import job_rows, lease_rows
from recsys.storage.schema import migrate
from tests.conftest import postgresql_in_drills
from tests.integration.command_line.conftest import (
    free_port,
    open_files,
    wait_for,
)


def test_a_scheduler_writes_for_its_user_alone_and_so_does_code_that_opens_a_database(
    usual_umask, tmp_path, monkeypatch
):
    url = f"sqlite:///{tmp_path}/data/recsys.db"
    with closing(Database(url)) as database:
        migrate.upgrade(database)
        with database.begin() as connection:
            connection.exec_driver_sql("UPDATE stamps SET items = 1")
            assert {path.name for path in database.file.parent.iterdir()} > {"recsys.db-wal"}
            assert open_files(tmp_path) == []
    monkeypatch.setenv("RECSYS_DATABASE__URL", url)
    assert jobs_main(["run", "7"]) == 1  # no such run
    assert os.umask(0o022) == 0o077


def test_whether_a_scheduler_leads_is_told_by_the_status(lone_shell):
    assert "no scheduler is running" in lone_shell.run("schedule", "--check", status=1)
    url = lone_shell.environment["RECSYS_DATABASE__URL"]
    with contextlib.closing(Database(url)) as database:
        for ago, status in ((0, 0), (3_600, 1)):
            with database.begin() as connection:
                seen = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
                at_us = int((time.time() - ago) * 1e6)
                assert lease_rows.take_lease(connection, seen, "here:1:x", at_us)
            said = lone_shell.run("schedule", "--check", status=status)
            assert ("here:1:x" in said) == bool(status)
    loaded = "import sys, recsys.cli.serve, recsys.storage.entities.lease_rows; print('torch' in sys.modules)"
    command = [sys.executable, "-c", loaded]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("key", "value", "state", "reason"),
    [
        ("TIMEOUT_MINUTES", "0.02", "timed_out", "ran longer than 0.02 minutes"),
        ("MEMORY_MIB", "60", "failed", "took more memory than schedule.memory_mib allows (60 MiB)"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_run_past_its_bounds_is_stopped(shell, log_file, key, value, state, reason):
    shell.run("db", "upgrade")
    shell.run("events", "import", log_file)
    shell.environment |= {
        "RECSYS_SCHEDULE__POLL_SECONDS": "0.2",
        f"RECSYS_SCHEDULE__{key}": value,
    }
    run_id = shell.json("jobs", "run", "retrain")["run_id"]

    def ended():
        runs = {run["id"]: run for run in shell.json("jobs", "list")["runs"]}
        return runs[run_id]["finished_at_us"] and runs[run_id]

    scheduler = shell.start(module="jobs")
    try:
        run = wait_for(ended)
    finally:
        scheduler.send_signal(signal.SIGTERM)
        assert scheduler.wait(timeout=60) == 0
    assert (run["state"], run["error"]) == (state, reason)


def test_connections_that_say_nothing_hold_no_thread(lone_shell):
    shell = lone_shell
    port = free_port()
    server = shell.start("serve", "--port", port, "--workers", 1)

    def live():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=2) as found:
                return found.status == 200
        except OSError:
            return False

    try:
        wait_for(live)
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
        time.sleep(0.2)
        assert live()
        for one in silent:
            one.close()
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0


@postgresql_in_drills
def test_the_service_under_its_real_server(shell, log_file):
    shell.run("db", "upgrade")
    shell.run("events", "import", log_file)
    shell.run("train")
    key = shell.json("keys", "create", "t", "--scope", "read", "--scope", "write")["key"]
    port = free_port()
    server = shell.start("serve", "--port", port, "--workers", 2)

    def call(path, body=None):
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.load(response)
        except (urllib.error.URLError, ConnectionError):
            return None

    try:
        wait_for(lambda: call("/health/ready"))
        for n in range(20):  # whichever worker took the event, any worker's answer has it
            item = f"P{n:04d}"
            posted = call("/api/v1/events", {"user_id": "live/user", "item_id": item})
            answer = call("/api/v1/users/live%2Fuser/recommendations?k=5")
            assert answer["last_event_id"] == posted["results"][0]["event_id"]
            assert answer["user_id"] == "live/user"
        address = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(address, timeout=10) as response:
            lines = response.read().decode().splitlines()
        assert "recsys_answers_total" in "".join(lines)
        posted = [x for x in lines if x.startswith('recsys_events_total{outcome="accepted"}')]
        assert [float(line.split()[-1]) for line in posted] == [20.0]  # over both workers
        assert sum(line.startswith("recsys_model_age_seconds{") for line in lines) == 1
        assert "in use" in shell.run("serve", "--port", port, status=1)
        # One worker gone: its connections are the other's. (One that stands still is replaced:
        # tests/unit/web/test_worker_processes.py.)
        workers = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        os.kill(int(workers[0]), signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{workers[0]}").exists())
        assert all(call("/health/live") for _ in range(12))
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0


@postgresql_in_drills
def test_the_scheduler_runs_what_is_requested_and_marks_what_is_killed(shell, log_file):
    shell.run("db", "upgrade")
    shell.run("events", "import", log_file)
    shell.environment["RECSYS_SCHEDULE__POLL_SECONDS"] = "0.2"
    scheduler = shell.start(module="jobs")

    database = Database(shell.environment["RECSYS_DATABASE__URL"])

    def state(run_id):
        with database.connect() as connection:
            return vars(job_rows.get_run(connection, run_id))

    try:
        schedules = wait_for(lambda: shell.json("jobs", "list")["schedules"])
        assert {row["job"] for row in schedules} == {"retrain", "refresh", "prune"}
        assert all(row["next_run_us"] for row in schedules)
        run_id = shell.json("jobs", "run", "retrain")["run_id"]
        done = wait_for(lambda: (r := state(run_id))["state"] in ("succeeded", "failed") and r)
        assert done["state"] == "succeeded", done
        assert done["outcome"]["promoted"] is True
        assert "promoted" in shell.run("jobs", "logs", run_id)

        shell.environment["RECSYS_TRAINING__EPOCHS"] = "2"
        second = shell.json("jobs", "run", "retrain")["run_id"]
        running = wait_for(lambda: (r := state(second))["state"] == "running" and r)
        os.kill(running["pid"], signal.SIGKILL)
        killed = wait_for(lambda: (r := state(second))["state"] != "running" and r)
        assert killed["state"] == "failed"
        assert "status -9" in killed["error"]
        champion = [m for m in shell.json("models", "list")["models"] if m["champion"]]
        assert champion[0]["version"] == done["outcome"]["version"]
    finally:
        database.close()
        scheduler.send_signal(signal.SIGTERM)
        assert scheduler.wait(timeout=60) == 0


def test_a_cron_line_that_cannot_be_is_refused(lone_shell):
    lone_shell.environment["RECSYS_SCHEDULE__RETRAIN"] = "99 * * * *"
    assert "schedule.retrain" in lone_shell.process("jobs", status=1)
    assert "schedule.retrain" in lone_shell.run("serve", "--port", 0, status=1)
    lone_shell.environment["RECSYS_SCHEDULE__RETRAIN"] = "0 3 * * *"
    lone_shell.environment["RECSYS_SCHEDULE__TIMEZONE"] = "Mars/Base"
    assert "schedule.timezone" in lone_shell.process("jobs", status=1)
    assert "usage" in lone_shell.process("jobs", "walk", status=2)
