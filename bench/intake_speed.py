"""bench intake: events posted over HTTP, beside the database's own rate for the same rows.

The limit is what the database takes: the same rows, as many a transaction, by `executemany` (SQLite) or COPY
(PostgreSQL) over one connection into a table with the same indexes.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import make_url, text

from bench.import_speed import COLUMNS, insert_bare, payload_of, write_log
from bench.installations import install
from bench.load import Load, closed_loop, open_loop, request_bytes
from bench.releases import HERE, Release
from recsys.events.fields import EVENT_SCHEMA
from recsys.events.identity import user_bucket
from recsys.progress import Say, quiet
from recsys.storage.engine.database import Database
from recsys.storage.schema import migrate

CONNECTIONS = (1, 8)
LOG_EVENTS = 5_000  # that the champion learns, and whose users and items are posted again
MARK = b"0123456789abcdef"  # stands for the part of an event's id that is the request's own
ANSWERS_A_SECOND = 50.0
K = 20


class Posts(Sequence[bytes]):
    """Requests of `size` events each, of users and items of `log`; every one has ids of its own."""

    def __init__(self, log: pa.Table, key: str, size: int, now_us: int) -> None:
        rows = log.select(["user_id", "session_id", "item_id", "event_type"]).to_pylist()
        events = [
            {"event_id": f"{MARK.decode()}-{n}", **row, "timestamp": now_us // 1_000 - n}
            for n, row in enumerate(rows)
        ]
        lists = [events[at : at + size] for at in range(0, len(events) - size + 1, size)]
        bodies = [one[0] if size == 1 else one for one in lists]
        self._made = [request_bytes("/api/v1/events", key, orjson.dumps(body)) for body in bodies]

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, place: Any) -> Any:
        return self._made[place].replace(MARK, secrets.token_hex(len(MARK) // 2).encode())


@dataclass(frozen=True)
class _Place:
    """A server that is posted to."""

    name: str
    port: int
    key: str


def run_intake(
    seconds: float,
    workers: int,
    now_us: int,
    postgresql_url: str | None,
    release: Path | None,
    sizes: Sequence[int],
    say: Say = quiet,
) -> dict[str, Any]:
    """Closed loops of posts on each database, in turn with those of another `release`; `seconds` each.

    Then answers at a fixed rate, alone and beside posts over one connection.
    """
    runs: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        write_log(path, LOG_EVENTS, 7, now_us)
        log = pq.read_table(path)
        for kind, given in (("sqlite", None), ("postgresql", postgresql_url)):
            if kind == "postgresql" and given is None:
                continue
            with ExitStack() as stack:
                url = stack.enter_context(_fresh(given, Path(folder), "bare"))
                bare = stack.enter_context(closing(Database(url)))
                migrate.upgrade(bare)
                places = []
                for name, one in (
                    ("here", HERE),
                    *((("release", Release(release.resolve())),) if release else ()),
                ):
                    url = stack.enter_context(_fresh(given, Path(folder), name))
                    places.append(_place(stack, name, one, url, path, workers))
                    say(f"{kind}: a server of {name} is ready")
                for place in places:
                    closed_loop(place.port, _asked(place, log), 8, min(seconds, 5.0))  # warm
                for size in sizes:
                    for count in CONNECTIONS:
                        limit = _bare_rate(bare, log, size, now_us, seconds / 2)
                        for place in places:
                            run = _post(place, log, size, count, now_us, seconds)
                            found = {"database": kind, "release": place.name, **run}
                            found["bare_events_per_second"] = limit
                            found["ratio"] = round(run["events_per_second"] / limit, 3)
                            say(
                                f"{kind}, {place.name}, {count} x {size}: "
                                f"{run['events_per_second']:,} events/s ({limit:,} bare)"
                            )
                            runs.append(found)
                for place in places:
                    for size in (0, *sizes):
                        beside = _answers(place, log, size, now_us, seconds)
                        answers.append({"database": kind, "release": place.name, **beside})
    return {"workers": workers, "runs": runs, "answers": answers}


@contextmanager
def _fresh(given: str | None, folder: Path, name: str) -> Iterator[str]:
    """The address of an empty database: a file, or a schema of the one at `given`, which is dropped."""
    if given is None:
        (folder / name).mkdir(exist_ok=True)
        yield f"sqlite:///{folder / name}/recsys.db"
        return
    schema = f"bench_{name}"
    with closing(Database(given)) as database:
        for statement in (f"DROP SCHEMA IF EXISTS {schema} CASCADE", f"CREATE SCHEMA {schema}"):
            with database.begin() as connection:
                connection.execute(text(statement))
        url = make_url(given).update_query_dict({"options": f"-csearch_path={schema}"})
        try:
            yield url.render_as_string(hide_password=False)
        finally:
            with database.begin() as connection:
                connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))


def _place(
    stack: ExitStack, name: str, release: Release, url: str, log: Path, workers: int
) -> _Place:
    """A running server with a champion that has learned the events of `log`."""
    folder = log.parent / f"models-{name}-{url.partition(':')[0]}"
    folder.mkdir()
    made = install(release, folder, url)
    made.done("events", "import", str(log))
    made.done("train", "--force-promote")
    port, _ = stack.enter_context(made.serving(workers=workers))
    return _Place(name, port, made.admin_key)


def _post(
    place: _Place, log: pa.Table, size: int, connections: int, now_us: int, seconds: float
) -> dict[str, Any]:
    accepted = 0

    def count(_: float, body: bytes) -> None:
        nonlocal accepted
        if body.startswith(b'{"accepted":'):
            accepted += int(body[12 : body.index(b",")])

    posts = Posts(log, place.key, size, now_us)
    closed_loop(place.port, posts, connections, min(seconds, 1.0))  # warm
    load = closed_loop(place.port, posts, connections, seconds, count)
    return {
        "size": size,
        "connections": connections,
        "events_per_second": round(accepted / load.seconds, 1),
        **load.plain(),
        "errors": len(load.latencies) * size - accepted,  # events
    }


def _asked(place: _Place, log: pa.Table) -> list[bytes]:
    """A request of recommendations for each user of `log`."""
    users = log["user_id"].unique().to_pylist()
    return [
        request_bytes(f"/api/v1/users/{user}/recommendations?k={K}", place.key) for user in users
    ]


def _answers(
    place: _Place, log: pa.Table, size: int, now_us: int, seconds: float
) -> dict[str, Any]:
    """Answers at ANSWERS_A_SECOND, while one connection posts lists of `size`; of 0: alone."""
    asked = _asked(place, log)
    with ThreadPoolExecutor(1) as pool:
        posting = None
        if size:
            posts = Posts(log, place.key, size, now_us)
            posting = pool.submit(closed_loop, place.port, posts, 1, seconds)
        load = open_loop(place.port, asked, 16, seconds, ANSWERS_A_SECOND).plain()
        posted = posting.result() if posting else Load([], 0, seconds)
    events = len(posted.latencies) * size / posted.seconds
    return {"size": size, "events_per_second": round(events, 1), **load}


def _bare_rate(database: Database, log: pa.Table, size: int, now_us: int, seconds: float) -> float:
    """Rows a second of transactions of `size` rows, without what it takes to make the rows."""
    rows, spent, at = 0, 0.0, 0
    while spent < seconds:
        part = log.slice(at % (len(log) - size + 1), size)
        payload = payload_of(database, [_finished(part, now_us)])
        started = time.perf_counter()
        insert_bare(database, payload)
        spent += time.perf_counter() - started
        rows, at = rows + size, at + size
    return round(rows / spent, 1)


def _finished(part: pa.Table, now_us: int) -> pa.Table:
    """Rows of the table of events, with ids of their own."""
    mark, number = secrets.token_hex(len(MARK) // 2), len(part)
    columns: dict[str, Any] = {
        field.name: part[field.name]
        if field.name in part.column_names
        else pa.nulls(number, field.type)
        for field in EVENT_SCHEMA
    }
    columns["timestamp_us"] = pa.array([now_us] * number, pa.int64())
    columns["event_id"] = pa.array([f"{mark}-{n}" for n in range(number)])
    columns["user_bucket"] = pa.array([user_bucket(u) for u in part["user_id"].to_pylist()])
    columns["received_at_us"] = columns["timestamp_us"]
    return pa.table(columns).select(COLUMNS.split(", "))
