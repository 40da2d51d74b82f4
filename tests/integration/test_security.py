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


# Calls that take SQL: whether it is always a text. The others take statements of SQLAlchemy too, whose
# values are bound.
TAKES_SQL = {
    "text": True, "exec_driver_sql": True, "literal_column": True, "DDL": True, "copy": True,
    "executemany": True, "executescript": True, "read_sql": True, "execute": False,
}  # fmt: skip
# Each text of SQL that is not a constant, as its source has it; what it is made of was looked at.
REVIEWED = {
    # A name, a type, a pragma or a number of this project's own, or of its tables.
    "recsys/storage/condition.py": {"f'{explain} {compiled}'"},
    "recsys/storage/database.py": {"f'PRAGMA {pragma}'", "text"},  # text: a compiled statement
    "recsys/storage/event_import.py": {
        "f'INSERT INTO staged_events VALUES ({marks})'", "_STAGING.format(float=floating)", "_MOVE",
    },
    "recsys/storage/event_reading.py": {"f'SELECT {columns} FROM events{where}{order}'", "query"},
    "recsys/storage/source_database.py": {
        "f'PRAGMA {pragma}'", "f'SET LOCAL statement_timeout = {self._count_ms}'", "statement",
        "query",  # compiled by mapping.py
    },
    "recsys/storage/table_copy.py": {
        "_select(table)", "f'TRUNCATE {listed}'",
        "f'INSERT INTO \"{table.name}\" ({names}) VALUES ({marks})'",
        "f'COPY \"{table.name}\" ({names}) FROM STDIN (FORMAT csv)'",
    },
    "recsys/storage/upkeep.py": {"f'ANALYZE {table}'"},
    "migrations/versions/0002_answers_and_erasure.py": {"f'{name} IS NOT NULL'"},
    "migrations/versions/0005_events_by_bucket.py": {
        "f'ALTER SEQUENCE {owned} RENAME TO events_moving_id_seq'",
        "f'ALTER TABLE events ADD CONSTRAINT pk_events PRIMARY KEY ({key})'",
        "f'CREATE INDEX ix_events_{name} ON events ({name}_id, timestamp_us, id) "
        "WHERE {name}_id IS NOT NULL'",
        "f'CREATE TABLE events_p{number} PARTITION OF events FOR VALUES FROM ({first}) TO ({end})'",
    },
    # What the configuration says: trusted, run in a read-only transaction.
    "recsys/storage/mapped_items.py": {
        "f'SELECT * FROM ({escaped(query)}) AS q LIMIT 0'", "escaped(query)",
    },
    "recsys/storage/reflection.py": {"f'SELECT * FROM ({escaped(settings.query)}) AS q LIMIT 0'"},
    "recsys/storage/mapping.py": {
        "escaped(self.query)", "f'({self.where})'",
        # Where a chunk of the configured table begins and ends: numbers, times, and texts quoted here.
        "str(int(str(value)))", "str(Decimal(str(value)))", "repr(float(str(value)))",
        "f\"'{quoted}'\"", "f\"'{value.isoformat()}'\"",
        "f\"TIMESTAMPTZ '{value.astimezone(UTC).isoformat(sep=' ')}'\"",
        "f\"{word}'{naive.isoformat(sep=' ')}'\"",
    },
}  # fmt: skip


def is_constant(node, known):
    """Whether an expression is made of constants, and of names that are `known` to stand for some."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name in known
        case ast.JoinedStr(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts):
            return all(is_constant(part, known) for part in parts)
        case ast.FormattedValue(value=part):
            return is_constant(part, known)
        case ast.BinOp(left=left, right=right) | ast.IfExp(body=left, orelse=right):
            return is_constant(left, known) and is_constant(right, known)
        case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=parts):
            return all(is_constant(part, known) for part in parts)
    return False


def constants_of(module):
    """Names of a module that stand for constants."""
    known = set()
    for node in module.body:
        if isinstance(node, ast.Assign) and is_constant(node.value, known):
            known |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return known


def given_to(name, function):
    """What a function's own variable is set to."""
    for node in ast.walk(function):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AugAssign) and name in map(ast.unparse, targets):
            yield node.value


def sql_not_constant(source):
    """The SQL that is not a constant, as the source has it; of a variable, what it was set to."""
    module = ast.parse(source)
    known = constants_of(module)
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    for scope in (*functions, module):
        for call in ast.walk(scope):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            called, sql = ast.unparse(call.func), call.args[0]
            name = called.rpartition(".")[2]
            strict = TAKES_SQL.get(name, False) or called == "cursor.execute"  # of the driver
            made = isinstance(sql, ast.JoinedStr | ast.BinOp) or (
                isinstance(sql, ast.Call) and ast.unparse(sql.func).endswith(".format")
            )
            if name not in TAKES_SQL or not (strict or made):
                continue
            values = list(given_to(sql.id, scope)) if isinstance(sql, ast.Name) else []
            if scope is module and isinstance(sql, ast.Name):
                continue  # looked at in its function
            yield from (ast.unparse(v) for v in values or [sql] if not is_constant(v, known))


def test_sql_is_put_together_from_names_of_this_project_alone():
    """Every text of SQL is a constant, or stands in the list of those that have been looked at."""
    found, files = {}, 0
    for folder in ("recsys", "jobs", "migrations"):
        for path in (ROOT / folder).rglob("*.py"):
            source = path.read_text()
            if "bench" in path.parts or not re.search(r"sqlalchemy|sqlite3|psycopg", source):
                continue
            files += 1
            texts = {re.sub(r"\s*\\n\s*", " ", sql) for sql in sql_not_constant(source)}
            if texts:
                found[str(path.relative_to(ROOT))] = texts
    assert files > 40
    assert found == REVIEWED


@pytest.mark.parametrize(
    "line",
    [
        'connection.execute(text("SELECT " + where))',
        'query = f"SELECT * FROM events WHERE user_id = {user_id}"; connection.execute(text(query))',
        'connection.exec_driver_sql("SELECT {}".format(ids))',
        "cursor.execute(\"DELETE FROM events WHERE item_id = '%s'\" % item_id)",
        'connection.execute("WITH x AS (SELECT 1) " + order)',
        "connection.execute(sa.text(query))",
        "cursor.execute(query)",
    ],
)
def test_sql_made_of_a_value_is_seen(line):
    assert list(sql_not_constant(f"def look(connection, cursor):\n    {line}"))
    assert not list(sql_not_constant("def look(c):\n    q = 'SELECT 1'\n    c.execute(text(q))"))
