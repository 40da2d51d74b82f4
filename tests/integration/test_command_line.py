"""The commands as a user types them."""

import contextlib
import io
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
from unittest.mock import patch

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main as jobs_main
from recsys.cli import app, main
from recsys.cli.register import register
from recsys.storage.engine.database import Database
from recsys.storage.entities import account_rows, audit_rows, job_rows, lease_rows, schedule_rows
from recsys.storage.entities.passwords import is_password
from recsys.storage.schema import migrate

SMALL = {
    "RECSYS_MODEL__WIDTH": "16",
    "RECSYS_TRAINING__EPOCHS": "2",
    "RECSYS_TRAINING__BATCH_EVENTS": "128",
    "RECSYS_TRAINING__THREADS": "1",
    "RECSYS_EVALUATION__BOOTSTRAP_DRAWS": "100",
    "RECSYS_PROMOTION__MIN_POSITIONS": "50",
    "OMP_NUM_THREADS": "1",
}


class Shell:
    """`recsys …` in a folder with a database of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("RECSYS_")},
            **SMALL,
            "RECSYS_DATABASE__URL": url,
            "RECSYS_REGISTRY__PATH": str(folder / "models"),
        }

    def run(self, *arguments: object, status: int = 0) -> str:
        """What a command prints; within this process, since each new one loads for seconds."""
        command = ["recsys", *map(str, arguments)]
        out, error, found = io.StringIO(), io.StringIO(), 0
        with (
            patch.dict(os.environ, self.environment, clear=True),
            patch.object(sys, "argv", command),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(error),
        ):
            try:
                main()
            except SystemExit as ended:
                found = int(ended.code or 0)
        return self._checked(found, out.getvalue(), error.getvalue(), status)

    def process(self, module: str, *arguments: object, status: int = 0) -> str:
        """The same in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        return self._checked(done.returncode, done.stdout, done.stderr, status)

    def _checked(self, found: int, out: str, error: str, status: int) -> str:
        assert found == status, out + error
        if status:
            assert "Traceback" not in error
            return error
        return out

    def json(self, *arguments: object) -> dict:
        return json.loads(self.run(*arguments, "--json").splitlines()[-1])

    def start(self, *arguments: object, module: str = "recsys") -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture
def shell(tmp_path, database_url):
    return Shell(tmp_path, database_url)


@pytest.fixture
def lone_shell(tmp_path):
    """For what does not depend on the kind of database."""
    url = f"sqlite:///{tmp_path}/recsys.db"
    database = Database(url)
    migrate.upgrade(database)
    database.close()
    return Shell(tmp_path, url)


@pytest.fixture
def log_file(tmp_path, tiny_shop):
    path = tmp_path / "clicks.parquet"
    pq.write_table(tiny_shop.events, path)
    return path


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_files(folder):
    """What in `folder` other users may read, write or look into."""
    return [str(path) for path in folder.rglob("*") if path.stat().st_mode & 0o077]


def wait_for(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("it did not happen in time")


def test_accounts_of_the_dashboard(shell, tmp_path):
    made = shell.json("init")
    assert made["admin_account"] == "admin" and len(made["admin_password"]) == 20
    (tmp_path / "secret").write_text("a password from a file\n")
    created = shell.json("admin", "create", "ada", "--password", f"file:{tmp_path}/secret")
    assert created == {"account": "ada", "role": "viewer"}
    assert "already" in shell.run("admin", "create", "ada", status=1)
    error = shell.run("admin", "create", "bob", "--password", "given in plain", status=2)
    assert "expected file:PATH" in error and "given in plain" not in error
    assert "only admin" in shell.run("admin", "disable", "admin", status=1)
    shell.run("admin", "disable", "ada")
    listed = {row["name"]: row for row in shell.json("admin", "list")["accounts"]}
    assert listed["ada"]["disabled_at"] and not listed["admin"]["disabled_at"]
    changed = shell.json("admin", "password", "admin")
    assert changed["password"] != made["admin_password"]
    database = Database(shell.environment["RECSYS_DATABASE__URL"])
    with database.connect() as connection:
        lines = audit_rows.list_audit(connection)
        assert is_password(changed["password"], account_rows.password_hash(connection, "admin"))
    database.close()
    assert [line.action for line in reversed(lines)] == [
        *("key.create", "account.create", "account.create"),
        *("account.disable", "account.password"),
    ]
    assert made["admin_password"] not in str(lines)


def test_from_an_empty_folder_to_a_recommendation(shell, log_file, tmp_path, usual_umask):
    log_file.chmod(0o600)
    made = shell.json("init")
    assert made["admin_key"].startswith("rk_")
    assert (tmp_path / "config.toml").is_file()
    assert "exists already" in shell.run("init", status=1)
    imported = shell.json("events", "import", log_file)
    assert imported["accepted"] == imported["read"]
    again = shell.json("events", "import", log_file)
    assert (again["accepted"], again["duplicates"]) == (0, imported["read"])

    trained = shell.json("train")
    assert trained["promoted"] is True
    assert {"served", "lstm", "session_knn", "transitions", "popular"} <= set(trained["metrics"])
    evaluated = shell.json("evaluate")
    assert evaluated["version"] == trained["version"]
    assert evaluated["metrics"]["lstm"]["mrr@20_low"] <= evaluated["metrics"]["lstm"]["mrr@20"]
    assert "recall@20" in shell.run("evaluate")

    answer = shell.json("recommend", "shopper-000001", "-k", 3)
    assert len(answer["items"]) == 3
    assert answer["model_version"] == trained["version"]
    session = shell.json("recommend", "--session", "shopper-000001-0", "-k", 3)
    assert session["sequence_length"] >= 1
    out = tmp_path / "all.parquet"
    everyone = shell.json("recommend", "--all", "-k", 4, "--output", out)
    table = pq.read_table(out)
    assert table.num_rows == everyone["users"]
    first = table.filter(pa.compute.equal(table["user_id"], "shopper-000001"))
    alone = shell.json("recommend", "shopper-000001", "-k", 4)
    assert first["item_id"].to_pylist() == [item["item_id"] for item in alone["items"]]

    assert shell.json("models", "list")["models"][0]["champion"] is True
    assert trained["version"] in shell.run("models", "show", trained["version"])
    second = shell.json("train", "--no-promote")
    assert second["promoted"] is False
    shell.run("models", "promote", second["version"])
    assert shell.json("models", "rollback")["champion"] == trained["version"]
    assert "no model version" in shell.run("models", "promote", "nothing", status=1)
    shell.run("events", "export", "events.csv")
    assert len(list((tmp_path / "models").rglob("*"))) > 4
    assert open_files(tmp_path) == []  # configuration, database, models, exports


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


def test_networks_are_compared_on_the_window_of_a_training(lone_shell, log_file):
    shell = lone_shell
    shell.run("events", "import", log_file)
    shell.run("train")
    evaluated = shell.json("evaluate")
    side = shell.json("evaluate", "--networks", "lstm,gru")
    assert {"served", "lstm", "lstm_blend", "gru", "gru_blend", "session_knn"} <= set(
        side["results"]
    )
    assert side["results"]["gru"] != side["results"]["lstm"]
    assert side["positions"] == evaluated["positions"]
    assert "--networks" in shell.run("evaluate", "--networks", "lstm,rnn", status=2)
    assert "--networks" in shell.run("evaluate", "x", "--networks", "gru", status=2)


def test_settings_are_tuned_used_exported_and_explained(lone_shell, log_file, tmp_path):
    lone_shell.run("events", "import", log_file)
    tuned = lone_shell.json("tune", "--trials", 2)
    assert tuned["trials"] == 2
    assert tuned["mrr"] > 0
    more = lone_shell.json("tune", "--trials", 1)  # goes on with the same search
    assert more["trials"] == 3
    assert more["mrr"] >= tuned["mrr"]
    trained = lone_shell.json("train", "--tuned", "tuned.toml")
    shown = lone_shell.json("models", "show", trained["version"])
    assert shown["facts"]["peak_mib"] > 0
    assert shown["facts"]["network_bytes"] > 0
    (tmp_path / "other.toml").write_text("[database]\nurl = 'sqlite:///else.db'\n")
    error = lone_shell.run("train", "--tuned", "other.toml", status=2)
    assert "--tuned" in error and "database" in error

    exported = lone_shell.json("models", "export", trained["version"], "--output", "model.onnx")
    assert exported["largest_difference"] <= 1e-4
    assert (tmp_path / "model.onnx").stat().st_size == exported["bytes"]
    name = ("models", "export", trained["version"], "--output", "x", "--format", "pickle")
    assert "pickle" in lone_shell.run(*name, status=2)

    answer = lone_shell.json("recommend", "shopper-000001", "-k", 5, "--explain")
    sources = {event["item_id"] for item in answer["items"] for event in item["reason"]}
    assert sources
    plain = lone_shell.json("recommend", "shopper-000001", "-k", 5)
    assert [i["item_id"] for i in plain["items"]] == [i["item_id"] for i in answer["items"]]


def test_failures_are_one_line_and_a_status(lone_shell, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("u,i,t\na,x,100\n")
    for status, arguments, words in [
        (1, ("events", "import", tmp_path / "absent.csv"), "absent.csv"),
        (1, ("train",), "events"),
        (1, ("jobs", "run", "nothing"), "nothing"),
        (2, ("events", "import", log, "--map", "user=u,item=i,timestamp=when"), "when"),
        (2, ("events", "import", log, "--map", "user=u,item=i,timestamp=t"), "--unit"),
        (2, ("train", "--engine", "steam"), "--engine"),
        (2, ("recommend",), "USER"),
        (2, ("recommend", "--all"), "--output"),
        (2, ("keys", "create", "x", "--scope", "root"), "--scope"),
        (2, ("keys", "create", "x", "--scope", "collect", "--origin", "x"), "--origin"),
        (2, ("admin", "create", "x", "--role", "root"), "--role"),
        (2, ("admin", "create", "two words"), "NAME"),
        (2, ("bench", "faults", "--only", "fire"), "--only"),
        (2, ("--config", "x", "train"), ""),
    ]:
        error = lone_shell.run(*arguments, status=status)
        assert words in error
    lone_shell.environment["RECSYS_MODEL__WIDTH"] = "enormous"
    error = lone_shell.process("recsys", "train", status=1)
    assert error.startswith("recsys: model.width") and error.count("\n") == 1


def test_no_tables_no_model_no_panic(tmp_path):
    shell = Shell(tmp_path, f"sqlite:///{tmp_path}/x.db")
    assert "recsys db upgrade" in shell.run("train", status=1)
    assert "recsys db upgrade" in shell.run("serve", status=1)
    assert shell.json("db", "upgrade")["revision"]
    assert shell.json("db", "check")["current"] is True
    assert "no version" in shell.run("evaluate", status=1)
    assert "no model" in shell.run("recommend", "u")


def test_whether_a_scheduler_leads_is_told_by_the_status(lone_shell):
    assert "no scheduler leads" in lone_shell.run("schedule", "--check", status=1)
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


def test_a_downgrade_is_told_first_and_done_when_told(shell):
    shell.json("keys", "create", "shop", "--scope", "read")
    shell.json("admin", "create", "ada", "--role", "admin")
    assert "1 rows of table accounts" in shell.run("db", "downgrade", "0003")
    asked = shell.json("db", "downgrade", "0003")
    assert asked["tables"]["accounts"] == 1
    assert asked["done"] is False
    assert shell.json("db", "check")["current"] is True
    assert shell.json("db", "downgrade", "0003", "--yes") == {**asked, "done": True}
    assert "0003" in shell.run("db", "check", status=1)
    assert "REVISION" in shell.run("db", "downgrade", "0004", status=2)
    shell.json("db", "upgrade")
    assert shell.json("keys", "list")["keys"]
    assert shell.json("admin", "list")["accounts"] == []


def test_help_shows_an_example_everywhere():
    import typer
    from typer.main import get_command

    register(app)
    seen = []

    def walk(command, path):
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                walk(child, [*path, name])
        else:
            seen.append(" ".join(path))
            assert f"Example: recsys {' '.join(path)}" in command.help, path

    walk(get_command(app), [])
    assert len(seen) > 20
    assert typer


def test_bench_quality_on_tab_separated_files(lone_shell, tmp_path, tiny_shop):
    views = tiny_shop.events.filter(pa.compute.equal(tiny_shop.events["event_type"], "view"))
    table = pa.table(
        {
            "SessionId": views["session_id"],
            "ItemId": views["item_id"],
            "Time": pa.compute.divide(views["timestamp_us"], 1_000_000),
        }
    )
    cut = sorted(table["Time"].to_pylist())[int(table.num_rows * 0.8)]
    late = pa.compute.greater_equal(table["Time"], cut)
    options = pa_csv.WriteOptions(delimiter="\t", quoting_style="needed")
    pa_csv.write_csv(table.filter(pa.compute.invert(late)), tmp_path / "train.tsv", options)
    pa_csv.write_csv(table.filter(late), tmp_path / "test.tsv", options)
    columns = "session=SessionId,item=ItemId,timestamp=Time"
    found = lone_shell.json(
        "bench", "quality", "--train", "train.tsv", "--test", "test.tsv", "--map", columns
    )
    assert found["positions"] > 100
    assert found["train_seconds"] > 0
    for name in ("served", "lstm", "session_knn", "transitions", "popular"):
        row = found["results"][name]
        for metric in ("recall@20", "mrr@20", "ndcg@10"):
            assert 0 <= row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"] <= 1
        assert 0 < row["coverage@20"] <= 1
    pq.write_table(table, tmp_path / "log.parquet")
    one = lone_shell.json(
        *("bench", "quality", "--log", "log.parquet", "--cut", cut, "--map", columns),
        *("--unit", "s", "--networks", "lstm,gru"),
    )
    assert one["positions"] > 100
    rows = {"served", "lstm", "gru", "lstm_blend", "gru_blend", "session_knn", "vmis_knn"}
    assert rows <= set(one["results"])
    for versus in one["served_minus"].values():
        assert versus["mrr@20"]["low"] <= versus["mrr@20"]["difference"] <= versus["mrr@20"]["high"]
    assert set(one["served_minus"]) == set(one["results"]) - {"served"}
    fast = lone_shell.json(
        *("bench", "train", "--data", "log.parquet", "--cut", cut, "--map", columns),
        *("--unit", "s", "--reach", "0.01,0.001"),
    )
    assert fast["seconds_to_goal"] == fast["curve"][0]["seconds"]


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


def test_a_user_is_erased_and_taken_back(lone_shell, log_file):
    shell = lone_shell
    shell.run("events", "import", log_file)
    receipt = shell.json("users", "delete", "shopper-000001")
    assert receipt["removed"]["events"] > 0
    assert shell.json("events", "import", log_file)["skipped"] == receipt["removed"]["events"]
    assert "was not erased" in shell.run("users", "allow", "somebody", status=1)
    shell.run("users", "allow", "shopper-000001")
    allowed, erased = audit_lines(shell)[:2]
    assert (allowed.action, allowed.actor, erased.action) == ("user.allow", "cli", "user.erase")
    assert allowed.subject.startswith("user ") and "shopper" not in allowed.subject
    assert shell.json("events", "import", log_file)["accepted"] == receipt["removed"]["events"]


def audit_lines(shell):
    """The audit log, newest first."""
    database = Database(shell.environment["RECSYS_DATABASE__URL"])
    with database.connect() as connection:
        lines = audit_rows.list_audit(connection)
    database.close()
    return lines


def test_steering_jobs_leaves_lines_in_the_audit_log(lone_shell):
    shell = lone_shell
    run_id = shell.json("jobs", "run", "retrain")["run_id"]
    shell.run("jobs", "cancel", run_id)
    shell.run("jobs", "cancel", run_id, status=1)
    database = Database(shell.environment["RECSYS_DATABASE__URL"])
    with database.begin() as connection:  # as a scheduler writes them
        schedule_rows.put_schedule(connection, "retrain", "0 3 * * *", None, 0)
    database.close()
    shell.run("jobs", "pause", "retrain")
    shell.run("jobs", "resume", "retrain")
    lines = [(line.action, line.subject, line.details) for line in reversed(audit_lines(shell))]
    assert lines == [
        ("job.run", "retrain", {"run_id": run_id}),
        ("job.cancel", "retrain", {"run_id": run_id}),
        ("job.pause", "retrain", {}),
        ("job.resume", "retrain", {}),
    ]


def test_the_demo_prints_its_summary(tmp_path):
    shell = Shell(tmp_path, "sqlite:///unused.db")
    del shell.environment["RECSYS_DATABASE__URL"], shell.environment["RECSYS_REGISTRY__PATH"]
    small = ("--products", 60, "--shoppers", 150, "--events", 4_000, "--folder", "shop")
    found = shell.json("demo", "--no-serve", *small)
    assert found["promoted"] is True
    assert found["events"] > 3_000
    assert {"served", "lstm", "popular", "transitions", "session_knn", "oracle"} <= set(
        found["metrics"]
    )
    oracle = found["metrics"]["oracle"]["mrr@20"]
    assert all(row["mrr@20"] <= oracle for row in found["metrics"].values())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
