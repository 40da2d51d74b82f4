"""bench consume: events from a Redis stream, beside the database's own rate for the same rows.

One consumer within this process reads what lies in the stream, as `recsys consume` does by its defaults. The
limit is what the database takes: the same rows by `executemany` (SQLite) or COPY (PostgreSQL), as many a
transaction as a consumer takes messages.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bench.import_speed import empty_tables, finished_rows, insert_bare, payload_of, write_log
from recsys.config.sections import ConsumeSettings
from recsys.consume.consumer import Consumer
from recsys.consume.message_store import MessageStore
from recsys.consume.shares import Shares
from recsys.errors import RecsysError
from recsys.events.times import rfc3339
from recsys.ingest.streams.addresses import parse_address
from recsys.ingest.streams.brokers import open_broker
from recsys.ingest.streams.message_rows import MessageParser
from recsys.progress import Say, quiet
from recsys.storage.engine.database import Database
from recsys.storage.schema import migrate

LIST_EVENTS = 100  # of a message that is a list
SETTINGS = ConsumeSettings()
START_SECONDS = 10.0

Row = dict[str, Any]


def _own(rows: Sequence[Row]) -> list[object]:
    """As POST /events takes them, one a message."""
    return [
        {
            **{name: row[name] for name in ("user_id", "item_id", "event_type")},
            "timestamp": row["timestamp_us"] // 1_000,
        }
        for row in rows
    ]


def _lists(rows: Sequence[Row]) -> list[object]:
    own = _own(rows)
    return [own[at : at + LIST_EVENTS] for at in range(0, len(own), LIST_EVENTS)]


def _tracked(rows: Sequence[Row]) -> list[object]:
    """As clients of Segment send them, one a message."""
    return [
        {
            **{"type": "track", "event": "Product Viewed", "messageId": f"m{number}"},
            **{"userId": row["user_id"], "timestamp": rfc3339(row["timestamp_us"])},
            "properties": {"product_id": row["item_id"]},
        }
        for number, row in enumerate(rows)
    ]


SHAPES: dict[str, Callable[[Sequence[Row]], list[object]]] = {
    "an event": _own,
    f"a list of {LIST_EVENTS}": _lists,
    "a tracked message": _tracked,
}


def run_consume(
    events: int, seed: int, now_us: int, postgresql_url: str | None, say: Say = quiet
) -> dict[str, Any]:
    """Rates by database and shape of message; each of ours beside a bare one of seconds before."""
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, _redis(Path(folder)) as port:
        path = Path(folder) / "events.parquet"
        write_log(path, events, seed, now_us)
        rows = pq.read_table(path).to_pylist()
        finished = pa.concat_tables(finished_rows(path, now_us))
        for number, shaped in enumerate(SHAPES.values()):
            _send(port, f"shape{number}", shaped(rows))
        for url in (f"sqlite:///{folder}/bench.db", postgresql_url):
            if url is None:
                continue
            with closing(Database(url)) as database:
                for number, shape in enumerate(SHAPES):
                    run = {"database": database.dialect, "message": shape}
                    run |= _compare(database, finished, port, f"shape{number}")
                    say(f"{run['database']}, {shape}: {run['events_per_second']:,} events/s")
                    runs.append(run)
                migrate.downgrade(database, "base")
    return {"events": len(rows), "runs": runs}


def _compare(database: Database, finished: pa.Table, port: int, topic: str) -> dict[str, Any]:
    size = SETTINGS.batch_messages
    parts = [
        payload_of(database, [finished.slice(at, size)]) for at in range(0, len(finished), size)
    ]
    empty_tables(database)
    started = time.perf_counter()
    for part in parts:
        insert_bare(database, part)
    bare_seconds = time.perf_counter() - started
    empty_tables(database)
    messages, seconds = _consume(database, port, topic, len(finished))
    return {
        "messages_per_second": round(messages / seconds),
        "events_per_second": round(len(finished) / seconds),
        "bare_events_per_second": round(len(finished) / bare_seconds),
        "ratio": round(bare_seconds / seconds, 3),
    }


def _consume(database: Database, port: int, topic: str, events: int) -> tuple[int, float]:
    """Messages that were consumed until all `events` were stored, and the seconds that it took."""
    address = parse_address("redis", f"redis://127.0.0.1:{port}", SETTINGS)
    store = MessageStore(database, MessageParser())
    with closing(open_broker(address, [topic])) as broker:
        shares = Shares(database, address.name, [topic], SETTINGS.lease_seconds, time.monotonic)
        consumer = Consumer(
            database,
            broker,
            shares,
            store,
            batch_messages=SETTINGS.batch_messages,
            batch_seconds=SETTINGS.batch_seconds,
        )
        never = threading.Event()
        started = time.perf_counter()
        while store.totals["read"] < events:
            consumer.step(never)
        seconds = time.perf_counter() - started
        shares.leave()
    assert store.totals["accepted"] == events, store.totals
    return store.totals["messages"], seconds


def _send(port: int, topic: str, messages: Sequence[object]) -> None:
    import redis

    with closing(redis.Redis(port=port)) as client:
        for at in range(0, len(messages), 1_000):
            pipe = client.pipeline(transaction=False)
            for one in messages[at : at + 1_000]:
                pipe.xadd(topic, {"data": orjson.dumps(one)})
            pipe.execute()


@contextmanager
def _redis(folder: Path) -> Iterator[int]:
    """The port of a server that keeps nothing on disk."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise RecsysError("no redis-server is installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with subprocess.Popen(
        [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
    ) as process:
        try:
            _wait(port)
            yield port
        finally:
            process.terminate()


def _wait(port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > until:
                raise RecsysError("redis-server does not answer") from None
            time.sleep(0.05)
        else:
            return
