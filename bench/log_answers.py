"""bench serve --log: answers to the visitors of a real log, beside another release in the same run.

Each release imports the log and learns one epoch of it, by its own commands, and serves; their loops take
turns. Every visitor asks once, after an own history; with `returning` the same few ask again and again.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq

from bench.installations import Installation, install
from bench.load import ask_each, closed_loop, request_bytes
from bench.releases import HERE, Release
from bench.servers import workers_mib
from recsys.errors import NotEnoughDataError
from recsys.progress import Say, quiet

CONNECTIONS = 8
K = 20
ROUNDS = 4
RETURNING = 500  # visitors
WARM = 400  # visitors who ask before anything is measured
ONE_EPOCH = {
    "RECSYS_TRAINING__EPOCHS": "1",
    "RECSYS_TRAINING__THREADS": "2",
    "RECSYS_EVALUATION__BOOTSTRAP_DRAWS": "100",
}


@dataclass(frozen=True)
class LogOptions:
    """A log and how it is read, in the words of `recsys events import`."""

    path: Path
    map: str
    unit: str = ""

    @property
    def words(self) -> list[str]:
        """After `recsys events import`."""
        more = ["--unit", self.unit] if self.unit else []
        return [str(self.path.resolve()), *(["--map", self.map] if self.map else []), *more]


def run_log_answers(
    log: LogOptions,
    seconds: float,
    workers: int,
    release: Path | None,
    returning: bool,
    say: Say = quiet,
) -> dict[str, Any]:
    """Closed loops at CONNECTIONS in turn, ROUNDS of them. Raises NotEnoughDataError where too few ask."""
    places = {"now": HERE} | ({"other": Release(release)} if release else {})
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in places}
    memory: dict[str, list[float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports, asked, processes = {}, {}, {}
        for name, one in places.items():
            say(f"{name}: importing and learning the log")
            made = _learned(one, folder / name, log)
            asked[name] = _requests(made, folder / "owners.parquet")
            ports[name], processes[name] = stack.enter_context(made.serving(workers=workers))
        visitors = len(asked["now"])
        if visitors < WARM + RETURNING:
            raise NotEnoughDataError(
                f"the log has {visitors} visitors; {WARM + RETURNING} are needed"
            )
        for name, port in ports.items():
            again = asked[name][WARM : WARM + RETURNING] if returning else asked[name][:WARM]
            ask_each(port, again, CONNECTIONS)
        for number in range(ROUNDS):
            order = list(ports) if number % 2 == 0 else list(ports)[::-1]
            for name in order:
                run = closed_loop(
                    ports[name], _turn(asked[name], number, returning), CONNECTIONS, seconds
                )
                found[name].append({"asked": len(run.latencies), **run.plain()})
                say(f"{name}: {found[name][-1]['requests_per_second']:,} req/s")
        for name, process in processes.items():
            memory[name] = workers_mib(process)
    rates = {
        n: statistics.median(r["requests_per_second"] for r in runs) for n, runs in found.items()
    }
    return {
        "visitors": RETURNING if returning else visitors,
        "connections": CONNECTIONS,
        "workers": workers,
        "runs": found,
        "requests_per_second": rates,
        "worker_mib": memory,
        "times_other": round(rates["now"] / rates["other"], 2) if release else None,
    }


def _learned(release: Release, folder: Path, log: LogOptions) -> Installation:
    made = replace(install(release, folder), training=ONE_EPOCH)
    made.done("events", "import", *log.words)
    made.done("train", "--force-promote")
    return made


def _requests(made: Installation, path: Path) -> list[bytes]:
    """A request for each user of the log, and for each session that no user owns, in some order."""
    if not path.exists():  # one release's export serves for both: ids are the log's own
        made.done("events", "export", str(path))
    table = pq.read_table(path, columns=["user_id", "session_id"])
    owners = sorted(
        {("user", user) if user is not None else ("session", session)
         for user, session in zip(*(column.to_pylist() for column in table.columns), strict=True)}
    )  # fmt: skip
    order = np.random.default_rng(3).permutation(len(owners))
    return [_request(owners[at][0], owners[at][1], made.admin_key) for at in order]


def _request(kind: str, owner: str, key: str) -> bytes:
    if kind == "user":
        return request_bytes(f"/api/v1/users/{owner}/recommendations?k={K}", key)
    body = orjson.dumps({"session_id": owner, "k": K})
    return request_bytes("/api/v1/recommendations", key, body)


def _turn(asked: Sequence[bytes], number: int, returning: bool) -> Sequence[bytes]:
    """The requests of one round: in each other visitors, unless they are to come back."""
    if returning:
        return asked[WARM : WARM + RETURNING]
    rest = asked[WARM:]
    first = number * (len(rest) // ROUNDS)
    return [*rest[first:], *rest[:first]]
