"""What docs/security.md says holds, where no other test has it."""

import contextlib
import os
import re
import subprocess
import sys
import time
import uuid
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from flask import request
from sqlalchemy import make_url
from sqlalchemy.exc import IntegrityError

from recsys.config import Settings
from recsys.storage.engine.database import Database
from recsys.storage.entities import job_rows, key_rows
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import items
from recsys.web.app import create_app


def run_script(script, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WITHOUT_PICKLE = """
import _pickle, io, pickle, sys
from datetime import UTC, datetime
from pathlib import Path

def from_numba():
    "Compiled loops are numba's own files, which docs/security.md says are trusted."
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("numba."):
            return True
        frame = frame.f_back
    return False

def watch(event, details):
    if event == "pickle.find_class" and not from_numba():
        raise RuntimeError("unpickled %s.%s" % tuple(details))

def refusing(real):
    def load(*arguments, **more):
        if not from_numba():
            raise RuntimeError("unpickled")
        return real(*arguments, **more)
    return load

own = pickle.dumps(datetime(2025, 1, 1))
real_loads, real_load = _pickle.loads, pickle._Unpickler.load
sys.addaudithook(watch)
for module in (pickle, _pickle):  # numbers and texts alone would pass by the hook
    module.load, module.loads = refusing(module.load), refusing(module.loads)
pickle._Unpickler.load = refusing(pickle._Unpickler.load)

def refused(unpickle):
    try:
        unpickle()
    except RuntimeError as error:
        return str(error).startswith("unpickled")
    return False

import torch
watched = [
    refused(lambda: real_loads(own)),
    refused(lambda: _pickle.Unpickler(io.BytesIO(own)).load()),
    refused(lambda: real_load(pickle._Unpickler(io.BytesIO(own)))),
    refused(lambda: pickle.loads(pickle.dumps(1))),
    refused(lambda: torch.load(sys.argv[3], weights_only=False)),
]
print("watched", watched)

from recsys import pipeline
from recsys.ops.backup import make_backup, restore_backup
from recsys.config import load_settings
from recsys.ingest.event_files import ReadOptions
from recsys.storage.engine.database import Database, open_database
from recsys.training.run import Run
from recsys.web.app import create_app

NOW = datetime(2025, 3, 1, tzinfo=UTC)
settings = load_settings()
database = open_database(settings)
pipeline.import_events(database, Path(sys.argv[1]), ReadOptions(), NOW)

class Killed(Exception):
    pass

epochs = []
def note(progress):
    epochs.append(progress.epoch)
    if progress.epoch > 1 and len(epochs) == epochs.count(1) + 1:
        raise Killed

try:
    pipeline.train(settings, database, Run(NOW, on_progress=note), force=True)
except Killed:
    print("killed in epoch", epochs[-1])
epochs.clear()
trained = pipeline.train(
    settings, database, Run(NOW, on_progress=lambda at: epochs.append(at.epoch)), force=True
)
print("went on in epoch", epochs[0], "and promoted", trained.promoted)
said = []
pipeline.events_so_far(settings, database, NOW, said.append)
print("files", len(list((settings.registry.path / ".sequences").glob("segment-*"))), said)

def answer():
    app = create_app(settings, open_database(settings))
    path = "/api/v1/users/shopper-000001/recommendations"
    found = app.test_client().get(path).get_json()
    app.extensions["recsys"].close()
    return found["model_version"] == trained.version and {one["source"] for one in found["items"]}

print("served", answer())
path, _ = make_backup(settings, database, Path(sys.argv[2]), NOW)
restore_backup(settings, database, path, NOW, replace=True)
print("restored", answer())
"""


@pytest.mark.slow
def test_nothing_is_ever_unpickled(tmp_path, tiny_shop):
    """Importing, training, going on from a checkpoint, sequence files, serving, backup and restore."""
    with contextlib.closing(Database(f"sqlite:///{tmp_path}/x.db")) as database:
        migrate.upgrade(database)
    pq.write_table(tiny_shop.events, tmp_path / "events.parquet")
    torch.save({"a": datetime(2025, 1, 1)}, tmp_path / "foreign.pt")
    chosen = {
        "DATABASE__URL": f"sqlite:///{tmp_path}/x.db", "REGISTRY__PATH": str(tmp_path / "models"),
        "AUTH__ENABLED": "false", "MODEL__WIDTH": "16", "TRAINING__EPOCHS": "2",
        "TRAINING__BATCH_EVENTS": "128", "TRAINING__THREADS": "1", "TRAINING__REFIT": "false",
        "SEQUENCES__TARGET_EVENT_TYPES": '["view"]', "SEQUENCES__INPUT_EVENT_TYPES": '["view"]',
        "EVALUATION__BOOTSTRAP_DRAWS": "100", "PROMOTION__MIN_POSITIONS": "50",
    }  # fmt: skip
    files = [tmp_path / name for name in ("events.parquet", "backup.zip", "foreign.pt")]
    told = run_script(WITHOUT_PICKLE, *files, **{f"RECSYS_{k}": v for k, v in chosen.items()})
    lines = dict(line.split(" ", 1) for line in told.splitlines())
    assert lines["watched"] == str([True] * 5)
    assert lines["killed"] == "in epoch 2"
    assert lines["went"] == "on in epoch 2 and promoted True"
    assert int(lines["files"].split()[0]) > 0
    assert "transitions" in lines["served"] or "lstm" in lines["served"]
    assert lines["restored"] == lines["served"]


ANSWER = """
import sys
from pathlib import Path
from recsys.config import Settings
from recsys.storage.engine.database import Database
from recsys.web.app import create_app

seen = []
WATCHED = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec")
sys.addaudithook(lambda event, details: seen.append(event) if event in WATCHED else None)
settings = Settings(registry={"path": Path(sys.argv[2])}, auth={"enabled": False})
app = create_app(settings, Database(sys.argv[1]))
client = app.test_client()
event = {"user_id": "u", "item_id": "P0001"}
assert client.post("/api/v1/events", json=event).status_code == 200
for path in ("/api/v1/users/u/recommendations", "/docs", "/openapi.json", "/metrics",
             "/health/ready", "/api/v1/items", "/api/v1/models", "/api/v1/jobs"):
    assert client.get(path).status_code == 200, path
app.extensions["recsys"].impressions.close()
print("seen", seen)
"""


def test_answering_connects_to_nobody_but_the_database(tmp_path, tiny_shop, publish):
    url = f"sqlite:///{tmp_path}/recsys.db"
    with contextlib.closing(Database(url)) as database:
        migrate.upgrade(database)
        publish(tiny_shop, database, tmp_path / "models")
    assert "seen []" in run_script(ANSWER, url, tmp_path / "models")


def test_every_answer_has_its_headers(bare):
    for path in ("/api/v1/items", "/nothing", "/docs", "/health/live", "/metrics"):
        answer = bare.client.get(path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff", path
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"]
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert "default-src 'none'" in bare.client.get("/docs").headers["Content-Security-Policy"]


def test_an_unforeseen_error_tells_nothing(tmp_path, capsys):
    """Nor does the log tell what variables held, also under a server that sets no logging up."""
    with contextlib.closing(Database(f"sqlite:///{tmp_path}/x.db")) as database:
        app = create_app(Settings(), database)

        @app.post("/broken")
        def broken():
            body = request.get_data(as_text=True)
            raise ValueError("secret of /etc/passwd: SELECT * FROM api_keys", len(body))

        answer = app.test_client().post(
            "/broken", data="hidden-body", headers={"X-API-Key": "hidden-key"}
        )
        app.extensions["recsys"].impressions.close()
    logged = "".join(capsys.readouterr())
    assert "ValueError" in logged and "in broken" in logged
    assert "hidden" not in logged
    assert answer.status_code == 500
    text = answer.get_data(as_text=True)
    for leak in ("secret", "/etc", "SELECT", "Traceback", "ValueError"):
        assert leak not in text


def test_an_error_of_the_database_holds_no_value(database):
    row = {"item_id": "hidden-value", "title": "other-value", "created_at_us": 1}
    row |= {"updated_at_us": 1}
    with database.begin() as connection:
        connection.execute(items.insert(), row)
    with pytest.raises(IntegrityError) as caught, database.begin() as connection:
        connection.execute(items.insert(), row)
    assert "other-value" not in str(caught.value)


def test_no_log_holds_a_secret(tmp_path, postgres_server):
    """A server with a password in its address, a request with a key, and a database that is away."""
    secret = "hunter2hunter2"
    url = re.sub(r"//([^@/]*)@", f"//postgres:{secret}@", postgres_server)
    with contextlib.closing(Database(f"sqlite:///{tmp_path}/x.db")) as database:
        migrate.upgrade(database)
        with database.begin() as connection:
            key = key_rows.create_key(connection, "k", ["admin"], 1)
    script = (
        "import sys\n"
        "from recsys.config import load_settings\n"
        "from recsys.cli.terminal import set_up_logging\n"
        "from recsys.storage.engine.database import open_database\n"
        "from recsys.web.app import create_app\n"
        "settings = load_settings()\n"
        "set_up_logging(settings)\n"
        "app = create_app(settings, open_database(settings))\n"
        "client = app.test_client()\n"
        "for path in ('/api/v1/items', '/health/ready', '/api/v1/users/u/recommendations'):\n"
        "    client.get(path, headers={'X-API-Key': sys.stdin.readline().strip() or 'rk_x'})\n"
        "app.extensions['recsys'].impressions.close()\n"
    )
    away = re.sub(r":\d+/", ":1/", url)
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=f"{key}\n" * 3,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "RECSYS_DATABASE__URL": away, "RECSYS_LOGGING__LEVEL": "debug"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "request" in done.stderr
    for word in (secret, key, key.split("_", 2)[2]):
        assert word not in done.stderr + done.stdout


@pytest.fixture
def address_with_password(database_url):
    """The database's address, of a role that has a password."""
    server, name, secret = make_url(database_url), f"r_{uuid.uuid4().hex}", uuid.uuid4().hex
    with contextlib.closing(Database(database_url)) as database:
        with database.begin() as connection:
            role = f"CREATE ROLE {name} LOGIN PASSWORD '{secret}' IN ROLE \"{server.username}\""
            connection.exec_driver_sql(role)
        chosen = server.set(username=name, password=secret)
        yield chosen.render_as_string(hide_password=False), secret
        with database.begin() as connection:
            connection.exec_driver_sql(f"DROP ROLE {name}")


def command_lines(pid):
    """Of a process and all below it, as `ps` shows them."""
    with contextlib.suppress(OSError):  # gone meanwhile
        yield Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from command_lines(child)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_no_process_list_holds_a_secret(database_url, address_with_password, tmp_path):
    """Of the server, its workers, the scheduler and a run's own process."""
    address, secret = address_with_password
    environment = {**os.environ, "RECSYS_DATABASE__URL": address, "RECSYS_SERVING__PORT": "0"}
    environment |= {"RECSYS_REGISTRY__PATH": str(tmp_path), "RECSYS_SERVING__WORKERS": "2"}
    with contextlib.closing(Database(database_url)) as database, database.begin() as connection:
        job_rows.request_run(connection, "refresh", "cli", 1)
    seen = {"serve": 0, "schedule": 0, "jobs run": 0}
    wanted = {"serve": 3, "schedule": 1, "jobs run": 1}
    with contextlib.ExitStack() as stack:
        started = []
        for command in ("serve", "schedule"):
            program = [sys.executable, "-m", "recsys", command]
            started.append(subprocess.Popen(program, env=environment, cwd=tmp_path))
            stack.callback(started[-1].wait, 60)
            stack.callback(started[-1].terminate)
        end = time.monotonic() + 60
        while any(seen[name] < wanted[name] for name in wanted) and time.monotonic() < end:
            lines = [line for one in started for line in command_lines(one.pid)]
            assert not [line for line in lines if secret in line]
            for name in seen:
                now = sum(re.search(rf"-m (recsys )?{name}\b", line) is not None for line in lines)
                seen[name] = max(seen[name], now)
            time.sleep(0.05)
    assert all(seen[name] >= wanted[name] for name in wanted), seen


def test_a_path_that_a_proxy_would_not_know_leads_nowhere(bare):
    """A rule for /metrics or /admin is of that very text."""
    assert bare.client.get("/metrics").status_code == 200
    for path in (
        "//metrics",
        "///metrics",
        "/%6detrics",
        "/metric%73",
        "//admin/login",
        "/%61dmin/",
    ):
        # As a server has it: of an address that begins with two slashes the test client makes a host.
        with_proxy = {"PATH_INFO": path, "RAW_URI": path, "REQUEST_URI": path}
        assert bare.client.get("/", environ_overrides=with_proxy).status_code == 404, path
    assert (
        bare.client.get("/api/v1/items/a%2Fb", headers={"X-API-Key": bare.keys["read"]}).status_code
        == 404
    )
