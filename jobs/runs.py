"""Wraps each job: the run's row, its heartbeat, progress and log, and how it ended.

A run lives in a child process of its own, at low priority, so that serving keeps its latency; what
it does there is in retrain.py, refresh.py and prune.py.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from jobs import prune, refresh, retrain
from recsys.config import Settings
from recsys.errors import RecsysError
from recsys.storage import job_rows
from recsys.storage.database import Database, open_database

log = structlog.get_logger(__name__)

BEAT_SECONDS = 2.0
LOST_SECONDS = 60.0  # without a heartbeat a run counts as lost
STOP_SECONDS = 10.0  # from asking a process to end to killing it


class CancelledRunError(RecsysError):
    """The run was asked to stop."""


def now_us() -> int:
    return time.time_ns() // 1_000


@dataclass
class RunLog:
    """What a job says of itself while it runs; writes at most every BEAT_SECONDS."""

    database: Database
    run_id: int
    cancelled: threading.Event = field(default_factory=threading.Event)
    _stage: str = "starting"
    _progress: float = 0.0

    def say(self, line: str) -> None:
        """Append a line to the run's log."""
        with self.database.begin() as connection:
            job_rows.add_line(connection, self.run_id, line, now_us())

    def at(self, stage: str, progress: float) -> None:
        """Where the run is; raises CancelledRunError where it should stop."""
        self._stage, self._progress = stage, progress
        if self.cancelled.is_set():
            raise CancelledRunError("cancelled on request")

    def beat(self) -> None:
        with self.database.begin() as connection:
            if job_rows.beat(connection, self.run_id, now_us(), self._stage, self._progress):
                self.cancelled.set()


Job = Callable[[Settings, Database, RunLog], dict[str, Any]]
JOBS: dict[str, Job] = {"retrain": retrain.run, "refresh": refresh.run, "prune": prune.run}
assert tuple(JOBS) == job_rows.JOBS


def run_in_this_process(settings: Settings, run_id: int) -> bool:
    """Take the requested run and do it here; True where it succeeded. Its row tells the rest."""
    database = open_database(settings)
    with database.connect() as connection:
        run = job_rows.get_run(connection, run_id)
    with database.begin() as connection:
        if not job_rows.start_run(connection, run_id, os.getpid(), socket.gethostname(), now_us()):
            log.warning("run was taken or cancelled before it began", run_id=run_id)
            return False
    run_log = RunLog(database, run_id)
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(run_log, done), daemon=True)
    beating.start()
    state, outcome, error = "succeeded", None, None
    try:
        outcome = JOBS[run.job](settings, database, run_log)
    except CancelledRunError:
        state = "cancelled"
    except RecsysError as reason:
        state, error = "failed", str(reason)
    except Exception as reason:  # a job is wrapped: whatever broke, the run's row must say so
        log.exception("run failed", run_id=run_id, job=run.job)
        state, error = "failed", f"{type(reason).__name__}: see the scheduler's log"
    finally:
        done.set()
        beating.join(timeout=STOP_SECONDS)
    with database.begin() as connection:
        job_rows.finish_run(connection, run_id, state, now_us(), outcome, error)
    return state == "succeeded"


def _beat(run_log: RunLog, done: threading.Event) -> None:
    while not done.wait(BEAT_SECONDS):
        try:
            run_log.beat()
        except RecsysError as error:
            log.warning("heartbeat not written", run_id=run_log.run_id, reason=str(error))


@dataclass
class Child:
    """A run in a process group of its own."""

    run_id: int
    process: subprocess.Popen[bytes]
    started: float  # time.monotonic

    @classmethod
    def start(cls, settings: Settings, run_id: int, config: Path | None) -> Child:
        command = [sys.executable, "-m", "jobs", "run", str(run_id)]
        if config is not None:
            command += ["--config", str(config)]
        nice = settings.schedule.nice
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: os.nice(nice),
        )
        return cls(run_id, process, time.monotonic())

    def stop(self) -> None:
        """End the whole process group: politely, then surely."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, signum)
            except ProcessLookupError:
                break
            try:
                self.process.wait(timeout=STOP_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()


def sweep_lost(database: Database) -> list[int]:
    """Mark running runs without a heartbeat as failed; their ids."""
    oldest = now_us() - int(LOST_SECONDS * 1e6)
    lost = []
    with database.begin() as connection:
        for run in job_rows.list_runs(connection, limit=1_000, state="running"):
            if (run.heartbeat_at_us or 0) < oldest:
                reason = "lost: no sign of life from its process"
                job_rows.finish_run(connection, run.id, "failed", now_us(), None, reason)
                lost.append(run.id)
    return lost
