"""Sessions of an external database: read only, with a time-out, and lenient with values."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.abc import AdaptContext
from psycopg.adapt import Loader
from psycopg.pq import Format

JIT_SINCE = 11_00_00  # the version of PostgreSQL that compiles expressions


def only_read(backend: str, connection: Any, timeout_seconds: float) -> None:
    """Make a driver's new connection read only."""
    if backend == "sqlite":
        connection.isolation_level = None
        connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        connection.execute("PRAGMA query_only = ON")
        return
    milliseconds = max(1, round(timeout_seconds * 1_000))
    if backend == "postgresql":
        kinds = ["timestamptz", "timestamp", "date"]
        if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
            kinds += ["text", "varchar", "bpchar"]
        for kind in kinds:
            connection.adapters.register_loader(kind, _Lenient)
        statements = [
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET TIME ZONE 'UTC'",
            f"SET statement_timeout = {milliseconds}",
        ]
        if connection.info.server_version >= JIT_SINCE:
            statements.append("SET jit = off")  # which compiles long conditions for seconds
    else:
        mariadb = "MariaDB" in connection.get_server_info()
        limit = (
            f"SET SESSION max_statement_time = {timeout_seconds:g}"
            if mariadb
            else f"SET SESSION max_execution_time = {milliseconds}"
        )
        statements = ["SET SESSION TRANSACTION READ ONLY", "SET time_zone = '+00:00'", limit]
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()
    connection.commit()


class _Lenient(Loader):
    """psycopg's own loader of a type; text where that has no Python value, such as infinity."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        found = psycopg.adapters.get_loader(oid, Format.TEXT)
        assert found is not None
        self._inner = found(oid, context)

    def load(self, data: Any) -> Any:
        try:
            return self._inner.load(data)
        except psycopg.DataError:
            return bytes(data).decode()
        except UnicodeDecodeError:
            return bytes(data)
