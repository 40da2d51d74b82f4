"""Databases that stop, are slow, full, locked or read-only, under reads and writes."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

from bench.drills.fault_stage import (
    Fault,
    OwnPostgres,
    Stage,
    ask,
    seconds_until,
    workers_of,
)
from bench.servers import running
from recsys.errors import StorageUnavailableError
from recsys.storage.engine.database import Database

RECOVERY_SECONDS = 5.0
SHM_BYTES = 32_768  # of SQLite's shared memory file: a smaller limit would kill its readers


class Traffic:
    """One reader and one writer, as fast as they are answered; what they were answered."""

    def __init__(self, stage: Stage, port: int) -> None:
        self._stage, self._port, self._stop = stage, port, threading.Event()
        self.reads: Counter[int] = Counter()
        self.writes: Counter[int] = Counter()
        self.acknowledged: list[str] = []
        self.slowest_read = 0.0
        self._threads = [threading.Thread(target=run) for run in (self._read, self._write)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def clear(self) -> None:
        """Count anew; what was acknowledged stays."""
        self.reads, self.writes, self.slowest_read = Counter(), Counter(), 0.0

    def _read(self) -> None:
        user = self._stage.asks("/users/shopper-000001/recommendations")
        requests = cycle([self._stage.with_sequence, user])  # the second may answer without history
        while not self._stop.is_set():
            started = time.monotonic()
            self.reads[ask(self._port, next(requests))] += 1
            self.slowest_read = max(self.slowest_read, time.monotonic() - started)
            time.sleep(0.01)

    def _write(self) -> None:
        number = 0
        while not self._stop.is_set():
            name = f"t{id(self)}-{number}"
            body = {"user_id": "t", "item_id": "P0001", "event_id": name}
            status = ask(self._port, self._stage.asks("/events", body))
            self.writes[status] += 1
            if status == 200:
                self.acknowledged.append(name)
            number += 1
            time.sleep(0.01)

    @property
    def writes_are_clear(self) -> bool:
        """Whether each write was stored or refused for now."""
        return set(self.writes) <= {200, 503}

    @property
    def read_failures(self) -> int:
        return sum(number for status, number in self.reads.items() if not 200 <= status < 500)

    def lost(self) -> int:
        """Acknowledged events that are not stored."""
        database = Database(self._stage.url)
        with database.connect() as connection:
            names = set(
                connection.exec_driver_sql(
                    "SELECT event_id FROM events WHERE substr(event_id, 1, 1) = 't'"
                ).scalars()
            )
        database.close()
        return len(set(self.acknowledged) - names)


def _shown(counts: Counter[int]) -> dict[str, int]:
    return {str(status): number for status, number in sorted(counts.items())}


def postgres_stopped(stage: Stage, server: OwnPostgres, seconds: float) -> Fault:
    """Stopped at once under load, started again after a while."""
    return _away("PostgreSQL stopped under load", stage, seconds, server.stop, server.start)


def postgres_hung(stage: Stage, server: OwnPostgres, seconds: float) -> Fault:
    """Its processes stand still for a while, then go on."""
    return _away("PostgreSQL hung under load", stage, seconds, server.pause, server.resume)


def _away(
    name: str, stage: Stage, seconds: float, stop: Callable[[], None], start: Callable[[], None]
) -> Fault:
    with running(stage.url, stage.registry, workers=2, **_patience(1)) as (port, _):
        write = stage.asks("/events", {"user_id": "r", "item_id": "P0001"})
        ask(port, stage.with_sequence)
        with Traffic(stage, port) as traffic:
            time.sleep(1.0)
            traffic.clear()
            stop()
            try:
                time.sleep(seconds)
                reads, writes = _shown(traffic.reads), _shown(traffic.writes)
            finally:
                start()
            recovered = seconds_until(lambda: ask(port, write) == 200, 60.0)
            time.sleep(1.0)
            failures, slowest = traffic.read_failures, traffic.slowest_read
        lost = traffic.lost()
    return Fault(
        name,
        failures == lost == 0 and traffic.writes_are_clear and _is_quick(recovered),
        {
            "seconds": seconds,
            "reads": reads,
            "writes": writes,
            "read_5xx": failures,
            "slowest_read_seconds": round(slowest, 2),
            "acknowledged_lost": lost,
            "recovery_seconds": None if recovered is None else round(recovered, 2),
        },
    )


def _is_quick(recovered: float | None) -> bool:
    return recovered is not None and recovered <= RECOVERY_SECONDS


def postgres_slow(stage: Stage, seconds: float) -> Fault:
    """Writes wait for a lock that another holds, again and again."""
    database = Database(stage.url)
    with running(stage.url, stage.registry, workers=2, **_patience(1)) as (port, _):
        ask(port, stage.with_sequence)
        with Traffic(stage, port) as traffic:
            time.sleep(0.5)
            traffic.clear()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                with database.begin() as connection:
                    connection.exec_driver_sql("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
                    time.sleep(0.8)
                time.sleep(0.1)
        failures, lost = traffic.read_failures, traffic.lost()
        reads, writes = _shown(traffic.reads), _shown(traffic.writes)
    database.close()
    return Fault(
        "PostgreSQL slow: tables locked most of the time",
        failures == lost == 0 and traffic.writes_are_clear,
        {
            "seconds": seconds,
            "reads": reads,
            "writes": writes,
            "read_5xx": failures,
            "slowest_read_seconds": round(traffic.slowest_read, 2),
            "acknowledged_lost": lost,
        },
    )


def postgres_out_of_connections(stage: Stage, seconds: float) -> Fault:
    """Others take every connection that is left."""
    with running(stage.url, stage.registry, workers=2, **_patience(1)) as (port, _):
        write = stage.asks("/events", {"user_id": "r", "item_id": "P0001"})
        ask(port, stage.with_sequence)
        with Traffic(stage, port) as traffic:
            time.sleep(0.5)
            traffic.clear()
            with _every_connection(stage.url) as taken:
                time.sleep(seconds)
            recovered = seconds_until(lambda: ask(port, write) == 200, 60.0)
        failures, lost = traffic.read_failures, traffic.lost()
    return Fault(
        "PostgreSQL out of connections",
        failures == lost == 0 and traffic.writes_are_clear and _is_quick(recovered),
        {
            "seconds": seconds,
            "connections_taken": taken[0],
            "reads": _shown(traffic.reads),
            "writes": _shown(traffic.writes),
            "read_5xx": failures,
            "acknowledged_lost": lost,
            "recovery_seconds": None if recovered is None else round(recovered, 2),
        },
    )


@contextmanager
def _every_connection(url: str) -> Iterator[list[int]]:
    database = Database(url, pool_size=100, busy_timeout_seconds=1.0)
    with contextlib.ExitStack() as held:
        taken = 0
        with contextlib.suppress(StorageUnavailableError):
            while taken < 150:
                held.enter_context(database.connect())
                taken += 1
        yield [taken]
    database.close()


def _patience(seconds: float) -> dict[str, str]:
    return {"RECSYS_DATABASE__BUSY_TIMEOUT_SECONDS": str(seconds)}


def sqlite_locked(stage: Stage, seconds: float) -> Fault:
    """Another writer holds the lock for longer than writers wait."""
    database = Database(stage.url)
    with running(stage.url, stage.registry, workers=2, **_patience(0.5)) as (port, _):
        ask(port, stage.with_sequence)
        with Traffic(stage, port) as traffic:
            time.sleep(0.5)
            traffic.clear()
            with database.begin() as connection:
                connection.exec_driver_sql("UPDATE stamps SET items = items")
                time.sleep(seconds)
            reads, writes = _shown(traffic.reads), _shown(traffic.writes)
            time.sleep(1.0)
        failures, lost = traffic.read_failures, traffic.lost()
    database.close()
    return _sqlite_fault("SQLite locked by another writer", stage, reads, writes, failures, lost)


def sqlite_full(stage: Stage, seconds: float) -> Fault:
    """Files of the database cannot grow for a while: a bound on the workers' files stands for a disk
    without room.
    """
    with running(stage.url, stage.registry, workers=2, **_patience(1)) as (port, server):
        ask(port, stage.with_sequence)
        with Traffic(stage, port) as traffic:
            time.sleep(0.5)
            traffic.clear()
            pids = workers_of(server)
            before = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids]
            for pid, (_, hard) in zip(pids, before, strict=True):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (2 * SHM_BYTES, hard))
            seconds_until(lambda: traffic.writes[503], 10.0)  # the log's file may have room still
            time.sleep(seconds)
            reads, writes = _shown(traffic.reads), _shown(traffic.writes)
            for pid, limits in zip(pids, before, strict=True):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
            write = stage.asks("/events", {"user_id": "r", "item_id": "P0001"})
            recovered = seconds_until(lambda: ask(port, write) == 200, 30.0)
        failures, lost = traffic.read_failures, traffic.lost()
    found = _sqlite_fault("SQLite without room", stage, reads, writes, failures, lost)
    more = {"recovery_seconds": None if recovered is None else round(recovered, 2)}
    held = found.held and recovered is not None and reads.keys() <= {"200"}
    return Fault(found.fault, held, {**found.figures, **more})


def sqlite_read_only(stage: Stage, seconds: float) -> Fault:
    """The file may be read and not written."""
    file = Database(stage.url).file
    assert file is not None
    url = f"sqlite:///file:{file}?mode=ro&uri=true"
    # A first connection that may write keeps the log's files in place, as on a file system that
    # became read-only while it served.
    keeper = Database(stage.url)
    with keeper.connect() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM events")
        with running(url, stage.registry, workers=2, **_patience(0.5)) as (port, _):
            with Traffic(stage, port) as traffic:
                time.sleep(seconds)
            reads, writes = _shown(traffic.reads), _shown(traffic.writes)
    keeper.close()
    return _sqlite_fault(
        "SQLite on a read-only file system",
        stage,
        reads,
        writes,
        traffic.read_failures,
        len(traffic.acknowledged),
    )


def _sqlite_fault(
    name: str, stage: Stage, reads: dict[str, int], writes: dict[str, int], failures: int, lost: int
) -> Fault:
    database = Database(stage.url)
    with database.connect() as connection:
        whole = connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    database.close()
    clear = set(writes) <= {"200", "503"} and "503" in writes
    figures: dict[str, Any] = {"reads": reads, "writes": writes, "read_5xx": failures}
    figures |= {"acknowledged_lost": lost, "integrity_check": "ok" if whole else "damaged"}
    return Fault(name, whole and failures == 0 and lost == 0 and clear, figures)


def sqlite_file(folder: Path) -> str:
    """The address of a database in `folder`."""
    return f"sqlite:///{folder}/recsys.db"
