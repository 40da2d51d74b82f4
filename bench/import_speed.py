"""bench ingest: our import beside the database's own bulk path into the same indexed table."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from recsys.demo.simulation import Shop, ShopSize
from recsys.events.fields import EVENT_COLUMNS
from recsys.events.identity import content_hashes, user_bucket
from recsys.ingest.event_files import ReadOptions, read_events
from recsys.storage.engine.database import Database
from recsys.storage.entities.event_import import import_chunks
from recsys.storage.schema import migrate

COLUMNS = ", ".join(["user_bucket", *EVENT_COLUMNS, "received_at_us"])


def write_log(path: Path, events: int, seed: int, end_us: int) -> int:
    """A simulated log as Parquet, streamed; its rows."""
    shop = Shop(ShopSize(2_000, max(10, events // 20), events), seed, end_us)
    rows = 0
    writer = None
    for table in shop.events():
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        rows += table.num_rows
    if writer is not None:
        writer.close()
    return rows


def run_ingest(events: int, seed: int, now_us: int, postgresql_url: str | None) -> dict[str, Any]:
    """Rates on a fresh SQLite file, and on PostgreSQL in a schema of its own where a url is given."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        rows = write_log(path, events, seed, now_us)
        sqlite = Database(f"sqlite:///{folder}/bench.db")
        result: dict[str, Any] = {"events": rows, "sqlite": _measure(sqlite, path, rows, now_us)}
        result["postgresql"] = None
        if postgresql_url:
            database = Database(postgresql_url)
            result["postgresql"] = _measure(database, path, rows, now_us)
    return result


def _measure(database: Database, path: Path, rows: int, now_us: int) -> dict[str, float]:
    ready = payload_of(database, finished_rows(path, now_us))
    empty_tables(database)
    started = time.perf_counter()
    insert_bare(database, ready)
    bulk_seconds = time.perf_counter() - started
    ready.clear()
    empty_tables(database)
    started = time.perf_counter()
    summary = import_chunks(database, read_events(path, ReadOptions(), now_us), path.name, now_us)
    seconds = time.perf_counter() - started
    assert summary.accepted == rows, summary
    migrate.downgrade(database, "base")
    database.close()
    return {
        "events_per_second": round(rows / seconds),
        "bulk_events_per_second": round(rows / bulk_seconds),
        "ratio": round(bulk_seconds / seconds, 3),
    }


def empty_tables(database: Database) -> None:
    """Every table anew, without a row."""
    if migrate.current(database) is not None:
        migrate.downgrade(database, "base")
    migrate.upgrade(database)


def finished_rows(path: Path, now_us: int) -> Iterator[pa.Table]:
    """Finished rows, bucket and event id included."""
    for chunk in read_events(path, ReadOptions(), now_us):
        events = chunk.events
        if events.num_rows:
            users = events["user_id"].combine_chunks().dictionary_encode()
            buckets = pa.array([user_bucket(u) for u in users.dictionary.to_pylist()], pa.int16())
            hashes = content_hashes(events)
            ids = [f"{h}-{p}" for h, p in zip(hashes, events["position"].to_pylist(), strict=True)]
            columns = [buckets.take(users.indices)]
            names = [name for name in events.schema.names if name not in ("position", "event_id")]
            table = pa.table(
                [columns[0], *(events[name] for name in names)], ["user_bucket", *names]
            )
            table = table.append_column("event_id", pa.array(ids))
            table = table.append_column("received_at_us", pa.array([now_us] * len(ids)))
            yield table.select(COLUMNS.split(", "))


def payload_of(database: Database, tables: Iterable[pa.Table]) -> list[Any]:
    """What the bulk path is fed with: CSV text for COPY, tuples for executemany."""
    payload: list[Any] = []
    for table in tables:
        if database.dialect == "postgresql":
            buffer = io.BytesIO()
            pa_csv.write_csv(table, buffer, pa_csv.WriteOptions(include_header=False))
            payload.append(buffer.getvalue())
        else:
            payload += zip(*(column.to_pylist() for column in table.columns), strict=True)
    return payload


def insert_bare(database: Database, payload: list[Any]) -> None:
    """COPY, or one transaction of executemany, of rows that are ready."""
    with database.begin() as connection:
        cursor = connection.connection.cursor()
        if database.dialect == "postgresql":
            with cursor.copy(f"COPY events ({COLUMNS}) FROM STDIN (FORMAT csv)") as copy:
                for part in payload:
                    copy.write(part)
        else:
            marks = ", ".join("?" * len(COLUMNS.split(", ")))
            cursor.executemany(f"INSERT INTO events ({COLUMNS}) VALUES ({marks})", payload)  # noqa: S608
