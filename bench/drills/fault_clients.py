"""Requests that mean harm: huge, deep, slow, many, and by those who may not."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from bench.drills.fault_stage import Fault, Stage, ask, resident
from bench.load import Connection, closed_loop, request_bytes
from bench.servers import running

MIB = 2**20
GROWTH_MIB = 128.0


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
        with _neighbour(port, stage.with_sequence) as waits:
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
        "p99_ms_during": round(float(np.percentile(waits, 99)) * 1e3, 1) if waits else None,
        "neighbour_answers_during": len(waits),
        "p99_ms_after": recovered["p99_ms"],
        "grown_mib": round(grown, 1),
    }
    return Fault("a burst far above capacity, and ten thousand sessions", held, figures)


@contextmanager
def _neighbour(port: int, request: bytes) -> Iterator[list[float]]:
    """One client that asks now and then while the block runs; how long its answers took, in seconds."""
    waits: list[float] = []
    over = threading.Event()

    def ask_now_and_then() -> None:
        while not over.wait(0.05):
            began = time.monotonic()
            if ask(port, request) == 200:
                waits.append(time.monotonic() - began)

    thread = threading.Thread(target=ask_now_and_then)
    thread.start()
    try:
        yield waits
    finally:
        over.set()
        thread.join()


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
