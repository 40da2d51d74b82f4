"""bench serve: personalised top 20 over HTTP, beside an empty view of the same server.

The limit of an answer is the scan of the item matrix: its bytes over the memory's bandwidth, which
is measured by reading an array of that size.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bench.load import Connection, ask_each, closed_loop, open_loop, request_bytes
from bench.servers import (
    LONGEST,
    SHORTEST,
    USERS,
    make_shop,
    resident_mib,
    running,
    training,
    workers_mib,
)
from recsys.commands.scenarios import put_scenario
from recsys.ingest.item_body import Item, check_item
from recsys.progress import Say, quiet
from recsys.steering.scenario_spec import BoostRule, Pin, ScenarioSpec
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows
from recsys.storage.entities.audit_rows import CLI

CONNECTIONS = (1, 8, 32)
K = 20
WIDTH = 128
WARM_ANSWERS = 1_000
RETURNING = 500  # visitors
SCENARIO_TURNS = 5
READY_STARTS = 3
SERVE = (sys.executable, "-m", "recsys", "serve")
THREE_RULES = ScenarioSpec(
    filter="price<90", boosts=(BoostRule("brand=brand-7", 1.5),), pins=(Pin("item-1", 3),)
)


def run_serving(
    items: int,
    seconds: float,
    workers: int,
    now_us: int,
    postgresql_url: str | None,
    say: Say = quiet,
    connections: Sequence[int] = CONNECTIONS,
    returning: bool = False,
) -> dict[str, Any]:
    """Closed loops at several concurrencies, then open loops below saturation, on each database.

    With `returning` the same RETURNING visitors ask again and again, else all in turn.
    """
    runs: list[dict[str, Any]] = []
    open_runs: list[dict[str, Any]] = []
    memory: dict[str, Any] = {}
    fairness: dict[str, Any] = {}
    ready: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        urls = {"sqlite": None, **({"postgresql": postgresql_url} if postgresql_url else {})}
        for name, given in urls.items():
            url, registry, _, asked = _shop(given, Path(folder) / name, items, now_us)
            asked = asked[:RETURNING] if returning else asked
            ready[name] = _ready_seconds(url, registry, workers)
            empty = [request_bytes("/empty")]
            with running(url, registry, workers=workers) as (port, process):
                closed_loop(port, asked, workers * 4, min(seconds, 5.0))  # warm
                for count in connections:
                    # The empty view before and after, so that a busy moment counts for both.
                    before = closed_loop(port, empty, count, seconds / 2).plain()
                    found = closed_loop(port, asked, count, seconds).plain()
                    after = closed_loop(port, empty, count, seconds / 2).plain()
                    rate = (before["requests_per_second"] + after["requests_per_second"]) / 2
                    run = {
                        "database": name,
                        "workers": workers,
                        "concurrency": count,
                        **found,
                        "empty_requests_per_second": round(rate, 1),
                        "ratio": round(found["requests_per_second"] / rate, 3),
                    }
                    say(f"{name}, {count} connections: {run['requests_per_second']:,} req/s")
                    runs.append(run)
                best = max(r["requests_per_second"] for r in runs if r["database"] == name)
                for share in (0.25, 0.5):
                    load = open_loop(port, asked, 64, seconds, best * share).plain()
                    open_runs.append({"database": name, "share_of_saturation": share, **load})
                fairness[name] = _beside_heavy(port, asked, seconds)
                together, own = resident_mib(process)
                memory[name] = {"proportional_mib": together, "private_mib": own}
    return {
        "items": items,
        "visitors": RETURNING if returning else USERS,
        "history_events": [SHORTEST, LONGEST],
        "runs": runs,
        "best_ratio": max(run["ratio"] for run in runs),
        "open_loop": open_runs,
        "beside_heavy": fairness,
        "memory": memory,
        "ready_seconds": ready,
        "matrix_mib": round(items * (WIDTH + 4) / 2**20, 1),
        "scan_limit_ms": round(_read_seconds(items * WIDTH) * 1e3, 3),
    }


def run_memory(
    items: int, answers: int, workers: int, now_us: int, postgresql_url: str | None
) -> dict[str, Any]:
    """Memory of each worker's own after WARM_ANSWERS, and after `answers` in all, each to another visitor."""
    with tempfile.TemporaryDirectory() as folder:
        url, registry, key, _ = _shop(postgresql_url, Path(folder), items, now_us)
        with running(url, registry, workers=workers) as (port, process):
            failed = ask_each(port, _Visitors(0, WARM_ANSWERS, items, key), 8)
            warm = workers_mib(process)
            failed += ask_each(port, _Visitors(WARM_ANSWERS, answers, items, key), 8)
            end, caches = workers_mib(process), _caches_mib(port, key)
    return {
        "items": items,
        "answers": answers,
        "errors": failed,
        "warm_mib": warm,
        "end_mib": end,
        "growth": round(sum(end) / sum(warm) - 1, 4),
        "caches_mib": caches,
    }


def _caches_mib(port: int, key: str) -> dict[str, float]:
    """MiB that each cache holds, of the worker where it holds most."""
    connection = Connection(port)
    text = connection.ask(request_bytes("/metrics", key))[1].decode()
    connection.close()
    found = re.findall(r'^recsys_cache_bytes{.*?cache="(\w+)".*?} (\S+)$', text, re.M)
    return {name: round(float(size) / 2**20, 1) for name, size in found}


class _Visitors(Sequence[bytes]):
    """Requests of the visitors numbered `first` to `last`, each with a session of its own."""

    def __init__(self, first: int, last: int, items: int, key: str) -> None:
        self.first, self.last, self.items, self.key = first, last, items, key

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, at: Any) -> Any:
        rng = np.random.default_rng(self.first + at)
        seen = rng.integers(0, self.items, rng.integers(SHORTEST, LONGEST + 1)).tolist()
        body = {
            "session_id": f"visitor-{self.first + at}",
            "events": [{"item_id": f"item-{item}"} for item in seen],
            "k": K,
        }
        return request_bytes("/api/v1/recommendations", self.key, orjson.dumps(body))


def run_scenario(
    items: int, seconds: float, workers: int, now_us: int, postgresql_url: str | None
) -> dict[str, Any]:
    """Requests with a scenario of three rules and the same without, by turns on one server.

    `ratio`: the median over the turns of requests per second with the scenario, of those without.
    """
    with tempfile.TemporaryDirectory() as folder:
        url, registry, _, plain = _shop(postgresql_url, Path(folder), items, now_us)
        database = Database(url)
        with database.begin() as connection:
            item_rows.put_items(connection, _priced(items), now_us)
        put_scenario(database, CLI, "bench", THREE_RULES, now_us)
        database.close()
        steered = [one.replace(b"k=20 ", b"k=20&scenario=bench ", 1) for one in plain]
        turns = []
        with running(url, registry, workers=workers) as (port, _):
            for asked in (plain, steered):
                closed_loop(port, asked, 8, min(seconds, 5.0))  # warm
            for _ in range(SCENARIO_TURNS):
                without = closed_loop(port, plain, 8, seconds).plain()
                having = closed_loop(port, steered, 8, seconds).plain()
                turns.append({"without": without, "with_scenario": having})
    ratios = [
        one["with_scenario"]["requests_per_second"] / one["without"]["requests_per_second"]
        for one in turns
    ]
    return {"items": items, "turns": turns, "ratio": round(float(np.median(ratios)), 3)}


def _priced(items: int) -> Iterator[Item]:
    for number in range(items):
        given = {"price": float(number % 100), "properties": {"brand": f"brand-{number % 50}"}}
        yield check_item({"item_id": f"item-{number}", **given})


def run_soak(
    items: int, seconds: float, workers: int, now_us: int, postgresql_url: str | None
) -> dict[str, Any]:
    """As many requests as it takes for `seconds`; memory after a tenth of that and at the end."""
    with tempfile.TemporaryDirectory() as folder:
        url, registry, _, asked = _shop(postgresql_url, Path(folder), items, now_us)
        with running(url, registry, workers=workers) as (port, process):
            warm = closed_loop(port, asked, 8, seconds / 10)
            _, before = resident_mib(process)
            load = closed_loop(port, asked, 8, seconds * 0.9)
            _, after = resident_mib(process)
    return {
        "items": items,
        "seconds": seconds,
        "requests": len(warm.latencies) + len(load.latencies),
        "errors": warm.errors + load.errors,
        "warm_mib": before,
        "end_mib": after,
        "growth": round(after / before - 1, 4),
    }


def run_beside_training(
    items: int, seconds: float, rate: float, now_us: int, postgresql_url: str | None
) -> dict[str, Any]:
    """Latency at a fixed rate, without and with a training on the same database and machine.

    The training is what the scheduler would launch: a process of its own, stepping back (nice 19),
    one thread. The quiet loop comes before and after, so that a busy machine shows.
    """
    with tempfile.TemporaryDirectory() as folder:
        url, registry, _, asked = _shop(postgresql_url, Path(folder), items, now_us)
        with running(url, registry) as (port, _):
            closed_loop(port, asked, 8, min(seconds, 5.0))  # warm
            before = open_loop(port, asked, 16, seconds / 2, rate).plain()
            with training(url, registry) as process:
                time.sleep(min(5.0, seconds / 2))  # its imports
                beside = open_loop(port, asked, 16, seconds, rate).plain()
                still = process.poll() is None
            after = open_loop(port, asked, 16, seconds / 2, rate).plain()
    return {
        "items": items,
        "rate": rate,
        "without": [before, after],
        "beside_training": beside,
        "training_ran_throughout": still,
    }


def _shop(
    postgresql_url: str | None, folder: Path, items: int, now_us: int
) -> tuple[str, Path, str, list[bytes]]:
    """A made-up shop's database, registry and key, and a request for each of its users in some order."""
    registry = folder / "registry"
    registry.mkdir(parents=True)
    database = Database(postgresql_url or f"sqlite:///{folder}/recsys.db")
    key = make_shop(database, registry, items, now_us)
    url = database.url.render_as_string(hide_password=False)
    database.close()
    asked = [
        request_bytes(f"/api/v1/users/user-{user}/recommendations?k={K}", key)
        for user in np.random.default_rng(1).permutation(USERS)
    ]
    return url, registry, key, asked


def _beside_heavy(port: int, asked: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """Eight connections alone, then while four more ask for 1,000 items with reasons, without a pause."""
    heavy = [one.replace(b"k=20 ", b"k=1000&explain=true ", 1) for one in asked]
    alone = closed_loop(port, asked, 8, seconds).plain()
    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(closed_loop, port, heavy, 4, seconds)
        beside = closed_loop(port, asked, 8, seconds).plain()
        return {"alone": alone, "beside": beside, "heavy": others.result().plain()}


def _ready_seconds(url: str, registry: Path, workers: int) -> float:
    """Seconds from the start of `recsys serve` until it is ready: the median of READY_STARTS."""
    spent = []
    for _ in range(READY_STARTS):
        started = time.perf_counter()
        with running(url, registry, workers=workers, command=SERVE, log=os.devnull):
            spent.append(time.perf_counter() - started)
    return round(float(np.median(spent)), 2)


def _read_seconds(size: int) -> float:
    """The best time of summing an array of `size` bytes."""
    array = np.ones(max(size // 8, 1), np.int64)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        array.sum()
        best = min(best, time.perf_counter() - started)
    return best
