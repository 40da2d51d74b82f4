"""Requests that mean harm: huge, deep, slow, many, and by those who may not."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import orjson

from recsys.bench.fault_stage import Fault, Stage, ask, resident
from recsys.bench.load import Connection, closed_loop, request_bytes
from recsys.bench.servers import running
from recsys.data.times import to_us
from recsys.storage import key_rows
from recsys.storage.database import Database

MIB = 2**20
GROWTH_MIB = 128.0
LEAKS = ("Traceback", "SELECT ", "sqlite3", "psycopg", "/tmp/", "site-packages", "recsys/")  # noqa: S108
HOSTILE = (
    "../../etc/passwd",
    "%00",
    "a\0b",
    "' OR 1=1 --",
    "\u202e\U0001f600",
    "a" * 300,
    "{{7*7}}",
    "\x7f",
)
SCOPES = ("read", "write", "admin", "collect")


def hostile_sizes(stage: Stage) -> Fault:
    """k of a billion, bodies of 10 MB, JSON 10,000 deep."""
    with running(stage.url, stage.registry, workers=2) as (port, server):
        ask(port, stage.with_sequence)
        before = resident(server)
        deep = b"[" * 10_000 + b"]" * 10_000
        nested = (
            b'{"user_id":"u","item_id":"i","properties":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001
        )
        requests = {
            "k": stage.asks("/users/u/recommendations?k=1000000000"),
            "body": request_bytes("/api/v1/events", stage.key, b'"' + b"x" * (10 * MIB) + b'"'),
            "deep": request_bytes("/api/v1/events", stage.key, deep),
            "nested": request_bytes("/api/v1/events", stage.key, nested),
            "head": request_bytes("/api/v1/items?q=" + "x" * 20_000, stage.key),
            "candidates": stage.asks("/recommendations", {"candidates": ["x"] * 10_001}),
        }
        statuses = {
            name: Counter(ask(port, one) for _ in range(5)) for name, one in requests.items()
        }
        grown = resident(server) - before
        answers = ask(port, stage.with_sequence)
    refused = all(
        status == 0 or 400 <= status < 500 for found in statuses.values() for status in found
    )
    told = {name: {str(s): n for s, n in found.items()} for name, found in statuses.items()}
    figures = {"statuses": told, "grown_mib": round(grown, 1)}  # 0: closed while it was sent
    return Fault(
        "huge and deep requests", refused and answers == 200 and grown < GROWTH_MIB, figures
    )


def slow_clients(stage: Stage, clients: int, seconds: float) -> Fault:
    """Clients that send half a head, half a body, or never close; the others' latency meanwhile."""
    with running(stage.url, stage.registry, workers=2) as (port, server):
        ask(port, stage.with_sequence)
        calm = closed_loop(port, [stage.with_sequence], 4, seconds).plain()
        before = resident(server)
        body = request_bytes("/api/v1/events", stage.key, b"x" * 1_000)[:-900]
        half = b"GET /api/v1/items HTTP/1.1\r\nHost: x\r\nX-Slow"
        unclosed = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with ExitStack() as stack:
            for number in range(clients):
                one = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                one.sendall((half, body, unclosed)[number % 3])
            load = closed_loop(port, [stage.with_sequence], 4, seconds)
        grown = resident(server) - before
        answers = ask(port, stage.with_sequence)
    beside = load.plain()
    held = load.errors == 0 and answers == 200 and grown < GROWTH_MIB and beside["p99_ms"] < 1_000
    figures = {
        "slow_clients": clients,
        "p99_ms_without": calm["p99_ms"],
        "p99_ms_beside": beside["p99_ms"],
        "errors": beside["errors"],
        "grown_mib": round(grown, 1),
    }
    return Fault("slow clients", held, figures)


def burst(stage: Stage, connections: int, seconds: float, sessions: int) -> Fault:
    """Many times as many connections as there are threads, and as many sessions as asked."""
    with running(stage.url, stage.registry, workers=2) as (port, server):
        ask(port, stage.with_sequence)
        calm = closed_loop(port, [stage.with_sequence], 8, seconds).plain()
        before = resident(server)
        load = _tolerant(port, stage.with_sequence, connections, seconds)
        visits = [
            stage.asks("/recommendations", {"session_id": f"visitor-{n}", "k": 5})
            for n in range(sessions)
        ]
        statuses = Counter(_each(port, visits))
        grown = resident(server) - before
        recovered = closed_loop(port, [stage.with_sequence], 8, seconds).plain()
    allowed = {200, 429, 503, 0}
    held = set(load) <= allowed and load[200] > 0 and set(statuses) == {200}
    held = held and grown < GROWTH_MIB and recovered["errors"] == 0
    figures = {
        "connections": connections,
        "statuses": {str(status): number for status, number in sorted(load.items())},
        "sessions": sessions,
        "session_statuses": {str(status): number for status, number in statuses.items()},
        "p99_ms_before": calm["p99_ms"],
        "p99_ms_after": recovered["p99_ms"],
        "grown_mib": round(grown, 1),
    }
    return Fault("a burst far above capacity, and ten thousand sessions", held, figures)


def _tolerant(port: int, request: bytes, connections: int, seconds: float) -> Counter[int]:
    """Statuses over connections that may be refused or broken (0)."""
    found: Counter[int] = Counter()
    end = time.monotonic() + seconds

    def one() -> None:
        while time.monotonic() < end:
            found[ask(port, request)] += 1

    threads = [threading.Thread(target=one) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _each(port: int, requests: list[bytes]) -> Iterator[int]:
    connection = Connection(port)
    for request in requests:
        yield connection.ask(request)[0]
    connection.close()


def hostile_routes(stage: Stage) -> Fault:
    """Every documented route with every scope and none, with hostile ids, queries and bodies."""
    database = Database(stage.url)
    now_us = to_us(datetime.now(UTC))
    keys: dict[str, str] = {"": "", "unknown": "rk_000000000000_" + "x" * 43}
    with database.begin() as connection:
        for scope in SCOPES:
            origins = ["https://shop.example"] if scope == "collect" else []
            keys[scope] = key_rows.create_key(connection, scope, [scope], now_us, origins)
    database.close()
    tried = failed = let_in = leaked = 0
    worst: list[str] = []
    with running(stage.url, stage.registry, workers=2) as (port, server):
        document = orjson.loads(_get(port, "/openapi.json")[1])
        for method, path in _operations(document):
            if "/promote" in path or "/rollback" in path or "/run" in path:
                continue  # they do what they say, with a key that may
            for scope, key in keys.items():
                for value in HOSTILE:
                    address = _address(path, value)
                    body = None if method == "GET" else orjson.dumps([{"item_id": value}])
                    status, answer = _send(port, method, address, key, body)
                    tried += 1
                    failed += status >= 500
                    protected = path.startswith("/api/")
                    let_in += (
                        protected
                        and scope in ("", "unknown")
                        and status not in (400, 401, 404, 405, 414)
                    )
                    leaked += any(leak in answer for leak in LEAKS)
                    if status >= 500:
                        worst.append(f"{method} {path} as {scope or 'nobody'}: {status}")
        alive = server.poll() is None
    figures: dict[str, Any] = {"requests": tried, "5xx": failed, "let_in": let_in, "leaks": leaked}
    if worst:
        figures["examples"] = worst[:5]
    return Fault(
        "hostile values on every route, every scope",
        alive and not (failed or let_in or leaked),
        figures,
    )


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for path, methods in document["paths"].items():
        for method in methods:
            yield method.upper(), path


def _address(path: str, value: str) -> str:
    quoted = "".join(f"%{byte:02X}" for byte in value.encode())
    return re.sub(r"\{\w+\}", lambda _: quoted, path) + f"?user_id={quoted}"


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = Connection(port)
    try:
        return connection.ask(request_bytes(path))
    finally:
        connection.close()


def _send(port: int, method: str, path: str, key: str, body: bytes | None) -> tuple[int, str]:
    request = request_bytes(path, key, body)
    request = method.encode() + request[request.index(b" ") :]
    with contextlib.closing(Connection(port)) as connection:
        try:
            status, answer = connection.ask(request)
        except OSError:
            return 0, ""
    return status, answer.decode(errors="replace")
