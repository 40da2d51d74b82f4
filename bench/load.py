"""HTTP load from one process: as many connections as asked, one request in flight on each.

Requests are bytes made beforehand and answers are read no further than their length, so that the
generator takes as little as can be of the cores it shares with the server.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson


@dataclass
class Load:
    """What came of a run; latencies in seconds."""

    latencies: list[float]
    errors: int
    seconds: float

    def plain(self) -> dict[str, Any]:
        """Requests a second and latency percentiles."""
        waits = np.array(self.latencies) if self.latencies else np.zeros(1)
        p50, p90, p99 = np.percentile(waits, (50, 90, 99)) * 1e3
        return {
            "requests_per_second": round(len(self.latencies) / self.seconds, 1),
            "p50_ms": round(float(p50), 2),
            "p90_ms": round(float(p90), 2),
            "p99_ms": round(float(p99), 2),
            "errors": self.errors,
        }


def request_bytes(path: str, key: str = "", body: bytes | None = None, host: str = "x") -> bytes:
    """One request on a connection that stays open."""
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {host}"]
    if key:
        lines.append(f"X-API-Key: {key}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


class Connection:
    """A blocking connection that stays open."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Raises OSError where the connection breaks."""
        self.socket.sendall(request)
        while (found := take_answer(self.buffer)) is None:
            more = self.socket.recv(262_144)
            if not more:
                raise ConnectionError("the server closed the connection")
            self.buffer += more
        status, body, self.buffer = found
        return status, body

    def close(self) -> None:
        self.socket.close()


def take_answer(buffer: bytes) -> tuple[int, bytes, bytes] | None:
    """(status, body, rest) of the first answer in `buffer`, or None while it is incomplete.

    >>> take_answer(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhiHT")
    (200, b'hi', b'HT')
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = buffer[:end].lower()
    at = head.find(b"content-length:")
    length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    if len(buffer) < end + 4 + length:
        return None
    body = buffer[end + 4 : end + 4 + length]
    return int(head[9:12]), body, buffer[end + 4 + length :]


def answer(port: int, request: bytes) -> tuple[int, Any]:
    """Status of one answer and its JSON, None where it is none; (0, None) where the connection broke."""
    try:
        with closing(Connection(port)) as connection:
            status, body = connection.ask(request)
    except OSError:
        return 0, None
    try:
        return status, orjson.loads(body)
    except orjson.JSONDecodeError:
        return status, None


def closed_loop(
    port: int,
    requests: Sequence[bytes],
    connections: int,
    seconds: float,
    on_answer: Callable[[float, bytes], None] | None = None,
) -> Load:
    """Each connection asks again as soon as it is answered; `requests` in turn."""
    return _run(port, requests, connections, seconds, None, on_answer)


def ask_each(port: int, requests: Sequence[bytes], connections: int) -> int:
    """Each of `requests` once, a share of them on each connection; how many were not answered by 2xx."""

    def share(first: int) -> int:
        connection = Connection(port)
        asked = range(first, len(requests), connections)
        failed = sum(not 200 <= connection.ask(requests[at])[0] < 300 for at in asked)
        connection.close()
        return failed

    with ThreadPoolExecutor(connections) as threads:
        return sum(threads.map(share, range(connections)))


def open_loop(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, rate: float
) -> Load:
    """Requests come at random times, `rate` a second, whatever the server does.

    A latency counts from when a request was due, so waiting for a free connection is in it.
    """
    return _run(port, requests, connections, seconds, rate, None)


def _run(
    port: int,
    requests: Sequence[bytes],
    connections: int,
    seconds: float,
    rate: float | None,
    on_answer: Callable[[float, bytes], None] | None,
) -> Load:
    selector = selectors.DefaultSelector()
    free: deque[Connection] = deque()  # the one that rested longest is used next

    def connect() -> None:
        connection = Connection(port)
        connection.socket.setblocking(False)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        free.append(connection)

    for _ in range(connections):
        connect()
    rng = np.random.default_rng(0)
    load, sent = Load([], 0, 0.0), 0
    started = time.perf_counter()
    end, due = started + seconds, started
    begun: dict[int, float] = {}
    waiting: list[float] = []
    try:
        while True:
            now = time.perf_counter()
            if now >= end and not begun:
                break
            if rate is not None:
                while due <= min(now, end):
                    heapq.heappush(waiting, due)
                    due += rng.exponential(1 / rate)
            while free and now < end and (rate is None or waiting):
                connection = free.popleft()
                begun[id(connection)] = now if rate is None else heapq.heappop(waiting)
                connection.socket.sendall(requests[sent % len(requests)])
                sent += 1
            pause = None if rate is None else max(0.0, min(due, end) - time.perf_counter())
            for ready, _ in selector.select(0.05 if pause is None else min(pause, 0.05)):
                connection = ready.data
                more = connection.socket.recv(262_144)
                if not more and id(connection) not in begun:  # it rested too long
                    free.remove(connection)
                    selector.unregister(connection.socket)
                    connection.close()
                    connect()
                    continue
                if not more:
                    raise ConnectionError("the server closed the connection")
                connection.buffer += more
                found = take_answer(connection.buffer)
                if found is None:
                    continue
                status, body, connection.buffer = found
                moment = time.perf_counter()
                load.latencies.append(moment - begun.pop(id(connection)))
                load.errors += not 200 <= status < 300
                if on_answer is not None:
                    on_answer(moment, body)
                free.append(connection)
    finally:
        load.seconds = time.perf_counter() - started
        for key in list(selector.get_map().values()):
            key.data.close()
        selector.close()
    return load
