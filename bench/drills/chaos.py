"""bench chaos: schedulers and trainings killed at random, with real processes on one database.

What must hold: each slot is run once, whoever leads; the champion goes on answering whatever happens
to a training; nothing is left running, and the next training succeeds.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.load import Connection, request_bytes
from bench.servers import running
from recsys.demo.simulation import Shop, ShopSize
from recsys.errors import RecsysError
from recsys.events.times import to_us
from recsys.ingest.event_files import ReadOptions
from recsys.pipeline import import_events
from recsys.progress import Say, quiet
from recsys.registry import read_version
from recsys.storage.engine.database import Database
from recsys.storage.entities import job_rows, key_rows, lease_rows, version_rows
from recsys.storage.entities.job_rows import RunRow
from recsys.storage.schema import migrate

INTERVAL_SECONDS = 6
LEASE_SECONDS = 1.5
WAIT_SECONDS = 120.0


@dataclass
class Stage:
    """One database, its models, and the schedulers that run on them."""

    database: Database
    environment: dict[str, str]
    folder: Path
    schedulers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start_scheduler(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs"],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.schedulers[process.pid] = process

    def leader(self) -> int | None:
        """The process that leads, if one does; ids of dead ones count as none."""
        with self.database.connect() as connection:
            holder = lease_rows.read_lease(connection, lease_rows.SCHEDULER).holder
        pid = int(holder.split(":")[1]) if holder else None
        return pid if pid in self.schedulers else None

    def kill(self, pid: int) -> None:
        """SIGKILL, and no goodbye."""
        process = self.schedulers.pop(pid)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self.schedulers.values():
            process.send_signal(signal.SIGTERM)
        for process in self.schedulers.values():
            process.wait(60)
        self.schedulers.clear()

    def until_followed(self, old: int) -> None:
        """Wait until another leads than `old`."""
        self.until("a take-over", lambda: self.leader() not in (None, old))

    def until_ended(self, run_id: int) -> RunRow:
        """Wait for the end of a run."""
        self.until("the run's end", lambda: self.run(run_id).state in job_rows.ENDED)
        return self.run(run_id)

    def until_running(self, run_id: int) -> RunRow:
        """Wait for a run to begin."""
        self.until("a running training", lambda: self.run(run_id).state != "requested")
        return self.run(run_id)

    def trained(self) -> tuple[RunRow, str]:
        """Train now; the run, and the champion after it."""
        run = self.until_ended(self.request("retrain"))
        version = self.champion()
        if version is None:
            raise RecsysError(f"chaos: the first training failed: {run.error}")
        return run, version

    def champion(self) -> str | None:
        with self.database.connect() as connection:
            found = version_rows.champion_name(connection)
        return found[0] if found else None

    def runs(self, job: str) -> list[RunRow]:
        with self.database.connect() as connection:
            return job_rows.list_runs(connection, limit=100_000, job=job)

    def run(self, run_id: int) -> RunRow:
        with self.database.connect() as connection:
            return job_rows.get_run(connection, run_id)

    def request(self, job: str) -> int:
        with self.database.begin() as connection:
            return job_rows.request_run(connection, job, "cli", now_us())

    def until(self, what: str, condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
        """Wait for a condition. Raises RecsysError where it does not come."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        raise RecsysError(f"chaos: {what} did not happen within {seconds:g} s")


def run_chaos(
    slots: int,
    leader_kills: int,
    training_kills: int,
    schedulers: int,
    seed: int,
    postgresql_url: str | None,
    say: Say = quiet,
) -> dict[str, Any]:
    """Kill leaders while slots come due, then trainings while the champion serves."""
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    with tempfile.TemporaryDirectory() as folder:
        stage = make_stage(Path(folder), postgresql_url)
        try:
            first = _slots(stage, slots, leader_kills, schedulers, rng, say)
        finally:
            stage.stop()
        try:
            second = _trainings(stage, training_kills, rng, say)
        finally:
            stage.stop()
            stage.database.close()
    return {**first, **second, "schedulers": schedulers}


def make_stage(folder: Path, postgresql_url: str | None) -> Stage:
    """A database with a small shop's events, and settings under which jobs are quick."""
    url = postgresql_url or f"sqlite:///{folder}/recsys.db"
    database = Database(url)
    if migrate.current(database) is not None:
        migrate.downgrade(database, "base")
    migrate.upgrade(database)
    shop = Shop(ShopSize(60, 150, 3_000), 3, now_us())
    path = folder / "events.parquet"
    pq.write_table(pa.concat_tables(shop.events()), path)
    import_events(database, path, ReadOptions(), datetime.now(UTC))
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RECSYS_")},
        "RECSYS_DATABASE__URL": url,
        "RECSYS_DATABASE__BUSY_TIMEOUT_SECONDS": "20",
        "RECSYS_REGISTRY__PATH": str(folder / "models"),
        "RECSYS_SCHEDULE__RETRAIN": "0 0 29 2 *",
        "RECSYS_SCHEDULE__REFRESH_MINUTES": str(INTERVAL_SECONDS / 60),
        "RECSYS_SCHEDULE__LEASE_SECONDS": str(LEASE_SECONDS),
        "RECSYS_SCHEDULE__POLL_SECONDS": "0.2",
        "RECSYS_MODEL__WIDTH": "8",
        "RECSYS_TRAINING__EPOCHS": "2",
        "RECSYS_TRAINING__THREADS": "1",
        "RECSYS_LOGGING__LEVEL": "error",
    }
    return Stage(database, environment, folder)


def _slots(
    stage: Stage, slots: int, kills: int, schedulers: int, rng: random.Random, say: Say
) -> dict[str, Any]:
    for _ in range(schedulers):
        stage.start_scheduler()
    stage.until("a first leader", stage.leader)
    takeovers: list[float] = []
    end = time.monotonic() + (slots + 2) * INTERVAL_SECONDS
    moments = sorted(rng.uniform(0, slots * INTERVAL_SECONDS) for _ in range(kills))
    started = time.monotonic()
    for number, moment in enumerate(moments):
        time.sleep(max(0.0, started + moment - time.monotonic()))
        leader = stage.until("a leader", stage.leader)
        gone = time.monotonic()
        stage.kill(leader)
        stage.start_scheduler()
        stage.until_followed(leader)
        takeovers.append(time.monotonic() - gone)
        say(f"leader {number + 1} of {kills} killed, followed after {takeovers[-1]:.1f} s")
    while time.monotonic() < end:
        time.sleep(0.2)
    stage.until("the end of what runs", lambda: not _unfinished(stage.runs("refresh")))
    claimed = stage.runs("refresh")
    times = sorted(run.scheduled_at_us for run in claimed if run.scheduled_at_us is not None)
    step = INTERVAL_SECONDS * 1_000_000
    wanted = range(times[0], times[-1] + 1, step)
    beginnings = [begun(stage, run.id) for run in claimed]
    return {
        "slots": len(wanted),
        "duplicate_slots": len(times) - len(set(times)) + sum(count > 1 for count in beginnings),
        "missed_slots": len(set(wanted) - set(times)),
        "slot_states": {
            state: sum(run.state == state for run in claimed)
            for state in sorted({run.state for run in claimed})
        },
        "leader_kills": len(takeovers),
        "takeover_p50_s": round(float(np.median(takeovers)), 2) if takeovers else None,
        "takeover_max_s": round(max(takeovers), 2) if takeovers else None,
        "lease_seconds": LEASE_SECONDS,
    }


def begun(stage: Stage, run_id: int) -> int:
    """How often a run was begun."""
    with stage.database.connect() as connection:
        lines = job_rows.get_lines(connection, run_id)
    return sum(line["message"].startswith("begun by") for line in lines)


def _unfinished(runs: list[RunRow]) -> list[RunRow]:
    return [run for run in runs if run.state not in job_rows.ENDED]


def _trainings(stage: Stage, kills: int, rng: random.Random, say: Say) -> dict[str, Any]:
    stage.environment["RECSYS_SCHEDULE__REFRESH_MINUTES"] = "1440"
    stage.start_scheduler()
    stage.until("a leader", stage.leader)
    first, champion = stage.trained()
    usual = _seconds(first)
    # From here on nothing is promoted: whatever answers differently is a fault.
    stage.environment["RECSYS_PROMOTION__MIN_POSITIONS"] = "10000000"
    stage.stop()
    stage.start_scheduler()
    stage.until("a leader", stage.leader)
    with stage.database.begin() as connection:
        key = key_rows.create_key(connection, "chaos", ["read"], now_us())
    ask = request_bytes("/api/v1/users/shopper-1/recommendations?k=5", key)
    kept = orphans = hit = 0
    url = stage.environment["RECSYS_DATABASE__URL"]
    registry = Path(stage.environment["RECSYS_REGISTRY__PATH"])
    with running(url, registry, workers=1) as (port, _):
        for number in range(kills):
            run_id = stage.request("retrain")
            run = stage.until_running(run_id)
            time.sleep(rng.uniform(0.0, usual))
            leader = stage.leader()
            if number % 2 and leader is not None:
                stage.kill(leader)  # its child goes with it
                stage.start_scheduler()
            elif run.pid is not None:
                _kill_group(run.pid)
            ended = stage.until_ended(run_id)
            connection_ = Connection(port)
            status, body = connection_.ask(ask)
            connection_.close()
            kept += status == 200 and champion.encode() in body and stage.champion() == champion
            orphans += _orphans(stage.folder)
            hit += ended.state != "succeeded"
            say(f"training {number + 1} of {kills}: {ended.error or ended.state}")
    final = stage.until_ended(stage.request("retrain"))
    with stage.database.connect() as connection:
        rows = version_rows.list_versions(connection, 100_000)
    for row in rows:  # every registered version is whole
        read_version(registry, row.version, row.manifest_sha256)
    return {
        "training_kills": kills,
        "trainings_hit": hit,  # the others had just ended
        "champion_kept": kept,
        "orphans": orphans,
        "half_versions": len(list(registry.glob(".*.part"))),
        "registered_versions": len(rows),
        "next_run": final.state,
        "training_seconds": round(usual, 1),
    }


def _seconds(run: RunRow) -> float:
    if run.resources is None:
        raise RecsysError(f"chaos: a training failed by itself: {run.error}")
    return float(run.resources["seconds"])


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _trainings_alive(folder: Path) -> list[int]:
    """Processes of runs that work on this stage."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            there = (entry / "cwd").resolve()
        except OSError:
            continue
        if command[1:4] == [b"-m", b"jobs", b"run"] and there == folder.resolve():
            found.append(int(entry.name))
    return found


def _orphans(folder: Path) -> int:
    """Runs that are there still after a process has had its time to go."""
    end = time.monotonic() + 5.0
    while (alive := _trainings_alive(folder)) and time.monotonic() < end:
        time.sleep(0.1)
    return len(alive)


def now_us() -> int:
    """µs since 1970, UTC."""
    return to_us(datetime.now(UTC))
