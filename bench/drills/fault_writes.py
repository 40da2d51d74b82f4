"""Events posted with resends while clients and workers are killed: nothing acknowledged is lost."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import orjson

from bench.drills.fault_stage import Fault, Stage, workers_of
from bench.load import Connection
from bench.servers import running
from recsys.storage.engine.database import Database

BATCH = 200
RESENT = 0.3
MOST_SECONDS = 600.0
CLIENTS = 3


def killed_writes(stage: Stage, count: int, kills: int, seed: int = 1) -> Fault:
    """Post `count` events, 30% of them again, and kill clients and workers while that goes on."""
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    batches = max(CLIENTS, count // BATCH)
    folder = stage.registry.parent
    fork = multiprocessing.get_context("fork")
    killed = {"clients": 0, "workers": 0}
    with running(stage.url, stage.registry, workers=2) as (port, server):

        def start(number: int) -> multiprocessing.process.BaseProcess:
            share = range(number, batches, CLIENTS)
            process = fork.Process(
                target=_post, args=(stage, port, share, folder / f"acked-{number}")
            )
            process.start()
            return process

        clients = {number: start(number) for number in range(CLIENTS)}
        # By progress, not by time: a new worker takes seconds to be there.
        moments = sorted(rng.uniform(0, batches) for _ in range(kills))
        end = time.monotonic() + MOST_SECONDS
        while clients and time.monotonic() < end:
            for number, client in list(clients.items()):
                if client.exitcode is not None:
                    del clients[number]
                    if client.exitcode != 0:  # killed: another goes on where it stopped
                        clients[number] = start(number)
            if clients and moments and _acknowledged(folder) >= moments[0]:
                moments.pop(0)
                if rng.random() < 0.5:
                    rng.choice(list(clients.values())).kill()
                    killed["clients"] += 1
                elif workers := workers_of(server):
                    os.kill(rng.choice(workers), signal.SIGKILL)
                    killed["workers"] += 1
            time.sleep(0.02)
        for client in clients.values():
            client.kill()
    acknowledged = {
        int(line)
        for path in folder.glob("acked-*")
        for line in path.read_text().splitlines()
        if line.isdigit()
    }
    for path in folder.glob("acked-*"):
        path.unlink()
    lost, duplicate, stored = _compare(stage.url, acknowledged)
    return Fault(
        "events resent while clients and workers are killed",
        lost == 0 and duplicate == 0 and len(acknowledged) == batches,
        {
            "events": batches * BATCH,
            "stored": stored,
            "acknowledged_lost": lost,
            "duplicates": duplicate,
            "client_kills": killed["clients"],
            "worker_kills": killed["workers"],
        },
    )


def _acknowledged(folder: Path) -> int:
    """Batches acknowledged so far, resent ones counted again."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("acked-*"))


def _body(batch: int) -> list[dict[str, str]]:
    return [
        {"user_id": f"w{batch % 97}", "item_id": f"P{n % 60:04d}", "event_id": f"fault-{batch}-{n}"}
        for n in range(BATCH)
    ]


def _post(stage: Stage, port: int, share: range, acked: Path) -> None:
    """Batches not acknowledged yet, each until it is; some once more after that."""
    done = set(acked.read_text().splitlines()) if acked.exists() else set()
    rng = random.Random(os.getpid())  # noqa: S311
    connection: Connection | None = None
    with open(acked, "a", encoding="ascii") as log:
        log.write("\n")  # a line that a kill cut short ends here
        for batch in share:
            if str(batch) in done:
                continue
            request, left = stage.asks("/events", _body(batch)), 1 + (rng.random() < RESENT)
            while left:
                try:
                    connection = connection or Connection(port)
                    status, body = connection.ask(request)
                except OSError:
                    connection = None
                    time.sleep(0.05)
                    continue
                if status != 200:
                    time.sleep(0.05)
                    continue
                answer = orjson.loads(body)
                if answer["accepted"] + answer["duplicates"] == BATCH:
                    left -= 1
                    log.write(f"{batch}\n")
                    log.flush()


def _compare(url: str, acknowledged: set[int]) -> tuple[int, int, int]:
    """Acknowledged events that are not stored, events stored twice, and events stored."""
    database = Database(url)
    with database.connect() as connection:
        stored: dict[str, int] = dict(
            connection.exec_driver_sql(
                "SELECT event_id, count(*) FROM events WHERE substr(event_id, 1, 6) = 'fault-' "
                "GROUP BY event_id"
            ).all()
        )
    database.close()
    lost = sum(f"fault-{batch}-{n}" not in stored for batch in acknowledged for n in range(BATCH))
    return lost, sum(number > 1 for number in stored.values()), sum(stored.values())
