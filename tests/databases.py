"""Databases for tests, ready in milliseconds: a migrated SQLite file is copied, and PostgreSQL databases are
emptied and used again. One whose schema, rights or settings a test has changed is dropped instead.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from recsys.storage.engine.database import Database
from recsys.storage.schema import migrate

LARGE_BYTES = 16 * 2**20  # a table of more is dropped with its database: its dead rows would stay

# What a test can change of a database beside rows, as one text.
SCHEMA = """
SELECT md5(concat(
  (SELECT string_agg(concat_ws(' ', oid, relname, relnatts, relacl), ',' ORDER BY oid) FROM pg_class
   WHERE oid >= 16384 AND relkind <> 't'),
  (SELECT string_agg(concat_ws(' ', attrelid, attname, atttypid, attnotnull, attacl), ','
   ORDER BY attrelid, attnum) FROM pg_attribute WHERE attrelid >= 16384),
  (SELECT string_agg(concat_ws(' ', oid, conname), ',' ORDER BY oid) FROM pg_constraint),
  (SELECT string_agg(concat_ws(' ', oid, tgname, tgenabled), ',' ORDER BY oid) FROM pg_trigger),
  (SELECT string_agg(concat_ws(' ', oid, nspname, nspacl), ',' ORDER BY oid) FROM pg_namespace),
  (SELECT string_agg(extname, ',' ORDER BY extname) FROM pg_extension),
  (SELECT count(*) FROM pg_proc),
  (SELECT count(*) FROM pg_db_role_setting WHERE setdatabase =
   (SELECT oid FROM pg_database WHERE datname = current_database()))
))"""
TABLES = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
)
SEQUENCES = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'"
LARGEST = """SELECT coalesce(max(pg_relation_size(oid)), 0) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""


def address_of(server: str, name: str) -> str:
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def _connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True)


def _new_name(kind: str) -> str:
    return f"recsys_{kind}{uuid.uuid4().hex[:12]}"


class PostgresDatabases:
    """Migrated databases of one server."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._template = _new_name("template_")
        self._free: list[str] = []
        self._admin = _connect(server)
        self._run("CREATE DATABASE {}", self._template)
        database = Database(address_of(server, self._template))
        migrate.upgrade(database)
        database.close()
        with _connect(address_of(server, self._template)) as connection:
            self._schema = connection.execute(SCHEMA).fetchone()
            self._emptying = _emptying(connection)

    def _run(self, statement: str, *names: str) -> None:
        self._admin.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    @contextmanager
    def lent(self) -> Iterator[str]:
        """Address of a database that is as migrated."""
        name = self._free.pop() if self._free else self._made()
        try:
            yield address_of(self._server, name)
        finally:
            self._take_back(name)

    def _made(self) -> str:
        name = _new_name("")
        self._run("CREATE DATABASE {} TEMPLATE {}", name, self._template)
        return name

    def _take_back(self, name: str) -> None:
        """Whoever is still connected is cut off, and does not find it again under its next name."""
        found = self._admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if found.fetchone() is None:
            return
        renamed = _new_name("")
        try:
            self._admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
                (name,),
            )
            self._run("ALTER DATABASE {} RENAME TO {}", name, renamed)
        except psycopg.Error:  # someone came in between
            self._run("DROP DATABASE {} WITH (FORCE)", name)
            return
        if self._emptied(renamed):
            self._free.append(renamed)
        else:
            self._run("DROP DATABASE {} WITH (FORCE)", renamed)

    def _emptied(self, name: str) -> bool:
        try:
            with _connect(address_of(self._server, name)) as connection:
                largest = connection.execute(LARGEST).fetchone()
                changed = connection.execute(SCHEMA).fetchone() != self._schema
                if changed or largest is None or largest[0] > LARGE_BYTES:
                    return False
                connection.execute(self._emptying)
        except psycopg.Error:
            return False
        return True

    def close(self) -> None:
        for name in (*self._free, self._template):
            self._run("DROP DATABASE {} WITH (FORCE)", name)
        self._admin.close()


def _emptying(connection: psycopg.Connection[Any]) -> sql.Composed:
    """Statements that bring rows and sequences to what they are now: few rows, of a migrated database."""
    parts: list[sql.Composable] = [sql.SQL("SET session_replication_role = replica")]
    for (table,) in connection.execute(TABLES).fetchall():
        named = sql.Identifier(table)
        parts.append(sql.SQL("DELETE FROM {}").format(named))
        rows = connection.execute(sql.SQL("SELECT to_jsonb(t) FROM {} t").format(named)).fetchall()
        for (row,) in rows:
            put = "INSERT INTO {} OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_record(NULL::{}, {})"
            value = sql.Literal(psycopg.types.json.Jsonb(row))
            parts.append(sql.SQL(put).format(named, named, value))
    for (name,) in connection.execute(SEQUENCES).fetchall():
        at = connection.execute(
            sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(name))
        ).fetchone()
        assert at is not None
        parts.append(sql.SQL("SELECT setval({}, {}, {})").format(name, *at))
    return sql.SQL("; ").join(parts)
