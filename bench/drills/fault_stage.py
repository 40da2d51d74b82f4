"""What the faults are worked on: a small shop with a trained champion, and a PostgreSQL of one's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bench.load import answer, request_bytes
from bench.servers import small_settings
from recsys.config import Settings
from recsys.demo.simulation import Shop, ShopSize
from recsys.errors import RecsysError
from recsys.events.times import to_us
from recsys.ingest.event_files import ReadOptions
from recsys.pipeline import import_events, train
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows, key_rows
from recsys.storage.schema import migrate
from recsys.training.run import Run


@dataclass(frozen=True)
class Fault:
    """One row of the table: whether it held, and by how much."""

    fault: str
    held: bool
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A database with a shop's events, and a champion that has learned them."""

    url: str
    registry: Path
    settings: Settings
    key: str

    def asks(self, path: str, body: Any = None) -> bytes:
        """A request with the stage's key."""
        return request_bytes(
            f"/api/v1{path}", self.key, None if body is None else orjson.dumps(body)
        )

    @property
    def with_sequence(self) -> bytes:
        """A read that carries its own sequence, so that it needs no database."""
        events = [{"item_id": f"P{number:04d}"} for number in (1, 2, 3)]
        return self.asks("/recommendations", {"events": events, "k": 5})


def shop_of(events: int, now_us: int, seed: int = 3) -> Shop:
    return Shop(ShopSize(products=60, shoppers=max(50, events // 25), events=events), seed, now_us)


def make_stage(url: str, folder: Path, events: int = 3_000) -> Stage:
    """Empty the database at `url`, fill it, and train."""
    database = Database(url)
    if migrate.current(database) is not None:
        migrate.downgrade(database, "base")
    migrate.upgrade(database)
    now = datetime.now(UTC)
    shop = shop_of(events, to_us(now))
    path = folder / "shop.parquet"
    pq.write_table(pa.concat_tables(shop.events()), path)
    import_events(database, path, ReadOptions(), now)
    settings = small_settings(folder / "models")
    with database.begin() as connection:
        item_rows.put_items(connection, shop.items, to_us(now))
        key = key_rows.create_key(connection, "faults", ["admin"], to_us(now))
    trained = train(settings, database, Run(now), force=True)
    database.close()
    if not trained.promoted:
        raise RecsysError("faults: the first training was not promoted")
    return Stage(url, folder / "models", settings, key)


def ask(port: int, request: bytes) -> int:
    """The status of one answer; 0 where the connection broke."""
    return answer(port, request)[0]


def told(statuses: Counter[int]) -> dict[str, int]:
    """Statuses and how often each came, as JSON has it."""
    return {str(status): number for status, number in sorted(statuses.items())}


def seconds_until(condition: Any, at_most: float) -> float | None:
    """How long until `condition()` is true; None where it does not become so."""
    started = time.monotonic()
    while time.monotonic() - started < at_most:
        if condition():
            return time.monotonic() - started
        time.sleep(0.05)
    return None


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of a server's workers."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def resident(process: subprocess.Popen[bytes]) -> float:
    """MiB that a server and its workers hold, shared pages counted for each."""
    total = 0
    for pid in [process.pid, *workers_of(process)]:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        total += sum(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmRSS:"))
    return round(total / 1_024, 1)


class OwnPostgres:
    """A PostgreSQL server that a measurement may stop; nobody else's is touched."""

    def __init__(
        self, folder: Path, binaries: Path, connections: int, standby_of: OwnPostgres | None = None
    ) -> None:
        """`standby_of`: the server whose log it replays."""
        self.folder, self._binaries = folder, binaries
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._user = "postgres" if os.getuid() == 0 else None  # initdb refuses to run as root
        if self._user:
            shutil.chown(folder, self._user)
        data = ["-D", str(folder / "data")]
        if standby_of is None:
            self._run("initdb", *data, "-U", "postgres", "-A", "trust", "-E", "UTF8")
        else:
            self._run("pg_basebackup", *data, "-R", "-c", "fast", "-d", standby_of.url)
        self._options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
            f" -c max_connections={connections} -c superuser_reserved_connections=1"
        )

    def start(self) -> None:
        log = str(self.folder / "log")
        self._run(
            "pg_ctl", "-D", f"{self.folder}/data", "-l", log, "-w", "-o", self._options, "start"
        )

    def stop(self) -> None:
        """At once, as when its machine loses power."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "stop")

    def pause(self) -> None:
        """Its processes stand still: it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        main = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        for pid in (main, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / name, *arguments],
            check=True,
            user=self._user,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def postgres_binaries() -> Path | None:
    """Where PostgreSQL's programs are, if they are installed."""
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return versions[-1].parent if versions else None


@contextmanager
def own_postgres(
    connections: int = 60, standby_of: OwnPostgres | None = None
) -> Iterator[OwnPostgres | None]:
    """A running server, removed at the end; None where none is installed."""
    binaries = postgres_binaries()
    if binaries is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="recsys-faults-"))
    server = OwnPostgres(folder, binaries, connections, standby_of)
    server.start()
    try:
        yield server
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # it may be stopped already
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
