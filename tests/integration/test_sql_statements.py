"""SQL is put together from names of this project alone."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Calls that take SQL: whether it is always a text. The others take statements of SQLAlchemy too, whose
# values are bound.
TAKES_SQL = {
    "text": True, "exec_driver_sql": True, "literal_column": True, "DDL": True, "copy": True,
    "executemany": True, "executescript": True, "read_sql": True, "execute": False,
}  # fmt: skip
# Each text of SQL that is not a constant, as its source has it; what it is made of was looked at.
REVIEWED = {
    # A name, a type, a pragma or a number of this project's own, or of its tables.
    "recsys/storage/engine/database_health.py": {"f'ANALYZE {table}'", "f'{explain} {compiled}'"},
    "recsys/storage/engine/database.py": {"f'PRAGMA {pragma}'"},
    "recsys/storage/engine/short_selects.py": {"text"},  # a compiled statement
    "recsys/storage/entities/event_import.py": {
        "f'INSERT INTO staged_events VALUES ({marks})'", "_STAGING.format(float=floating)", "_MOVE",
        "_NUMBER",
    },
    "recsys/storage/entities/event_rows.py": {"_IN_SQLITE", "_IN_POSTGRESQL"},
    "recsys/storage/entities/feedback_rows.py": {"FEEDBACK"},  # a partial index's condition
    "recsys/storage/entities/feedback_views.py": {"FEEDBACK"},
    "recsys/storage/entities/event_batches.py": {"f'SELECT {columns} FROM events{where}{order}'", "query"},
    "recsys/storage/external/external_database.py": {
        "f'SET LOCAL statement_timeout = {self._count_ms}'",
        "query",  # compiled by mapping.py
    },
    "recsys/storage/external/source_sessions.py": {"statement"},
    "recsys/storage/schema/table_copy.py": {
        "_select(table)", "f'TRUNCATE {listed}'",
        "f'INSERT INTO \"{table.name}\" ({names}) VALUES ({marks})'",
        "f'COPY \"{table.name}\" ({names}) FROM STDIN (FORMAT csv)'",
    },
    "migrations/versions/0002_answers_and_erasure.py": {"f'{name} IS NOT NULL'"},
    "migrations/versions/0005_events_by_bucket.py": {
        "f'ALTER SEQUENCE {owned} RENAME TO events_moving_id_seq'",
        "f'ALTER TABLE events ADD CONSTRAINT pk_events PRIMARY KEY ({key})'",
        "f'CREATE INDEX ix_events_{name} ON events ({name}_id, timestamp_us, id) "
        "WHERE {name}_id IS NOT NULL'",
        "f'CREATE TABLE events_p{number} PARTITION OF events FOR VALUES FROM ({first}) TO ({end})'",
    },
    "migrations/versions/0008_identity_and_imports.py": {
        "f' CREATE TABLE events_moving ( id {row_number}, user_bucket SMALLINT NOT NULL, user_id TEXT, "
        "session_id TEXT, item_id TEXT NOT NULL, event_type TEXT NOT NULL, timestamp_us BIGINT NOT NULL, "
        "event_id TEXT NOT NULL, value FLOAT, recommendation_id TEXT, properties TEXT, "
        "received_at_us BIGINT NOT NULL, {last}, CONSTRAINT ck_events_has_owner CHECK (user_id IS NOT "
        "NULL OR session_id IS NOT NULL) ) '",
        "f'CREATE INDEX ix_events_{name} ON events ({name}_id, timestamp_us, id) "
        "WHERE {name}_id IS NOT NULL'",
    },
    # Numbers of rows.
    # The condition of a partial index: a column of this project's.
    "migrations/versions/0015_answers_by_owner_and_time.py": {"f'{owner} IS NOT NULL'"},
    "recsys/storage/entities/live_events.py": {"str(rows)"},
    "recsys/storage/external/external_following.py": {"str(self._rows)"},
    # What the configuration says: trusted, run in a read-only transaction.
    "recsys/storage/external/queried_rows.py": {
        "f'SELECT * FROM ({escaped(query)}) AS q LIMIT 0'", "escaped(query)",
    },
    "recsys/storage/external/mapping_resolution.py": {"f'SELECT * FROM ({escaped(settings.query)}) AS q LIMIT 0'"},
    "recsys/storage/external/mapping.py": {
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
