"""Servers for measurements: the real one in processes of its own, over a made-up shop.

`python -m bench.servers` is that process: `recsys serve` with one more address, `/empty`,
which is a bare Flask view (constant JSON, no key, no database) in the same workers.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from flask import Flask, Response

from bench.training_speed import simulated_sequences
from recsys.config import Settings, load_settings
from recsys.config.process import collect_rarely
from recsys.events.identity import user_bucket
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.times import DAY_US
from recsys.events.vocabulary import FIRST_ITEM, Vocabulary
from recsys.models.blend import BLEND, Blend
from recsys.models.bundle import Bundle
from recsys.models.lstm.trainer import Trainer
from recsys.models.rankers import fit_rankers
from recsys.models.version_facts import VersionFacts
from recsys.registry import write_version
from recsys.storage.engine.database import Database
from recsys.storage.entities import key_rows, version_rows
from recsys.storage.entities.version_rows import VersionRow
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import events

USERS = 20_000
SHORTEST, LONGEST = 20, 50  # events of a user's history
SESSIONS = 200_000  # events that the rankers learn from
READY_SECONDS = 600.0  # on a machine that does other things too


# A network that is learned in a second or two.
SMALL: dict[str, dict[str, Any]] = {
    "model": {"width": 16},
    "training": {"epochs": 2, "batch_events": 256, "threads": 1, "warm_start": False},
    "evaluation": {"bootstrap_draws": 100},
    "promotion": {"min_positions": 50},
}


def small_settings(registry: Path, **more: dict[str, Any]) -> Settings:
    """Settings of a small network."""
    chosen: dict[str, Any] = {"registry": {"path": registry}, **SMALL}
    for section, values in more.items():
        chosen[section] = {**chosen.get(section, {}), **values}
    return Settings(**chosen)


def make_shop(
    database: Database, registry: Path, items: int, now_us: int, versions: int = 1
) -> str:
    """Tables, versions of a network that learned nothing, and histories; an admin key.

    What a version costs to serve does not depend on what it has learned.
    """
    if migrate.current(database) is not None:
        migrate.downgrade(database, "base")
    migrate.upgrade(database)
    settings = Settings()
    bundle = _bundle(settings, items)
    for number in range(versions):
        name = f"20250101-00{number // 60:02d}{number % 60:02d}-abcdef"
        made = Bundle(**{**vars(bundle), "version": name})
        digest, size = write_version(registry, made)
        row = VersionRow(
            version=name,
            created_at_us=now_us,
            state="candidate",
            ranking=made.ranking,
            data_start_us=0,
            data_end_us=now_us,
            event_count=SESSIONS,
            user_count=USERS,
            item_count=items,
            facts=made.facts.to_json(),
            verdict={"promote": True, "reason": "made for a measurement"},
            manifest_sha256=digest,
            size_bytes=size,
        )
        with database.begin() as connection:
            version_rows.add_version(connection, row)
            version_rows.deploy(connection, name, now_us, "bench", "bench")
    with database.begin() as connection:
        key = key_rows.create_key(connection, "bench", ["admin"], now_us)
        rows = list(_histories(items, now_us))
        for at in range(0, len(rows), 20_000):
            connection.execute(events.insert(), rows[at : at + 20_000])
    return key


def _bundle(settings: Settings, items: int) -> Bundle:
    rows = items + FIRST_ITEM
    log = simulated_sequences(SESSIONS, items, 7)
    policy = RepeatPolicy(False, True)
    trainer = Trainer(
        rows, 2, settings.sequences.max_length, settings.model, settings.training, policy
    )
    return Bundle(
        version="bench",
        vocabulary=Vocabulary([f"item-{number}" for number in range(items)]),
        event_types=["view"],
        network=trainer.network,
        rankers=fit_rankers(log, rows, log.event_count),
        repeats=policy,
        ranking=BLEND,
        max_length=settings.sequences.max_length,
        session_gap_seconds=settings.sequences.session_gap_minutes * 60,
        input_event_types=(),
        facts=VersionFacts(),
        blends={BLEND: Blend({trainer.network.shape.body: 0.7, "session_knn": 0.3}, 0.3, 0.5, 0.4)},
    )


def _histories(items: int, now_us: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(11)
    for user in range(USERS):
        count = int(rng.integers(SHORTEST, LONGEST + 1))
        times = np.sort(rng.integers(now_us - 30 * DAY_US, now_us, count))
        for number, (item, at) in enumerate(zip(rng.integers(0, items, count), times, strict=True)):
            yield {
                "user_bucket": user_bucket(f"user-{user}"),
                "user_id": f"user-{user}",
                "session_id": f"session-{user}-{number // 5}",
                "item_id": f"item-{item}",
                "event_type": "view",
                "timestamp_us": int(at),
                "event_id": f"{user}-{number}",
                "received_at_us": int(at),
            }


@contextmanager
def running(
    url: str,
    registry: Path,
    *,
    workers: int = 2,
    command: Sequence[str] = (sys.executable, "-m", "bench.servers"),
    log: str = "",
    **more: str,
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server over `url`; its port and process. It is ready, and told to stop at the end.

    `command`: what serves; `log`: the file that it writes to, here unless given; `more`: further
    settings by their names in the environment.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RECSYS_")},
        "RECSYS_DATABASE__URL": url,
        "RECSYS_REGISTRY__PATH": str(registry),
        "RECSYS_SERVING__PORT": str(port),
        "RECSYS_SERVING__WORKERS": str(workers),
        "RECSYS_LOGGING__LEVEL": "error",
        **more,
    }
    environment.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # as `recsys serve` has it
    with (
        open(log, "ab") if log else nullcontext() as file,
        subprocess.Popen(
            command, env=environment, cwd=registry, stdout=file, stderr=file
        ) as process,
    ):
        try:
            _wait_until_ready(port, process)
            yield port, process
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def training(url: str, registry: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A training over `url` as the scheduler would launch it; killed at the end."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RECSYS_")},
        "RECSYS_DATABASE__URL": url,
        "RECSYS_REGISTRY__PATH": str(registry),
        "RECSYS_TRAINING__THREADS": "1",
        "RECSYS_TRAINING__EPOCHS": "100",
        "RECSYS_TRAINING__PATIENCE": "100",
        "RECSYS_TRAINING__WARM_START": "false",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "recsys", "train", "--no-promote"]
    with subprocess.Popen(
        command,
        env=environment,
        cwd=registry,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.nice(19) and None,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait(60)


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("the server did not become ready")


def resident_mib(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """MiB that a server's processes hold together: (proportional share, their own)."""
    held = [_memory(pid) for pid in (process.pid, *_workers(process))]
    return round(sum(one[0] for one in held), 1), round(sum(one[1] for one in held), 1)


def workers_mib(process: subprocess.Popen[bytes]) -> list[float]:
    """MiB of its own that each worker of a server holds."""
    return [round(_memory(pid)[1], 1) for pid in _workers(process)]


def _workers(process: subprocess.Popen[bytes]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def _memory(pid: int) -> tuple[float, float]:
    """MiB that a process holds: (proportional share, its own)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return kib["Pss"] / 1024, (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024


def beside_empty(app: Flask) -> Callable[[dict[str, Any], Any], Any]:
    """`app` with a bare Flask view at /empty, which measurements compare with."""
    bare = Flask("bench.empty")

    @bare.get("/empty")
    def empty() -> Response:
        return Response(b'{"items":[]}', mimetype="application/json")

    def choose(environ: dict[str, Any], start_response: Any) -> Any:
        return (bare if environ["PATH_INFO"] == "/empty" else app)(environ, start_response)

    return choose


def main() -> None:
    """Serve as the environment says, with `/empty` beside the rest."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        collect_rarely()  # as the command line does
        from recsys.web.server import serve

        errors_only = structlog.make_filtering_bound_logger(logging.ERROR)
        structlog.configure(wrapper_class=errors_only)
        serve(load_settings(), beside_empty)


if __name__ == "__main__":
    main()
