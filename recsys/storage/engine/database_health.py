"""The health of a database: query plans, sizes, clock, free connections; and its planner's statistics."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, text

from recsys.storage.engine.database import Database
from recsys.storage.entities.history_rows import history_statements
from recsys.storage.schema.tables import events

NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "glusterfs", "ceph", "afs")
ANALYSED_TABLES = ("events", "items", "item_categories", "impressions", "job_runs")
SAMPLED_ROWS = 1_000  # of each index, in SQLite; PostgreSQL samples by itself


@dataclass(frozen=True)
class DatabaseSize:
    """How much a database holds."""

    bytes: int
    events: int  # PostgreSQL: as its planner estimates
    log_bytes: int  # of SQLite's write-ahead log


def unindexed(connection: Connection) -> list[str]:
    """Which statements of a request read a whole table because no index serves them."""
    postgresql = connection.dialect.name == "postgresql"
    if postgresql:  # a small table is read whole with or without one: forbid that, and see
        connection.execute(text("SET enable_seqscan = off"))
    slow = []
    for name, (statement, index) in history_statements().items():
        compiled = statement.compile(connection, compile_kwargs={"literal_binds": True})
        explain = "EXPLAIN" if postgresql else "EXPLAIN QUERY PLAN"
        plan = "\n".join(
            " ".join(map(str, row)) for row in connection.exec_driver_sql(f"{explain} {compiled}")
        )
        # PostgreSQL names the partitions' parts of an index itself.
        part = rf"events_p\d+_{name}_id_timestamp_us_id_idx\d*"
        if not re.search(rf"\b({index}|{part})\b", plan):
            slow.append(name)
    if postgresql:
        connection.execute(text("RESET enable_seqscan"))
    return slow


def clock_ahead_seconds(connection: Connection) -> float:
    """How far the database's clock is ahead of this machine's; SQLite has none of its own."""
    if connection.dialect.name != "postgresql":
        return 0.0
    before = time.time()
    there = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
    return float(there) - (before + time.time()) / 2


def newest_receipt_us(connection: Connection) -> int | None:
    """When the event with the largest id was received."""
    newest = select(events.c.received_at_us).order_by(events.c.id.desc()).limit(1)
    return connection.execute(newest).scalar_one_or_none()


def size(database: Database, connection: Connection) -> DatabaseSize:
    """Sizes that take no count over a table."""
    if database.dialect == "postgresql":
        held = text("SELECT pg_database_size(current_database())")
        estimate = text(
            "SELECT coalesce(sum(greatest(reltuples, 0)), 0) FROM pg_inherits "
            "JOIN pg_class ON oid = inhrelid WHERE inhparent = 'events'::regclass"
        )
        return DatabaseSize(
            int(connection.execute(held).scalar_one()),
            max(0, int(connection.execute(estimate).scalar_one())),
            0,
        )
    largest = connection.execute(select(func.max(events.c.id))).scalar_one()
    smallest = connection.execute(select(func.min(events.c.id))).scalar_one()
    file = database.file
    log = Path(f"{file}-wal") if file is not None else None
    return DatabaseSize(
        file.stat().st_size if file is not None else 0,
        0 if largest is None or smallest is None else int(largest) - int(smallest) + 1,
        log.stat().st_size if log is not None and log.exists() else 0,
    )


def connections_left(connection: Connection) -> tuple[int, int] | None:
    """Connections that PostgreSQL could still take, and how many in all; None for SQLite."""
    if connection.dialect.name != "postgresql":
        return None
    used = connection.execute(text("SELECT count(*) FROM pg_stat_activity")).scalar_one()
    most = connection.execute(text("SELECT current_setting('max_connections')")).scalar_one()
    return int(most) - int(used), int(most)


def network_file_system(path: Path) -> str | None:
    """The kind of a network's file system that `path` lies on: SQLite's locks do not hold there."""
    best, kind = "", ""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mounted, found, *_ = line.split()
        inside = path.resolve().is_relative_to(mounted.replace("\\040", " "))
        if inside and len(mounted) >= len(best):
            best, kind = mounted, found
    return kind if kind.startswith(NETWORK_FILE_SYSTEMS) else None


def analyse(database: Database) -> dict[str, Any]:
    """Refresh the planner's statistics of the tables that requests read.

    Writers wait for one table's sample at most.
    """
    for table in ANALYSED_TABLES:
        with database.begin() as connection:
            if database.dialect == "sqlite":
                connection.execute(text(f"PRAGMA analysis_limit={SAMPLED_ROWS}"))
            connection.execute(text(f"ANALYZE {table}"))
    return {"tables": len(ANALYSED_TABLES)}
