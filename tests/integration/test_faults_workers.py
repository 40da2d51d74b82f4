"""A real server whose workers are killed, whose files run out, and that is told to stop."""

import os
import re
import resource
import signal
import socket
import time
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from bench.load import Connection, request_bytes
from bench.servers import running
from recsys.storage.engine.database import Database
from recsys.storage.entities import key_rows
from recsys.storage.schema import migrate

EVENT = b'{"user_id":"u","item_id":"i","event_type":"view"}'
COUNTED = re.compile(r'^recsys_requests_total{.*route="/health/live".*} (\d+)', re.MULTILINE)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """An empty shop: the address of its database, its folder, an admin key."""
    folder = tmp_path_factory.mktemp("workers")
    url = f"sqlite:///{folder}/recsys.db"
    database = Database(url)
    migrate.upgrade(database)
    with database.begin() as connection:
        key = key_rows.create_key(connection, "test", ["admin"], 1)
    database.close()
    return url, folder, key


@pytest.fixture(scope="module")
def served(shop):
    """A server of two workers: its port and process."""
    url, folder, _ = shop
    with running(url, folder, workers=2) as found:
        yield found


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def answers(port):
    """Whether a request is answered: one that the kernel gave to a worker that was killed is not."""
    try:
        return get(port, "/health/live")
    except ConnectionError:
        return None


def workers(process):
    """Those that answer by now, by their sockets."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return [int(pid) for pid in file.read().split() if listens(pid)]


def listens(pid):
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    listening = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}") as file:
            listening |= {row.split()[9] for row in file.readlines()[1:] if row.split()[3] == "0A"}
    return any(link.removeprefix("socket:[").removesuffix("]") in listening for link in links)


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGABRT", "SIGKILL"])
def test_a_worker_that_ends_costs_neither_the_service_nor_its_figures(served, number):
    port, process = served
    wait_for(lambda: len(workers(process)) == 2)
    get(port, "/health/live")
    counted = sum(map(int, COUNTED.findall(get(port, "/metrics"))))
    gone = workers(process)[0]
    os.kill(gone, getattr(signal, number))
    wait_for(lambda: gone not in workers(process))
    wait_for(lambda: answers(port))  # by the other one
    assert sum(map(int, COUNTED.findall(get(port, "/metrics")))) == counted + 1
    wait_for(lambda: len(workers(process)) == 2)
    assert process.poll() is None


def test_sighup_replaces_the_workers_and_no_request_fails(served):
    port, process = served
    wait_for(lambda: len(workers(process)) == 2)
    before = set(workers(process))
    process.send_signal(signal.SIGHUP)

    def replaced():
        get(port, "/health/live")
        now = set(workers(process))
        return len(now) == 2 and not now & before

    wait_for(replaced)
    assert "recsys_requests_total" in get(port, "/metrics")


def test_a_worker_without_files_left_serves_again_once_there_are(served):
    port, process = served
    wait_for(lambda: len(workers(process)) == 2)
    before = workers(process)
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in before}
    for pid in before:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (80, limits[pid][1]))
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        time.sleep(1)
    for pid in before:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits[pid])

    def answered():
        try:
            return get(port, "/health/live")
        except OSError:
            return None

    wait_for(answered)
    assert workers(process) == before


def test_sigterm_lets_requests_in_hand_finish_and_waits_for_no_idle_client(shop):
    url, folder, key = shop
    with ExitStack() as stack:
        port, process = stack.enter_context(running(url, folder, workers=1))
        post = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        request = request_bytes("/api/v1/events", key, EVENT)
        post.sendall(request[:-5])
        idle = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        idle.sendall(b"GET /half HTTP/1.1\r\nHost")
        time.sleep(0.5)
        process.terminate()
        time.sleep(0.5)
        post.sendall(request[-5:])
        assert post.recv(64).startswith(b"HTTP/1.1 200")
        assert process.wait(20) == 0
    with Database(url).connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar() == 1


def test_a_full_disk_under_the_figures_costs_no_answer(shop):
    """A bound on the length of files stands for the disk: no worker gets a file for its figures."""
    url, folder, key = shop
    bound, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, (bound, most))
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, most))
        port, process = stack.enter_context(running(url, folder, workers=1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, most))
        before = workers(process)
        connection = stack.enter_context(closing(Connection(port)))
        for _ in range(3):
            assert connection.ask(request_bytes("/api/v1/items/popular", key))[0] == 200
        status, told = connection.ask(request_bytes("/metrics", ""))
        assert status == 200 and b"recsys_model_age_seconds" in told
        assert workers(process) == before
