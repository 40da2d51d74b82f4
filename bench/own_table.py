"""bench table: a PostgreSQL table with foreign names -> the dry run, sequence files, request-time reads.

Everything that reads is a child, so that its peak is its own. Rates stand beside a bare read of the
same columns in the same run.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from bench.sequence_building import costs, train_once
from recsys.config import Settings
from recsys.demo.simulation import Shop, ShopSize
from recsys.events.identity import Owner
from recsys.storage.engine.database import Database
from recsys.storage.schema import migrate

TABLE = "bench_page_views"
SHARD_EVENTS = 1_000_000  # simulated together; users of two shards differ
PRODUCTS = 20_000
HISTORIES = 300  # users asked for at random
DAYS = 42


def run_own_table(
    events: int, seed: int, now_us: int, url: str, train: bool = False
) -> dict[str, Any]:
    """Everything once on a table of about `events` rows, then again with 1% more."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(url)
        started = time.perf_counter()
        rows = _make(database, events, seed, now_us)
        made_seconds = time.perf_counter() - started
        raw = _child("raw", url, folder)
        built = _child("build", url, folder)
        check = _child("check", url, folder)
        nothing_new = _child("build", url, folder)
        _add(database, max(1_000, events // 100), seed + 1_000_000, now_us, rows)
        more = _child("build", url, folder)
        history = _child("history", url, folder)
        training = _child("train", url, folder) if train else None
        with database.begin() as connection:
            _run(connection, f"DROP TABLE {TABLE}")
        database.close()
    return {
        "rows": rows,
        "loaded_per_second": round(rows / made_seconds),
        "raw": _rate(raw, rows),
        "build": _rate(built, rows),
        "build_ratio": round(raw["seconds"] / built["seconds"], 3),
        "folder_mib": built["folder_mib"],
        "check": _rate(check, rows),
        "check_stages": check["stages"],
        "nothing_new_seconds": nothing_new["seconds"],
        "new_rows": more["rows"],
        "incremental_seconds": more["seconds"],
        "incremental_ratio": round(more["seconds"] / built["seconds"], 4),
        "history_ms": history["milliseconds"],
        "training": training,
    }


def _rate(found: dict[str, Any], rows: int) -> dict[str, Any]:
    seconds = found["seconds"]
    kept: dict[str, Any] = {
        name: found[name] for name in ("peak_mib", "peak_worker_mib") if name in found
    }
    return {**kept, "seconds": seconds, "rows_per_second": round(rows / seconds)}


def _run(connection: Any, statement: str) -> None:
    connection.connection.cursor().execute(statement)


def _make(database: Database, events: int, seed: int, now_us: int) -> int:
    """The table, its rows through COPY, then the indexes that reading and serving need."""
    if migrate.current(database) is not None:
        migrate.downgrade(database, "base")
    with database.begin() as connection:
        _run(connection, f"DROP TABLE IF EXISTS {TABLE}")
        _run(
            connection,
            f"CREATE UNLOGGED TABLE {TABLE} (view_no bigint NOT NULL, customer int NOT NULL, "
            "sku text NOT NULL, seen_at timestamptz NOT NULL, action text NOT NULL)",
        )
    rows = _add(database, events, seed, now_us, 0)
    with database.begin() as connection:
        _run(connection, "SET LOCAL maintenance_work_mem = '1GB'")
        _run(connection, f"ALTER TABLE {TABLE} ADD PRIMARY KEY (view_no)")
        _run(connection, f"CREATE INDEX ON {TABLE} (customer, seen_at)")
        _run(connection, f"ANALYZE {TABLE}")
    return rows


def _add(database: Database, events: int, seed: int, now_us: int, first: int) -> int:
    """Rows numbered from `first`; how many there are."""
    added = 0
    for shard in range(-(-events // SHARD_EVENTS)):
        size = min(SHARD_EVENTS, events - added)
        if size <= 0:
            break
        with database.begin() as connection:
            cursor = connection.connection.cursor()
            with cursor.copy(f"COPY {TABLE} FROM STDIN (FORMAT csv)") as copy:
                for text, rows in _shard(size, seed + shard, now_us, first + added):
                    copy.write(text)
                    added += rows
    return added


def _shard(events: int, seed: int, now_us: int, first: int) -> Iterator[tuple[bytes, int]]:
    shoppers = max(10, events // 20)
    size = ShopSize(min(PRODUCTS, max(50, events // 50)), shoppers, events)
    for table in Shop(size, seed, now_us, DAYS).events():
        rows = table.num_rows
        users = pc.utf8_slice_codeunits(table["user_id"], len("shopper-"))
        numbers = pc.add(pc.cast(users, pa.int64()), (seed % 20_000) * 100_000)
        stamps = pc.cast(table["timestamp_us"], pa.timestamp("us", tz="UTC"))
        columns = {
            "view_no": np.arange(first, first + rows),
            "customer": numbers,
            "sku": table["item_id"],
            "seen_at": pc.strftime(stamps, format="%Y-%m-%d %H:%M:%S%z"),
            "action": table["event_type"],
        }
        buffer = io.BytesIO()
        options = pa_csv.WriteOptions(include_header=False)
        pa_csv.write_csv(pa.table(columns), buffer, options)
        yield buffer.getvalue(), rows
        first += rows


def _settings(url: str) -> Settings:
    return Settings.model_validate(
        {
            "database": {"url": url},
            "events": {
                "url": url,
                "table": TABLE,
                "user_column": "customer",
                "item_column": "sku",
                "timestamp_column": "seen_at",
                "event_type_column": "action",
                "order_column": "view_no",
            },
            "training": {"epochs": 1, "refit": False, "final_epochs": 0, "ranker_events": 500_000},
        }
    )


def _child(what: str, url: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.own_table", what, url, folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _work(what: str, url: str, folder: str) -> dict[str, Any]:
    import pandas  # noqa: F401 - loaded before the clock starts, as in a training

    from recsys.sequence_store.store import SequenceStore
    from recsys.storage.external.external_events import ExternalEvents
    from recsys.training.dry_run import check_log

    settings, files = _settings(url), Path(folder) / "sequences"
    database = Database(url)
    if what != "raw":
        migrate.upgrade(database)
    source = ExternalEvents(settings, database)
    mapped = source.rows()
    started = time.perf_counter()
    found: dict[str, Any] = {}
    if what == "raw":
        query = f"SELECT view_no, customer, sku, seen_at, action FROM {TABLE}"  # noqa: S608
        found["rows"] = sum(batch.num_rows for batch in mapped.source.batches(query, {}))
    elif what == "build":
        found["rows"] = SequenceStore(files, mapped=mapped).update(database).new_rows
    elif what == "check":
        report = check_log(settings, database, datetime.now(UTC))
        found["stages"] = {k: v for k, v in report.items() if k.endswith("seconds")}
    elif what == "history":
        found["milliseconds"] = _ask(source, database)
    else:
        found.update(train_once(settings, SequenceStore(files, mapped=mapped), database))
    found["seconds"] = round(time.perf_counter() - started, 3)
    found.update(costs(files))
    source.close()
    database.close()
    return found


def _ask(source: Any, database: Database) -> dict[str, float]:
    """The newest events of users at random, as a request reads them; in milliseconds."""
    with database.connect() as connection:
        cursor = connection.connection.cursor()
        users: list[str] = []
        for percent in (1, 10, 100):  # of the table's pages: of a small one, few or none
            cursor.execute(
                f"SELECT customer FROM {TABLE} TABLESAMPLE SYSTEM ({percent}) LIMIT 100000"  # noqa: S608
            )
            users = sorted({str(row[0]) for row in cursor.fetchall()})
            if len(users) >= HISTORIES:
                break
        chosen = random.Random(7).sample(users, min(HISTORIES, len(users)))  # noqa: S311
        source.history(connection, Owner(chosen[0]))
        spent = []
        for user in chosen:
            started = time.perf_counter()
            assert source.history(connection, Owner(user)).events
            spent.append((time.perf_counter() - started) * 1e3)
    return {f"p{q}": round(float(np.percentile(spent, q)), 2) for q in (50, 99)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_work(*sys.argv[1:4])) + "\n")
