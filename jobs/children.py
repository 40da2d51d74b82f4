"""Runs as child processes, each in a process group of its own, as their scheduler sees them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recsys.config import Settings
from recsys.storage.entities.job_rows import RunRow

STOP_SECONDS = 10.0  # from asking a process to end to killing it
PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """A run in a process group of its own."""

    run_id: int
    job: str
    process: subprocess.Popen[bytes]
    started: float  # time.monotonic
    verdict: tuple[str, str | None] | None = None  # state and reason, of one that was stopped

    @classmethod
    def start(cls, settings: Settings, run: RunRow, token: int, config: Path | None) -> Child:
        command = [sys.executable, "-m", "jobs", "run", str(run.id), "--token", str(token)]
        if config is not None:
            command += ["--config", str(config)]
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_prepare(settings.schedule.nice),
        )
        return cls(run.id, run.job, process, time.monotonic())

    @property
    def resident_mib(self) -> float:
        """What it and the processes it started hold in memory now that is no file's (those give way);
        0 where it has ended.
        """
        others = _descendants(self.process.pid)
        shared = _memory_kib(self.process.pid, "RssShmem:")  # others may share the same
        own = sum(_memory_kib(pid, "RssAnon:") for pid in (self.process.pid, *others))
        return (own + shared) / 1024

    def stop(self) -> None:
        """End the whole process group: politely, then surely."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, signum)
                self.process.wait(timeout=STOP_SECONDS)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()


def _descendants(pid: int) -> list[int]:
    """Processes that `pid` started, and those that they started."""
    found, waiting = [], [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            try:
                children = [int(one) for one in task.read_text(encoding="ascii").split()]
            except OSError:
                continue
            found += children
            waiting += children
    return found


def _memory_kib(pid: int, kind: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(kind))


def _prepare(nice: int) -> Callable[[], None]:
    library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def prepare() -> None:
        os.nice(nice)
        if library is not None:  # the kernel ends the child with its parent
            library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return prepare


def stop_orphan(run: RunRow) -> bool:
    """Kill a run of this machine that another scheduler launched; whether there was one."""
    if run.pid is None:
        return False
    try:
        command = Path(f"/proc/{run.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    wanted = [b"-m", b"jobs", b"run", str(run.id).encode()]
    if command[1 : 1 + len(wanted)] != wanted:  # the number was given to another process since
        return False
    try:
        os.killpg(run.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True
