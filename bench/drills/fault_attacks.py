"""Attacks with a page's key, which anyone can read, and by who has none at all."""

from __future__ import annotations

import http.client
import re
import threading
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import orjson
from sqlalchemy import func, select

from bench.drills.fault_stage import Fault, Stage, ask, resident
from bench.load import closed_loop, request_bytes
from bench.servers import running
from recsys.config import Settings
from recsys.events.times import to_us
from recsys.ops import upkeep
from recsys.ops.guard import guard_champion
from recsys.storage.engine.database import Database
from recsys.storage.entities import key_rows
from recsys.storage.schema.tables import events

ORIGIN = "https://shop.example"
GROWTH_MIB = 256.0
CALM_P99_MS = 1_000.0  # of a neighbour, on a machine that does other things too
LOG_INS = 16
# So that other bounds than these are tried.
NO_LIMITS = {
    "RECSYS_AUTH__COLLECT_PER_MINUTE": "1000000",
    "RECSYS_AUTH__COLLECT_EVENTS_PER_MINUTE": "100000000",
    "RECSYS_AUTH__COLLECT_BYTES_PER_MINUTE": "1000000000000",
}


def attacks(stage: Stage) -> list[Fault]:
    """Each attack on a server of its own."""
    with closing(Database(stage.url)) as database, database.begin() as connection:
        now_us = to_us(datetime.now(UTC))
        page = key_rows.create_key(connection, "attacked page", ["collect"], now_us, [ORIGIN])
    return [
        filled_memory(stage, page),
        flood(stage, page),
        empty_answers(stage, page),
        log_in_crowd(stage),
    ]


def filled_memory(stage: Stage, page: str, requests: int = 60) -> Fault:
    """Every request lists thousands of long ids of its own."""
    with running(stage.url, stage.registry, workers=2, **NO_LIMITS) as (port, server):
        ask(port, stage.with_sequence)
        before = resident(server)
        statuses: Counter[int] = Counter()
        for number in range(requests):
            listed = [f"{number}-{n}-{'x' * 200}" for n in range(5_000)]
            asked = {"session_id": "s", "candidates": listed, "k": 5}
            statuses[ask(port, _of_page(page, "/recommendations", asked))] += 1
        grown = resident(server) - before
    figures = {"statuses": _told(statuses), "grown_mib": round(grown, 1)}
    held = grown < GROWTH_MIB and statuses[200] == requests
    return Fault(f"{requests} lists of 5,000 long candidates of a page", held, figures)


def flood(stage: Stage, page: str, requests: int = 30) -> Fault:
    """A thousand events a request, as many requests as the key takes."""
    batch = [{"session_id": "flood", "item_id": "P0001"} for _ in range(1_000)]
    with running(stage.url, stage.registry) as (port, _):
        before = _stored(stage)
        statuses = Counter(ask(port, _of_page(page, "/events", batch)) for _ in range(requests))
        stored = _stored(stage) - before
        others = ask(port, stage.with_sequence)
    most = 2 * Settings().auth.collect_events_per_minute  # while it is tried, a part comes back
    figures = {"statuses": _told(statuses), "stored": stored}
    held = stored <= most and others == 200 and set(statuses) <= {200, 429}
    return Fault(f"a page posts {requests * 1_000:,} events", held, figures)


def empty_answers(stage: Stage, page: str, requests: int = 200) -> Fault:
    """Answers without an item, and clicks, until a guard would roll the champion back."""
    with running(stage.url, stage.registry, workers=2, **NO_LIMITS) as (port, _):
        asked = {"session_id": "s", "candidates": ["P0001"], "exclude_items": ["P0001"]}
        statuses = Counter(
            ask(port, _of_page(page, "/recommendations", asked)) for _ in range(requests)
        )
    with closing(Database(stage.url)) as database:
        later = datetime.now(UTC) + timedelta(hours=2)
        upkeep.attribute_clicks(database, later)
        rolled_back = guard_champion(Settings(promotion={"guard_min_answers": 10}), database, later)
    figures = {"statuses": _told(statuses), "rolled_back": rolled_back}
    held = rolled_back is None and statuses[200] == requests
    return Fault(f"{requests} empty answers to a page", held, figures)


def log_in_crowd(stage: Stage, seconds: float = 5.0) -> Fault:
    """Log-ins with wrong passwords, LOG_INS at a time, beside four who ask for recommendations."""
    with running(stage.url, stage.registry) as (port, _):
        ask(port, stage.with_sequence)
        calm = closed_loop(port, [stage.with_sequence], 4, seconds).plain()
        stop = threading.Event()
        statuses: Counter[int] = Counter()

        def crowd(number: int) -> None:
            while not stop.is_set():
                statuses[log_in(port, f"nobody-{number}")] += 1

        with ThreadPoolExecutor(LOG_INS) as pool:
            for number in range(LOG_INS):
                pool.submit(crowd, number)
            beside = closed_loop(port, [stage.with_sequence], 4, seconds).plain()
            stop.set()
    figures = {"statuses": _told(statuses), "calm": calm, "beside": beside}
    held = beside["errors"] == 0 and beside["p99_ms"] < CALM_P99_MS and 500 not in statuses
    return Fault(f"{LOG_INS} at once try passwords", held, figures)


def _of_page(page: str, path: str, body: object) -> bytes:
    request = request_bytes(f"/api/v1{path}", page, orjson.dumps(body))
    return request.replace(b"Host: x\r\n", f"Host: x\r\nOrigin: {ORIGIN}\r\n".encode(), 1)


def log_in(port: int, name: str) -> int:
    """The status of one attempt; 0 where the connection broke."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/admin/login")
        form = connection.getresponse()
        token = re.search(r'name="csrf_token" value="([^"]+)"', form.read().decode())
        cookie = (form.headers["Set-Cookie"] or "").partition(";")[0]
        given = {
            "name": name,
            "password": "wrong password",
            "csrf_token": token[1] if token else "",
        }
        headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/admin/login", urllib.parse.urlencode(given), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except OSError:
        return 0
    finally:
        connection.close()


def _stored(stage: Stage) -> int:
    with closing(Database(stage.url)) as database, database.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(events)).scalar_one())


def _told(statuses: Counter[int]) -> dict[str, int]:
    return {str(status): number for status, number in sorted(statuses.items())}
