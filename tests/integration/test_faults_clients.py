"""Hostile clients of a real server: slow, huge, deep and many; the others are answered meanwhile."""

import contextlib
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing
from itertools import islice

import pytest

from bench.drills.dashboard_client import log_in
from bench.drills.fault_routes import walk_routes
from bench.drills.fault_stage import workers_of
from bench.load import Connection, request_bytes
from bench.servers import running
from recsys.config import Settings
from recsys.errors import InputError
from recsys.ingest.row_conditions import Condition
from recsys.storage.engine.database import Database
from recsys.storage.entities import key_rows, passwords
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import accounts

MIB = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def url(folder):
    return f"sqlite:///{folder}/recsys.db"


@pytest.fixture(scope="module")
def served(folder, url):
    """A server of one worker with two threads; its port, an admin key and its process."""
    database = Database(url)
    migrate.upgrade(database)
    with database.begin() as connection:
        key = key_rows.create_key(connection, "test", ["admin"], 1)
    database.close()
    bounds = {"RECSYS_SERVING__THREADS": "2", "RECSYS_SERVING__MAX_BODY_BYTES": str(MIB)}
    bounds["RECSYS_AUTH__COLLECT_PER_MINUTE"] = "1000000"
    with running(url, folder, workers=1, **bounds) as (port, process):
        yield port, key, process


def ask(port, request):
    connection = Connection(port)
    try:
        return connection.ask(request)
    finally:
        connection.close()


def answered_within(port, key, seconds):
    """The seconds a neighbour's request takes."""
    started = time.monotonic()
    status, _ = ask(port, request_bytes("/api/v1/items/popular", key))
    assert status == 200
    spent = time.monotonic() - started
    assert spent < seconds
    return spent


def test_clients_that_send_half_a_head_hold_nobody_up(served):
    port, key, _ = served
    with ExitStack() as stack:
        for _ in range(40):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            slow.sendall(b"GET /api/v1/items/popular HTTP/1.1\r\nHost: x\r\nX-Slow")
        time.sleep(0.5)
        for _ in range(5):
            answered_within(port, key, 2.0)
        slow.sendall(b": 1\r\nX-API-Key: " + key.encode() + b"\r\n\r\n")
        assert slow.recv(64).startswith(b"HTTP/1.1 200")
        slow.settimeout(15)


EVENT = b'{"user_id":"u","item_id":"i","event_type":"view"}'


def open_post(port, key, body, framing=None):
    """A connection on which the head of a POST of `body` has been sent."""
    one = socket.create_connection(("127.0.0.1", port), timeout=20)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = request_bytes("/api/v1/events", key, body)[: -len(body)]
    if framing:
        head = head.replace(b"Content-Length: %d" % len(body), framing)
    one.sendall(head)
    return one


def status_of(one):
    """The status of the answer on a connection; 0 where it was closed without one."""
    answer = one.recv(64)
    return int(answer[9:12]) if answer else 0


@pytest.mark.parametrize(("clients", "seconds"), [(16, 0.005), (16, 0.1), (200, 0.1), (100, 1.0)])
def test_a_body_that_follows_its_head_later_is_waited_for(served, clients, seconds):
    port, key, _ = served
    with ExitStack() as stack:
        posts = [stack.enter_context(open_post(port, key, EVENT)) for _ in range(clients)]
        time.sleep(seconds)
        for one in posts:
            one.sendall(EVENT)
        assert {status_of(one) for one in posts} == {200}


def test_clients_that_send_half_a_body_hold_nobody_up(served):
    port, key, _ = served
    with ExitStack() as stack:
        slow = [stack.enter_context(open_post(port, "", EVENT)) for _ in range(100)]
        for one in slow:
            one.sendall(EVENT[:10])
        time.sleep(0.5)
        for _ in range(5):
            answered_within(port, key, 2.0)
            assert ask(port, request_bytes("/api/v1/events", key, EVENT))[0] == 200
        for one in slow:
            one.sendall(EVENT[10:])
        assert {status_of(one) for one in slow} == {401}


def test_a_thousand_connections_that_send_nothing_hold_nobody_up(served):
    port, key, process = served
    before = resident(process)
    with ExitStack() as stack:
        for _ in range(1_000):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        for _ in range(5):
            answered_within(port, key, 2.0)
    assert resident(process) - before < 64


def test_a_body_in_chunks_is_read_and_refused_once_it_is_too_long(served):
    port, key, _ = served
    chunked = b"Transfer-Encoding: chunked"
    with open_post(port, key, EVENT, chunked) as one:
        one.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENT), EVENT))
        assert status_of(one) == 200
    with open_post(port, key, EVENT, chunked) as one:
        for _ in range(2):
            one.sendall(b"%x\r\n%b\r\n" % (MIB - 1, b"x" * (MIB - 1)))
        assert status_of(one) == 413
    for given in (key, ""):
        with open_post(port, given, EVENT, chunked) as one:
            one.sendall(b"zz\r\nnot a chunk\r\n")
            assert status_of(one) == 400


def test_a_length_beyond_the_limit_is_refused_before_a_body_is_read(served):
    port, key, _ = served
    head = request_bytes("/api/v1/events", key, b"").replace(
        b"Content-Length: 0", b"Content-Length: 1000000000\r\nExpect: 100-continue"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
        one.sendall(head)
        assert status_of(one) == 413


def test_requests_of_other_kinds_are_answered(served):
    port, _, _ = served
    live = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    for sent, wanted in (
        (live.replace(b"1.1", b"1.0"), {200}),
        (live.replace(b"GET", b"HEAD"), {200}),
        (live.replace(b"Host", b"X: " + b"y" * 50_000 + b"\r\nHost"), {431}),
        (live.replace(b"live", b"live?" + b"q" * 50_000), {414, 431}),
        (b"nonsense\r\n\r\n", {400}),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
            one.sendall(sent)
            assert status_of(one) in wanted, sent[:40]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
        one.sendall(live)
        one.shutdown(socket.SHUT_WR)  # half closed: taken for gone, as nginx does
        assert status_of(one) in (0, 200)
    connection = Connection(port)
    connection.socket.sendall(live * 4)  # one after the other, sent at once
    assert [connection.ask(live)[0] for _ in range(5)] == [200] * 5
    connection.close()


def test_clients_that_do_not_close_hold_nobody_up(served):
    port, key, _ = served
    with ExitStack() as stack:
        for _ in range(30):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            one.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert one.recv(16).startswith(b"HTTP/1.1 200")
        answered_within(port, key, 2.0)


def test_a_head_that_comes_in_pieces_is_answered(served):
    port, _, _ = served
    with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
        for piece in (b"GET /health/live HT", b"TP/1.1\r\nHo", b"st: x\r\n", b"\r\n"):
            slow.sendall(piece)
            time.sleep(0.1)
        assert slow.recv(64).startswith(b"HTTP/1.1 200")
        slow.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")  # and the next on the same
        assert slow.recv(4_096)


def test_bodies_that_are_too_large_or_too_deep_are_refused(served):
    port, key, process = served
    before = resident(process)
    deep = b"[" * 10_000 + b"]" * 10_000
    object_deep = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
    for body in (deep, object_deep, b'{"user_id":"u","item_id":"i","properties":' + deep + b"}"):
        status, answer = ask(port, request_bytes("/api/v1/events", key, body))
        assert status == 422, answer
    huge = b'"' + b"x" * (10 * MIB) + b'"'
    for _ in range(3):
        try:
            status, _ = ask(port, request_bytes("/api/v1/events", key, huge))
        except OSError:  # closed while the rest was on its way
            continue
        assert status == 413
    for k in ("1000000000", "-1", "0", "1e9", "9" * 400):
        status, _ = ask(port, request_bytes(f"/api/v1/users/u/recommendations?k={k}", key))
        assert status == 422
    lines = b"\r\n".join(b"X-%d: y" % number for number in range(500))
    many = b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n\r\n"
    assert 400 <= ask(port, many)[0] < 500
    answered_within(port, key, 2.0)
    assert resident(process) - before < 64


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("levels", [60, 960, 1_000, 1_016, 1_023])
def test_bodies_that_json_only_just_takes_are_refused(bare, levels):
    deep = "[" * levels + "]" * levels
    bodies = [deep, *(f'{{"{name}":{deep}}}' for name in ("item_id", "events", "properties", "x"))]
    bodies += [f'{{"item_id":"i","user_id":"u","properties":{deep}}}', f'[{{"item_id":{deep}}}]']
    for rule in bare.app.url_map.iter_rules():
        if rule.rule.startswith("/api/v1/") and rule.methods & {"POST", "PUT", "PATCH"}:
            method = (rule.methods & {"POST", "PUT", "PATCH"}).pop()
            path = re.sub("<int:[^>]+>", "1", rule.rule)
            path = re.sub("<[^>]+>", "x", path).removeprefix("/api/v1")
            for body in bodies:
                answer = bare.client.open(
                    f"/api/v1{path}",
                    method=method,
                    data=body,
                    headers={"X-API-Key": bare.keys["admin"], "Content-Type": "application/json"},
                )
                assert 400 <= answer.status_code < 500, (method, path, body[:40])


def test_a_burst_is_answered_or_shed(served):
    port, key, process = served
    before = resident(process)
    statuses, request = [], request_bytes("/api/v1/items/popular", key)

    def one():
        try:
            statuses.append(ask(port, request)[0])
        except OSError:
            statuses.append(0)

    threads = [threading.Thread(target=one) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 429, 503, 0}
    assert statuses.count(200) >= 150
    assert resident(process) - before < 64
    answered_within(port, key, 2.0)


def test_an_expression_is_read_in_time_that_grows_with_its_length():
    for text in (" " * 100_000, "a" + " " * 100_000, "=" * 100_000, "a" * 100_000 + "!"):
        started = time.monotonic()
        with contextlib.suppress(InputError):
            Condition.parse(text, "filter")
        assert time.monotonic() - started < 0.5


def test_hostile_values_on_every_route_let_nobody_in_and_tell_nothing(served, url, folder):
    port, _, process = served
    fault = walk_routes(port, url, Settings(registry={"path": folder}), rounds=1)
    assert fault.held, fault.figures
    assert process.poll() is None


def resident(process):
    """MiB that the server's workers hold."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        pids = [process.pid, *map(int, file.read().split())]
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))
    return total / 1_024


@pytest.mark.parametrize("threads", [1, 2])
def test_log_ins_leave_every_thread_to_other_requests(served, url, folder, threads):
    """Four at once, of which each would take half a minute: the others are answered before one ends."""
    _, key, _ = served
    with closing(Database(url)) as database, database.begin() as connection:
        names = [f"slow-{threads}-{number}" for number in range(4)]
        costly = {"password_hash": passwords.NOBODY.replace("$3$", "$400$")}
        costly.update(role="viewer", created_at_us=1)
        connection.execute(accounts.insert(), [{"name": name, **costly} for name in names])
    server = running(url, folder, workers=1, RECSYS_SERVING__THREADS=str(threads))
    with server as (port, process), ThreadPoolExecutor(4) as crowd:
        answers = [crowd.submit(log_in, port, name) for name in names]
        refused = [done.result() for done in islice(as_completed(answers), 2)]
        for _ in range(5):
            assert ask(port, request_bytes("/api/v1/items/popular", key))[0] == 200
        waiting = [answer for answer in answers if not answer.done()]
        for pid in workers_of(process):
            os.kill(pid, signal.SIGKILL)
    assert refused == [503, 503] and len(waiting) == 2
