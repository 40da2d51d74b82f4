"""`recsys serve` where nothing is installed that only trainings need."""

import json
import signal
import sqlite3
import time
import urllib.request
from contextlib import closing
from urllib.parse import quote

import pytest

from recsys.storage.engine.database import Database
from recsys.storage.entities import key_rows
from tests.integration.command_line.conftest import free_port, wait_for

ABSENT = ("torch", "pandas", "ray", "optuna", "onnx", "onnxruntime")
ASKED = """\
import traceback
from pathlib import Path

with open({path!r}, "a") as file:
    file.write("".join(traceback.format_stack()))
raise ModuleNotFoundError("No module named {name!r}", name={name!r})
"""


@pytest.fixture
def asked_for(lone_shell, tmp_path):
    """The file of every attempt to import one of ABSENT in a process of the shell; none succeeds."""
    folder, attempts = tmp_path / "absent", tmp_path / "attempts.txt"
    folder.mkdir()
    for name in ABSENT:
        (folder / f"{name}.py").write_text(ASKED.format(path=str(attempts), name=name))
    lone_shell.environment["PYTHONPATH"] = str(folder)
    return attempts


def map_table(shell, item_ids):
    """A table of the user's own with a few clicks, which the shell's settings name."""
    path = shell.folder / "shop.db"
    with closing(sqlite3.connect(path)) as shop, shop:
        columns = "no INTEGER PRIMARY KEY, who TEXT, sku TEXT, seen INTEGER, event TEXT"
        shop.execute(f"CREATE TABLE clicks ({columns})")
        shop.execute("CREATE INDEX by_who ON clicks (who, seen)")
        now_us = time.time_ns() // 1_000
        rows = [(n, f"u{n % 7}", item_ids[n % 9], now_us - 10**9 + n, f"c{n}") for n in range(200)]
        shop.executemany("INSERT INTO clicks VALUES (?, ?, ?, ?, ?)", rows)
    shell.environment |= {
        "RECSYS_EVENTS__URL": f"sqlite:///{path}",
        "RECSYS_EVENTS__TABLE": "clicks",
        "RECSYS_EVENTS__USER_COLUMN": "who",
        "RECSYS_EVENTS__ITEM_COLUMN": "sku",
        "RECSYS_EVENTS__TIMESTAMP_COLUMN": "seen",
        "RECSYS_EVENTS__ORDER_COLUMN": "no",
        "RECSYS_EVENTS__EVENT_ID_COLUMN": "event",
        "RECSYS_EVENTS__UNIT": "us",
        "RECSYS_EVENTS__ACCEPT_POSTS": "true",
    }


@pytest.mark.parametrize("mapped", [False, True], ids=["own events", "a mapped table"])
def test_answers_need_nothing_that_trainings_need(
    mapped, lone_shell, asked_for, tiny_shop, publish
):
    shell = lone_shell
    with closing(Database(shell.environment["RECSYS_DATABASE__URL"])) as database:
        publish(tiny_shop, database, shell.folder / "models")
        with database.begin() as connection:
            key = key_rows.create_key(connection, "test", ["admin"], 1)
    items = tiny_shop.bundle.vocabulary.item_ids
    if mapped:
        map_table(shell, items)
    port = free_port()
    server = shell.start("serve", "--port", port, "--workers", 1)

    def ask(path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"X-API-Key": key, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def ready():
        try:
            return ask("/health/ready")
        except OSError:
            return None

    try:
        wait_for(ready)
        posted = [{"user_id": f"u{n % 7}", "item_id": items[n % 5]} for n in range(60)]
        assert ask("/api/v1/events", posted)["accepted"] == 60
        time.sleep(1.5)  # the live log is read on
        for n in range(7):
            for options in ("", "?explain=true", "?k=40&exclude_seen=all"):
                found = ask(f"/api/v1/users/u{n}/recommendations{options}")
                assert found["items"] and found["degraded"] is None
        body = {"events": [{"item_id": items[3]}], "session_id": "s", "explain": True}
        assert ask("/api/v1/recommendations", body)["items"]
        for way in ("similar", "next"):
            assert ask(f"/api/v1/items/{quote(items[2])}/{way}")["items"]
        for path in ("/items/popular", "/models", "/jobs", "/users/u1", "/users/u1/events"):
            ask(f"/api/v1{path}")
        assert ask("/api/v1/items?limit=5")["items"] is not None
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0
    if not mapped:  # else pyarrow asks for pandas, which it can do without
        assert len(shell.process("recsys", "recommend", "u1", "-k", "3").splitlines()) == 4
    assert not asked_for.exists(), asked_for.read_text()[-4000:]


def test_a_training_says_what_is_not_installed(lone_shell, asked_for):
    error = lone_shell.process("recsys", "train", status=1)
    reason = "this command needs torch, which is not installed: pip install recsys"
    assert error == f"recsys: {reason}\n"
