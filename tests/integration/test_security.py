"""What docs/security.md says holds, where no other test has it."""

import ast
import contextlib
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from flask import request
from sqlalchemy.exc import IntegrityError

from recsys.bench.servers import running
from recsys.config import Settings
from recsys.registry import write_version
from recsys.storage import key_rows, migrate
from recsys.storage.database import Database
from recsys.storage.tables import items
from recsys.web.app import create_app

ROOT = Path(__file__).parents[2]


def run_script(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


READ_MODEL = """
import pickle, sys
from pathlib import Path
import recsys.registry as registry
import recsys.serving.ranking

def refuse(*_, **__):
    raise RuntimeError("unpickled")

def watch(event, details):
    if event == "pickle.find_class":
        refuse()

sys.addaudithook(watch)
class Refusing(pickle._Unpickler):
    load = refuse

pickle.load = pickle.loads = refuse
pickle.Unpickler = Refusing
bundle = registry.read_version(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
print(bundle.version, sorted(bundle.rankers))
try:
    pickle.loads(b"")
except RuntimeError:
    print("watched")
"""


def test_reading_a_model_never_unpickles(tmp_path, tiny_shop):
    digest, _ = write_version(tmp_path, tiny_shop.bundle)
    out = run_script(READ_MODEL, tmp_path, tiny_shop.bundle.version, digest)
    assert tiny_shop.bundle.version in out
    assert "watched" in out


ANSWER = """
import sys
from pathlib import Path
from recsys.config import Settings
from recsys.storage.database import Database
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


def test_neither_log_nor_process_list_holds_a_secret(tmp_path, postgres_server):
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
        "from recsys.cli.common import set_up_logging\n"
        "from recsys.storage.database import open_database\n"
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
    for word in (secret, key, key.split("_")[2]):
        assert word not in done.stderr + done.stdout
    with running(f"sqlite:///{tmp_path}/x.db", tmp_path, workers=1) as (port, process):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live").close()
        for entry in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            assert b"sqlite" not in Path(f"/proc/{entry}/cmdline").read_bytes()


def test_sql_is_put_together_from_names_of_this_project_alone():
    """Where a statement is made of parts, each part is a constant, a column's or a table's name."""
    allowed = {
        "table", "columns", "where", "order", "since_us", "BUSY_MS", "pragma", "marks", "names",
        "keys", "listed", "explain", "compiled", "int", "ids", "escaped", "query", "settings",
    }  # fmt: skip
    found = 0
    for path in (ROOT / "recsys" / "storage").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.JoinedStr):
                continue
            text = "".join(part.value for part in node.values if isinstance(part, ast.Constant))
            if not re.match(
                r"\s*(SELECT|INSERT|UPDATE|DELETE|COPY|TRUNCATE|ANALYZE|PRAGMA)\b", text
            ):
                continue
            found += 1
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    names = {n.id for n in ast.walk(part.value) if isinstance(n, ast.Name)}
                    odd = {name for name in names if not name.isupper()} - allowed
                    assert not odd, f"{path.name}: {ast.unparse(part.value)}"
    assert found > 5
