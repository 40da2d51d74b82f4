"""What a newcomer meets first: init, the demo, and what is said before anything is there."""

import socket
from contextlib import closing

import pytest

from recsys.cli import terminal
from recsys.config import load_settings
from recsys.demo import demo_run
from recsys.storage.engine.database import open_database
from recsys.storage.entities import key_rows
from tests.integration.command_line.conftest import Shell

SMALL_DEMO = ("--products", 60, "--shoppers", 150, "--events", 4_000, "--folder", "shop")


@pytest.fixture
def bare_shell(tmp_path):
    """A shell that says nothing of a database or a registry."""
    shell = Shell(tmp_path, "sqlite:///unused.db")
    del shell.environment["RECSYS_DATABASE__URL"], shell.environment["RECSYS_REGISTRY__PATH"]
    return shell


@pytest.fixture
def taken_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


@pytest.mark.parametrize("name", ["shop", 'a "quoted" one', "été\\ 1"])
def test_init_puts_everything_into_the_folder_it_is_given(bare_shell, tmp_path, name):
    made = bare_shell.json("init", name)
    folder = tmp_path / name
    assert made["config"] == f"{name}/config.toml"
    assert (folder / "var" / "recsys.db").is_file() and not (tmp_path / "var").exists()
    settings = load_settings(folder / "config.toml")
    assert settings.registry.path == folder / "var" / "models"
    assert settings.schedule.backup_path == folder / "var" / "backups"
    assert settings.events.upload_path == folder / "var" / "uploads"
    # From anywhere, by its configuration alone.
    assert bare_shell.json("keys", "list", "--config", folder / "config.toml")["keys"]


def test_before_init_a_command_says_what_to_do(bare_shell):
    assert "recsys init" in bare_shell.run("models", "list", status=1)


def test_a_taken_port_is_told_before_anything_else(bare_shell, tmp_path, taken_port):
    error = bare_shell.run("demo", *SMALL_DEMO, "--port", taken_port, status=2)
    assert error.count("\n") == 1 and f"--port = '{taken_port}'" in error
    assert not (tmp_path / "shop").exists()
    bare_shell.json("init")
    error = bare_shell.run("serve", "--port", taken_port, status=1)
    assert "in use" in error and "serving on" not in error


def test_the_demo_goes_on_where_it_stopped(bare_shell, tmp_path, monkeypatch):
    found = bare_shell.json("demo", "--no-serve", *SMALL_DEMO)
    assert found["promoted"] is True
    assert found["events"] > 3_000
    assert {"served", "lstm", "popular", "transitions", "session_knn", "oracle"} <= set(
        found["metrics"]
    )
    oracle = found["metrics"]["oracle"]["mrr@20"]
    assert all(row["mrr@20"] <= oracle for row in found["metrics"].values())

    served = []
    monkeypatch.setattr(
        demo_run, "serve_until_stopped", lambda config, shop, *_: served.append((config, shop))
    )
    keys = []
    for _ in range(2):
        bare_shell.run("demo", *SMALL_DEMO, "--port", 0)
        config, shop = served[-1]
        settings = load_settings(tmp_path / config)
        assert settings.serving.port > 0 and settings.serving.storefront_key
        assert len(shop.items) == 60
        with closing(open_database(settings)) as database, database.connect() as connection:
            active = [k.name for k in key_rows.list_keys(connection) if k.revoked_at_us is None]
        assert sorted(active) == ["demo", "storefront"]
        keys.append(settings.serving.storefront_key)
    assert keys[0] != keys[1]
    models = bare_shell.json("models", "list", "--config", tmp_path / "shop" / "config.toml")
    assert [one["version"] for one in models["models"]] == [found["model_version"]]
    # Another shop than the folder's, or one that was not finished, is made anew.
    other = demo_run.finished_demo(tmp_path / "shop")
    assert other.products == 60 and demo_run.finished_demo(tmp_path) is None


def test_a_demo_that_ends_by_itself_fails(tmp_path, monkeypatch):
    class Ended:
        def __init__(self, *_):
            pass

        def poll(self):
            return 1

        def terminate(self):
            pass

        def wait(self, timeout):
            return 1

    config = tmp_path / "config.toml"
    config.write_text(demo_run.CONFIG.format(folder=tmp_path, port=1))
    monkeypatch.setattr(demo_run.subprocess, "Popen", Ended)
    monkeypatch.setattr(demo_run.signal, "signal", lambda *_: None)
    shop = demo_run.FinishedDemo(30, 10, 1_000, 7, 0, "u", demo_run.SIMULATION).shop()
    with pytest.raises(demo_run.RecsysError, match="ended"):
        demo_run.serve_until_stopped(config, shop, demo_run.Bustle(), None)


def test_progress_is_told_by_lines_where_no_terminal_shows_a_bar(monkeypatch):
    said, at = [], [0.0]
    monkeypatch.setattr(terminal, "say", said.append)
    monkeypatch.setattr(terminal.time, "monotonic", lambda: at[0])
    with terminal.progress_bar("training", 1.0) as (progress, task):
        for second in range(0, 31, 3):
            at[0] = float(second)
            progress.update(task, description="fit 1/2", completed=second / 30, note="loss 1.0")
    assert said == [f"fit 1/2  {share}%  loss 1.0  less than a minute left" for share in (40, 80)]
    with terminal.row_progress("importing") as on_progress:
        on_progress("read", 5)
        at[0] += terminal.LINE_SECONDS
        on_progress("read", 1_000)
    assert said[2:] == ["importing  read 1,000 rows"]
