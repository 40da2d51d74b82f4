"""bench instances: several service instances and two schedulers on one database, one of each killed.

Every instance and every scheduler has a model folder of its own, empty at first; versions come out of
the database. What must hold: every acknowledged event is stored, once; each slot is run once; a
promotion reaches all instances, and one that starts anew with an empty folder. Requests that fail
while an instance dies are counted, and go to the next one, as behind a load balancer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bench.drills.chaos import INTERVAL_SECONDS, Stage, begun, make_stage, now_us
from bench.load import Connection, request_bytes
from bench.servers import running
from recsys.progress import Say, quiet
from recsys.storage.entities import key_rows, version_rows
from recsys.storage.entities.event_batches import read_batches

INSTANCES = 3
SCHEDULERS = 2
FASTEST_PAUSE_SECONDS = 0.005  # of one client between two requests


@dataclass
class Traffic:
    """Clients that post and ask at whichever instance answers."""

    ports: list[int]
    key: str
    stop: threading.Event = field(default_factory=threading.Event)
    acknowledged: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    answers: int = 0

    def run(self, number: int) -> None:
        """One client, until `stop`; each failure is counted and tried again at the next instance."""
        at, connection = number, None
        while not self.stop.is_set():
            event_id = uuid.uuid4().hex
            event = {"event_id": event_id, "user_id": f"visitor-{number}", "item_id": "product-1"}
            post = request_bytes("/api/v1/events", self.key, orjson.dumps(event))
            ask = request_bytes(f"/api/v1/users/visitor-{number}/recommendations?k=5", self.key)
            for request in (post, ask):
                while not self.stop.is_set():
                    try:
                        connection = connection or Connection(self.ports[at % len(self.ports)])
                        status, _ = connection.ask(request)
                    except OSError:
                        status = 0
                    if status == 200:
                        break
                    self.errors["no answer" if status == 0 else str(status)] += 1
                    if connection is not None:
                        connection.close()
                    at, connection = at + 1, None
                    time.sleep(0.05)
                else:
                    break
                if request is post:
                    self.acknowledged.append(event_id)
                else:
                    self.answers += 1
            time.sleep(FASTEST_PAUSE_SECONDS)
        if connection is not None:
            connection.close()


def run_instances(seconds: float, postgresql_url: str | None, say: Say = quiet) -> dict[str, Any]:
    """Load for `seconds` while an instance and the leading scheduler are killed."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        stage = make_stage(folder, postgresql_url)
        stack.callback(stage.database.close)
        stage.environment["RECSYS_REGISTRY__STORE"] = "database"
        with stage.database.begin() as connection:
            key = key_rows.create_key(connection, "instances", ["read", "write"], now_us())
        stack.callback(stage.stop)
        for number in range(SCHEDULERS):
            stage.environment["RECSYS_REGISTRY__PATH"] = str(_empty(folder, f"scheduler-{number}"))
            stage.start_scheduler()
        stage.until("a first leader", stage.leader)
        _, champion = stage.trained()
        say(f"{champion} was trained and promoted by a scheduler")
        served = [_start(stack, stage, folder, f"instance-{n}") for n in range(INSTANCES)]
        ports = [port for port, _ in served]
        _until_served(stage, ports, key, champion)
        traffic = Traffic(ports, key)
        clients = [
            threading.Thread(target=traffic.run, args=(number,)) for number in range(INSTANCES)
        ]
        for client in clients:
            client.start()
        stack.callback(traffic.stop.set)
        started = time.monotonic()
        time.sleep(seconds / 4)
        _kill(served[0][1])
        say("an instance was killed")
        leader = stage.until("a leader", stage.leader)
        stage.kill(leader)
        stage.until_followed(leader)
        say("the leading scheduler was killed, and followed")
        stage.trained()
        with stage.database.begin() as connection:
            second = version_rows.list_versions(connection, 1)[0].version
            version_rows.deploy(connection, second, now_us(), "bench", "bench")
        promoted = time.monotonic()
        _until_served(stage, ports[1:], key, second)
        reached = time.monotonic() - promoted
        begun_at = time.monotonic()
        port, _ = _start(stack, stage, folder, "instance-new")
        _until_served(stage, [port], key, second)
        fresh = time.monotonic() - begun_at
        time.sleep(max(0.0, seconds - (time.monotonic() - started)))
        traffic.stop.set()
        for client in clients:
            client.join(60)
        stage.stop()
        runs = [run for job in ("refresh", "retrain") for run in stage.runs(job)]
        times = [run.scheduled_at_us for run in stage.runs("refresh") if run.scheduled_at_us]
        stored = _stored(stage)
        return {
            "instances": INSTANCES,
            "schedulers": SCHEDULERS,
            "acknowledged": len(traffic.acknowledged),
            "lost": sum(stored[one] == 0 for one in traffic.acknowledged),
            "stored_twice": sum(count > 1 for count in stored.values()),
            "answers": traffic.answers,
            "errors": dict(traffic.errors),
            "slots": len(set(times)),
            "duplicate_runs": len(times)
            - len(set(times))
            + sum(begun(stage, r.id) > 1 for r in runs),
            "promotion_seconds": round(reached, 2),
            "new_instance_seconds": round(fresh, 2),
            "interval_seconds": INTERVAL_SECONDS,
        }


def _start(
    stack: contextlib.ExitStack, stage: Stage, folder: Path, name: str
) -> tuple[int, subprocess.Popen[bytes]]:
    url = stage.environment["RECSYS_DATABASE__URL"]
    more = {"RECSYS_REGISTRY__STORE": "database", "RECSYS_SERVING__RELOAD_SECONDS": "0.5"}
    return stack.enter_context(running(url, _empty(folder, name), workers=1, **more))


def _empty(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


def _kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a server and its workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(60)


def _until_served(stage: Stage, ports: list[int], key: str, version: str) -> None:
    """Wait until each instance answers by `version`."""

    def everywhere() -> bool:
        return all(_serves(port, key) == version for port in ports)

    stage.until("the champion at every instance", everywhere)


def _serves(port: int, key: str) -> str | None:
    """The version that an instance answers by."""
    try:
        connection = Connection(port)
        _, body = connection.ask(request_bytes("/api/v1/users/shopper-1/recommendations?k=5", key))
        connection.close()
    except OSError:
        return None
    found: str | None = orjson.loads(body).get("model_version")
    return found


def _stored(stage: Stage) -> Counter[str]:
    """How often each event id is in the database."""
    found: Counter[str] = Counter()
    for batch in read_batches(stage.database, "event_id"):
        found.update(batch.column("event_id").to_pylist())
    return found
