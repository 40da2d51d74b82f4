"""Worker processes: a parent that starts them, replaces those that end or stand still, and stops them."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from types import FrameType

import structlog

from recsys.errors import RecsysError

log = structlog.get_logger(__name__)

Alive = Callable[[], None]

LOOK_SECONDS = 0.2  # a signal is acted upon within as long
PAUSE_SECONDS = 2.0  # before one is started again that ended before it was ready
STALL_SECONDS = 30.0  # a worker that has served and says nothing for as long is killed
FAILED = 3  # exit status where the work raised an error
FORK = multiprocessing.get_context("fork")  # what the parent shares is inherited


@dataclass
class _Worker:
    slot: int
    process: BaseProcess
    heartbeats: connection.Connection
    heard_at: float | None = None  # the last heartbeat, in seconds of time.monotonic

    @property
    def is_ready(self) -> bool:
        return self.heard_at is not None

    def look(self, now: float) -> bool:
        """Whether it lives; takes in its heartbeats."""
        alive = self.process.is_alive()
        with suppress(EOFError, OSError):
            while self.heartbeats.poll():
                self.heartbeats.recv_bytes()
                self.heard_at = now
        return alive


class WorkerProcesses:
    """`count` processes that each run `work(slot, alive)`; slots are 0 to count - 1.

    `work` calls `alive` once it serves, and then at least every few seconds: one that has not for
    `stall_seconds` is killed and replaced. `ended` is told the pid of each process that has ended.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[int, Alive], None],
        ended: Callable[[int], None],
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._work, self._ended, self._stall_seconds = work, ended, stall_seconds
        self._workers: list[_Worker] = []
        self._due = dict.fromkeys(range(count), 0.0)  # slots without a process: when to start one
        self._served = False  # whether any has been ready
        self._stopping = self._replacing = False

    def run(self, grace_seconds: float) -> None:
        """Keep them running until SIGTERM or SIGINT; then they have `grace_seconds` to finish.

        SIGHUP replaces them one after the other. One may end in any way: another takes its slot.
        Raises RecsysError where one fails with an error before any was ready.
        """
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            while not self._stopping:
                self._start_those_due()
                self._look()
                if self._replacing:
                    self._replacing = False
                    self._replace_all(grace_seconds)
        finally:
            self._stopping = True
            self._stop(list(self._workers), grace_seconds)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._replacing = True
        else:
            self._stopping = True

    def _start_those_due(self) -> None:
        now = time.monotonic()
        for slot in [slot for slot, due in self._due.items() if due <= now]:
            del self._due[slot]
            self._start(slot)

    def _start(self, slot: int) -> _Worker:
        heartbeats, beating = FORK.Pipe(duplex=False)
        process = FORK.Process(target=self._run_work, args=(slot, beating), name=f"worker-{slot}")
        process.start()
        beating.close()
        worker = _Worker(slot, process, heartbeats)
        self._workers.append(worker)
        return worker

    def _run_work(self, slot: int, beating: connection.Connection) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        try:
            self._work(slot, lambda: beating.send_bytes(b"."))
        except Exception:
            log.exception("a worker failed", slot=slot)
            sys.exit(FAILED)

    def _look(self) -> None:
        """Wait until a worker ends, or LOOK_SECONDS; note those that have ended, kill those that stall."""
        connection.wait([worker.process.sentinel for worker in self._workers], LOOK_SECONDS)
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.look(now):
                self._served = self._served or worker.is_ready
                if worker.heard_at is not None and now - worker.heard_at > self._stall_seconds:
                    log.error("a worker stands still", slot=worker.slot)
                    worker.process.kill()
                continue
            worker.process.join()
            worker.heartbeats.close()
            self._workers.remove(worker)
            if worker.process.pid is not None:
                self._ended(worker.process.pid)
            if not self._stopping:
                self._note_end(worker)

    def _note_end(self, worker: _Worker) -> None:
        if any(other.slot == worker.slot for other in self._workers):
            return  # it was replaced, or was to replace another
        status = worker.process.exitcode
        log.error("a worker has ended", slot=worker.slot, exit_code=status)
        if status == FAILED and not self._served:
            raise RecsysError("no worker can start")
        pause = 0.0 if worker.is_ready else PAUSE_SECONDS
        self._due[worker.slot] = time.monotonic() + pause

    def _replace_all(self, grace_seconds: float) -> None:
        """A new one first, and the old one stops once that is ready."""
        for old in list(self._workers):
            new = self._start(old.slot)
            while new in self._workers and not new.is_ready and not self._stopping:
                self._look()
            if new in self._workers and not self._stopping:
                self._stop([old], grace_seconds)

    def _stop(self, workers: list[_Worker], grace_seconds: float) -> None:
        for worker in workers:
            worker.process.terminate()
        end = time.monotonic() + grace_seconds
        while left := [worker for worker in workers if worker in self._workers]:
            if time.monotonic() >= end:
                for worker in left:
                    worker.process.kill()
            self._look()
