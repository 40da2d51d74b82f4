"""Rate limits counted on one machine, and by several through a real Redis."""

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

from recsys.config import Settings, effective, load_settings
from recsys.errors import ConfigError
from recsys.web import rate_limits
from recsys.web.rate_limits import RateLimits, RedisLimits, open_limits


@pytest.fixture
def redis_server(tmp_path):
    """(address, process) of a server of its own."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no Redis: install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0", process
        process.kill()


def test_two_machines_count_together(redis_server, monkeypatch):
    monkeypatch.setattr(rate_limits, "REDIS_SECONDS", 30.0)  # a busy machine is not an absent Redis
    one, two = RedisLimits(redis_server[0]), RedisLimits(redis_server[0])
    waits = [(one, two)[n % 2].seconds_to_wait("shop", 6) for n in range(8)]
    assert waits[:6] == [0.0] * 6
    assert 0 < waits[6] <= 10
    assert 0 < waits[7] <= 10
    assert two.seconds_to_wait("another", 6) == 0.0


def test_without_redis_each_machine_counts_by_itself(redis_server, monkeypatch):
    monkeypatch.setattr(rate_limits, "REDIS_SECONDS", 30.0)
    address, process = redis_server
    counting = RedisLimits(address)
    assert counting.seconds_to_wait("shop", 2) == 0.0
    process.kill()
    process.wait()
    found = [counting.seconds_to_wait("shop", 2) for _ in range(3)]
    assert found[:2] == [0.0, 0.0]
    assert found[2] > 0


def test_the_allowance_comes_back_evenly():
    counting = RateLimits()
    assert [counting.seconds_to_wait("shop", 2, now=100.0) for _ in range(2)] == [0.0, 0.0]
    assert counting.seconds_to_wait("shop", 2, now=100.0) == pytest.approx(30.0)
    assert counting.seconds_to_wait("shop", 2, now=131.0) == 0.0


def test_where_limits_are_counted_is_checked_and_its_password_masked():
    assert isinstance(open_limits("memory"), RateLimits)
    for wrong in ("disk", "redis://", "http://x"):
        with pytest.raises(ConfigError, match=r"auth\.limits") as caught:
            load_settings(auth={"limits": wrong})
        assert "expected" in str(caught.value)
    settings = Settings(auth={"limits": "redis://me:secret@host:6379/0"})
    assert effective(settings)["auth"]["limits"] == "redis://me:***@host:6379/0"
    assert effective(Settings())["auth"]["limits"] == "memory"


def test_what_costs_more_uses_more_of_the_allowance():
    counting = RateLimits()
    assert counting.seconds_to_wait("shop", 100, 60, now=100.0) == 0.0
    assert counting.seconds_to_wait("shop", 100, 60, now=100.0) == pytest.approx(12.0)
    assert counting.seconds_to_wait("shop", 100, 40, now=100.0) == 0.0  # a refusal counts nothing
    assert counting.seconds_to_wait("shop", 100, 101, now=9_999.0) > 0  # never, however long ago


def test_a_process_killed_while_it_counts_holds_nobody_up(monkeypatch):
    counting = RateLimits()
    fork = multiprocessing.get_context("fork")

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(rate_limits.struct, "pack_into", die)
        killed = fork.Process(target=counting.seconds_to_wait, args=("shop", 1, 1, 100.0))
        killed.start()
        killed.join()
        assert killed.exitcode == -signal.SIGKILL
    other = fork.Process(target=counting.seconds_to_wait, args=("shop", 1, 1, 100.0))
    other.start()
    other.join(timeout=60)
    stuck = other.is_alive()
    other.kill()
    assert not stuck
    assert counting.seconds_to_wait("shop", 1, 1, 100.0) > 0  # the other was counted
