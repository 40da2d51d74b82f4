"""Worker processes are started again however they end, replaced and stopped in order."""

import faulthandler
import os
import signal
import threading
import time

import pytest

from recsys.errors import RecsysError
from recsys.web import worker_processes
from recsys.web.worker_processes import WorkerProcesses


@pytest.fixture
def notes(tmp_path):
    """A folder where each worker leaves a file named slot-pid once it is ready."""
    return tmp_path


def pids(notes, slot=None):
    return {
        int(pid)
        for place, _, pid in (path.name.partition("-") for path in notes.iterdir())
        if slot in (None, int(place))
    }


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def supervised(count, work, script, grace_seconds=5.0, stall_seconds=60.0):
    """Run the workers while `script` runs in a thread, which ends by stopping them; pids that ended."""
    ended, failures = [], []

    def follow():
        try:
            script()
        except BaseException as error:
            failures.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=follow)
    thread.start()
    WorkerProcesses(count, work, ended.append, stall_seconds).run(grace_seconds)
    thread.join()
    if failures:
        raise failures[0]
    return ended


def waiting(notes):
    def work(slot, alive):
        faulthandler.disable()
        (notes / f"{slot}-{os.getpid()}").touch()
        alive()
        time.sleep(60)

    return work


@pytest.mark.parametrize("number", ["SIGTERM", "SIGABRT", "SIGKILL", "SIGHUP", "SIGSEGV"])
def test_a_worker_that_ends_by_any_signal_is_started_again(notes, number):
    killed = []

    def script():
        wait_for(lambda: len(pids(notes)) == 2)
        time.sleep(0.3)  # noted as ready
        killed.extend(pids(notes, 1))
        os.kill(killed[0], getattr(signal, number))
        wait_for(lambda: len(pids(notes, 1)) == 2)
        assert len(pids(notes, 0)) == 1

    ended = supervised(2, waiting(notes), script)
    assert ended[0] == killed[0]
    assert set(ended) == pids(notes)  # none is left


def test_a_worker_that_stands_still_is_replaced_and_one_that_beats_is_not(notes):
    def work(slot, alive):
        (notes / f"{slot}-{os.getpid()}").touch()
        while True:
            alive()
            time.sleep(0.05)

    def script():
        wait_for(lambda: len(pids(notes)) == 2)
        time.sleep(0.3)  # noted as ready
        os.kill(next(iter(pids(notes, 1))), signal.SIGSTOP)
        wait_for(lambda: len(pids(notes, 1)) == 2)
        time.sleep(1.5)  # longer than a worker may be silent
        assert [len(pids(notes, slot)) for slot in (0, 1)] == [1, 2]

    assert len(supervised(2, work, script, stall_seconds=1.0)) == 3


def test_workers_are_replaced_one_after_the_other(notes):
    def script():
        wait_for(lambda: len(pids(notes)) == 2)
        os.kill(os.getpid(), signal.SIGHUP)
        wait_for(lambda: len(pids(notes, 0)) == len(pids(notes, 1)) == 2)
        time.sleep(0.5)

    ended = supervised(2, waiting(notes), script)
    assert len(ended) == 4 and set(ended) == pids(notes)


def test_requests_in_hand_have_their_time_and_no_more(notes):
    def work(slot, alive):
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        alive()
        (notes / f"{slot}-{os.getpid()}").touch()
        time.sleep(60)

    started = []

    def script():
        wait_for(lambda: pids(notes))
        started.append(time.monotonic())

    supervised(1, work, script, grace_seconds=1.0)
    assert 0.9 < time.monotonic() - started[0] < 5


def test_that_none_can_start_is_told(capsys):
    def work(slot, alive):
        raise ValueError("no model")

    with pytest.raises(RecsysError, match="no worker can start"):
        WorkerProcesses(2, work, lambda pid: None).run(1.0)


def test_one_that_fails_later_is_tried_again_after_a_pause(notes, monkeypatch):
    monkeypatch.setattr(worker_processes, "PAUSE_SECONDS", 0.1)

    def work(slot, alive):
        first = not pids(notes)
        (notes / f"{slot}-{os.getpid()}").touch()
        if not first and len(pids(notes)) < 4:
            raise ValueError("just now not")
        alive()
        time.sleep(60)

    def script():
        wait_for(lambda: len(pids(notes)) == 1)
        time.sleep(0.5)
        os.kill(next(iter(pids(notes))), signal.SIGKILL)
        wait_for(lambda: len(pids(notes)) == 4)

    assert len(supervised(1, work, script)) == 4
