"""Attacks on the service itself, most of them without a key: signals, connections, log-ins, odd requests."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import orjson

from bench.drills.dashboard_client import Dashboard, log_in
from bench.drills.fault_stage import Fault, ask, seconds_until, told, workers_of
from bench.installations import Installation
from bench.load import closed_loop, request_bytes, take_answer

CALM_P99_MS = 1_000.0  # of a neighbour; more on a machine that does other things too:
TIMES_CALM = 10.0
LOG_INS = 16
METRICS = request_bytes("/metrics")
LIVE = request_bytes("/health/live")
PAGE = re.compile(r'href="(/admin/[a-z-]+)"')


def ended_workers(place: Installation) -> Fault:
    """A worker that ends by TERM or ABRT, and all of them by the service's HUP."""
    figures: dict[str, Any] = {}
    for name, number in (
        ("TERM", signal.SIGTERM),
        ("ABRT", signal.SIGABRT),
        ("HUP", signal.SIGHUP),
    ):
        with place.serving(workers=2) as (port, server):
            ask(port, METRICS)
            old = set(workers_of(server) if name == "HUP" else workers_of(server)[:1])
            for pid in [server.pid] if name == "HUP" else old:
                os.kill(pid, number)
            seconds_until(partial(_replaced, server, old), 120)
            time.sleep(2)  # while those that are new begin
            asked = Counter(ask(port, one) for one in (LIVE, METRICS, place.with_sequence) * 5)
            figures[name] = {"statuses": told(asked), "service_ended": server.poll() is not None}
    held = all(one["statuses"] == {"200": 15} for one in figures.values())
    return Fault("workers end by TERM and ABRT, the service is told HUP", held, figures)


def _replaced(server: subprocess.Popen[bytes], old: set[int]) -> bool:
    if server.poll() is not None:
        return True
    now = workers_of(server)
    return not old & set(now) and len(now) >= 2


def late_bodies(place: Installation, clients: int = 16, each: int = 5) -> Fault:
    """POSTs whose body follows its head 100 ms later."""
    statuses: Counter[int] = Counter()
    with place.serving() as (port, _):
        ask(port, place.with_sequence)

        def post(number: int) -> None:
            for n in range(each):
                event = {
                    "user_id": f"late-{number}",
                    "item_id": "P0001",
                    "event_id": f"{number}-{n}",
                }
                whole = place.asks("/events", event)
                statuses[_in_two(port, whole, len(orjson.dumps(event)), 0.1)] += 1

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(post, range(clients)))
    held = set(statuses) == {200}
    return Fault(
        f"{clients} clients send a body 100 ms after its head", held, {"statuses": told(statuses)}
    )


def _in_two(port: int, whole: bytes, last: int, seconds: float) -> int:
    """The status of a request whose `last` bytes come later; 0 where the connection broke."""
    try:
        with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as one:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.sendall(whole[:-last])
            time.sleep(seconds)
            one.sendall(whole[-last:])
            return _status(one)
    except OSError:
        return 0


def _status(one: socket.socket) -> int:
    buffer = b""
    while (found := take_answer(buffer)) is None:
        more = one.recv(65_536)
        if not more:
            return 0
        buffer += more
    return found[0]


def keyless_posts(place: Installation, connections: int = 8, posts: int = 20) -> Fault:
    """Connections without a key that hold half a body, and the shop's server beside them."""
    statuses: Counter[int] = Counter()
    slowest = 0.0
    half = request_bytes("/api/v1/events", "", b"x" * 1_000)[:-900]
    with place.serving() as (port, _), ExitStack() as stack:
        ask(port, place.with_sequence)
        for _ in range(connections):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            one.sendall(half)
        time.sleep(0.5)
        for number in range(posts):
            event = {"user_id": "u", "item_id": "P0001", "event_id": f"beside-{number}"}
            whole = place.asks("/events", event)
            began = time.monotonic()
            statuses[_in_two(port, whole, len(orjson.dumps(event)), 0.005)] += 1
            slowest = max(slowest, time.monotonic() - began)
    figures = {"statuses": told(statuses), "slowest_seconds": round(slowest, 2)}
    held = set(statuses) == {200} and slowest < 5
    return Fault(f"{connections} connections without a key hold half a body", held, figures)


def log_in_crowd(place: Installation, seconds: float = 5.0) -> Fault:
    """Log-ins with wrong passwords, LOG_INS at a time, beside four who ask for recommendations."""
    with place.serving() as (port, _):
        ask(port, place.with_sequence)
        calm = closed_loop(port, [place.with_sequence], 4, seconds).plain()
        stop = threading.Event()
        statuses: Counter[int] = Counter()

        def crowd(number: int) -> None:
            while not stop.is_set():
                statuses[log_in(port, f"nobody-{number}")] += 1

        with ThreadPoolExecutor(LOG_INS) as pool:
            for number in range(LOG_INS):
                pool.submit(crowd, number)
            beside = closed_loop(port, [place.with_sequence], 4, seconds).plain()
            stop.set()
    figures = {"statuses": told(statuses), "calm": calm, "beside": beside}
    most = max(CALM_P99_MS, TIMES_CALM * calm["p99_ms"])
    held = beside["errors"] == 0 and beside["p99_ms"] < most and 500 not in statuses
    return Fault(f"{LOG_INS} at once try passwords", held, figures)


def rotating_address(place: Installation, attempts: int = 40) -> Fault:
    """Log-ins of ever new names, from ever new addresses of one IPv6 network."""
    statuses: Counter[int] = Counter()
    with place.serving({"RECSYS_SERVING__TRUSTED_PROXIES": "1"}) as (port, _):
        for number in range(attempts):
            headers = {"X-Forwarded-For": f"2001:db8:1:2::{number + 1:x}"}
            statuses[log_in(port, f"name-{number}", headers)] += 1
    figures = {"statuses": told(statuses)}
    return Fault(f"{attempts} log-ins from one IPv6 network", statuses[429] > 0, figures)


def no_files_left(place: Installation, connections: int = 300) -> Fault:
    """Workers that may open 80 files, and more connections than that."""
    with place.serving() as (port, server):
        ask(port, place.with_sequence)
        before = set(workers_of(server))
        for pid in before:
            _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (80, most))
        with ExitStack() as stack:
            for _ in range(connections):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            seconds_until(lambda: before - set(workers_of(server)), 15)
        ended = len(before - set(workers_of(server))) if server.poll() is None else len(before)
        answered = seconds_until(lambda: ask(port, LIVE) == 200, 30)
    figures = {"workers_ended": ended, "answers_again": answered is not None}
    return Fault("workers run out of files", ended == 0 and answered is not None, figures)


def odd_requests(place: Installation) -> Fault:
    """What has to be refused, and as what: not as a fault of the service, and not as another address."""
    found: dict[str, Any] = {}
    with place.serving({"RECSYS_SERVING__MAX_BODY_BYTES": "65536"}) as (port, _):
        browser = Dashboard(port)
        browser.log_in("admin", place.admin_password)
        _, overview, _ = browser.get("/admin/overview")
        pages = sorted(set(PAGE.findall(overview)))
        for name in ("endpoint=x", "_method=POST"):
            statuses = [browser.get(f"{page}?{name}")[0] for page in pages]
            found[f"pages with 500 for ?{name}"] = sum(status >= 500 for status in statuses)
        chunked = request_bytes("/api/v1/events", place.admin_key, b"")
        chunked = chunked.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        long = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        found["chunks over the limit"] = ask(port, chunked + long * 2 + b"0\r\n\r\n")
        keyless = chunked.replace(place.admin_key.encode(), b"")
        found["a bad chunk without a key"] = ask(port, keyless + b"zzz\r\nno chunk\r\n")
        found["//metrics"] = ask(port, request_bytes("//metrics"))
        leads_to = []
        for path in ("/admin/../shop", "/admin/%252e%252e/shop", "/admin/..%5cshop", "/adminx"):
            visitor = Dashboard(port)
            leads_to.append(visitor.log_in("admin", place.admin_password, f"?next={path}")[2])
    found["log-ins that lead out of /admin"] = sum(one != "/admin/" for one in leads_to)
    found["pages"] = len(pages)
    held = (
        found["pages"] > 3
        and found["pages with 500 for ?endpoint=x"] == 0
        and found["pages with 500 for ?_method=POST"] == 0
        and found["chunks over the limit"] == 413
        and found["a bad chunk without a key"] in (400, 401)
        and found["//metrics"] == 404
        and found["log-ins that lead out of /admin"] == 0
    )
    return Fault("odd requests", held, found)
