"""`recsys serve` where nothing is installed that only trainings need."""

import json
import signal
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


def test_answers_need_nothing_that_trainings_need(lone_shell, asked_for, tiny_shop, publish):
    shell = lone_shell
    with closing(Database(shell.environment["RECSYS_DATABASE__URL"])) as database:
        publish(tiny_shop, database, shell.folder / "models")
        with database.begin() as connection:
            key = key_rows.create_key(connection, "test", ["admin"], 1)
    items = tiny_shop.bundle.vocabulary.item_ids
    port = free_port()
    server = shell.start("serve", "--port", port, "--workers", 2)

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
    assert items[0] != shell.process("recsys", "recommend", "u1", "-k", "3")
    assert not asked_for.exists(), asked_for.read_text()[-4000:]


def test_a_training_says_what_is_not_installed(lone_shell, asked_for):
    error = lone_shell.process("recsys", "train", status=1)
    assert error == "recsys: torch is not installed; trainings need it: pip install recsys\n"
