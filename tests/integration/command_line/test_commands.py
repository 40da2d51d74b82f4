"""The commands as a user types them."""

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from recsys.cli import app
from recsys.cli.register import register
from recsys.storage.engine.database import Database
from recsys.storage.entities import account_rows, audit_rows, schedule_rows
from recsys.storage.entities.passwords import is_password
from tests.conftest import postgresql_in_drills
from tests.integration.command_line.conftest import Shell, open_files


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


@postgresql_in_drills
def test_from_an_empty_folder_to_a_recommendation(shell, log_file, tmp_path, usual_umask):
    log_file.chmod(0o600)
    made = shell.json("init")
    assert made["admin_key"].startswith("rk_")
    assert (tmp_path / "config.toml").is_file()
    assert "already exists" in shell.run("init", status=1)
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
