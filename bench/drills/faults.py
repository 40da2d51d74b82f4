"""bench faults: what must hold when things go wrong, one row a fault, on real processes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.drills import (
    fault_attacks,
    fault_clients,
    fault_database,
    fault_models,
    fault_poison,
    fault_routes,
    fault_soak,
    fault_writes,
)
from bench.drills.fault_stage import Fault, OwnPostgres, Stage, make_stage, own_postgres
from bench.releases import HERE, Release
from recsys.errors import InputError
from recsys.progress import Say, quiet

STAGE_EVENTS = {"postgresql": 3_000, "soak": 20_000}  # of which the soak prunes half
GROUPS = ("sqlite", "poison", "clocks", "attacks", "postgresql", "soak")


@dataclass(frozen=True)
class Scale:
    """How much of each fault."""

    events: int = 100_000  # posted while clients and workers are killed, on each database
    kills: int = 40  # of clients and workers meanwhile
    outage_seconds: float = 60.0
    models: int = 400
    clients: int = 200  # slow ones
    connections: int = 160  # of a burst, where 8 threads answer
    sessions: int = 10_000
    soak_minutes: float = 3.0
    soak_rate: float = 50.0


def run_faults(
    scale: Scale, only: Sequence[str] = GROUPS, say: Say = quiet, release: Path | None = None
) -> dict[str, Any]:
    """The faults of some groups in turn; PostgreSQL's on a server of their own, if one is installed.

    release: the checkout that is attacked, this one unless given.

    Raises:
        InputError: a group that does not exist, or another release for more than the attacks.
    """
    for name in only:
        if name not in GROUPS:
            raise InputError("only", name, f"is not one of {', '.join(GROUPS)}")
    if release is not None and list(only) != ["attacks"]:
        raise InputError("release", release, "is for the attacks alone: --only attacks")
    started = time.monotonic()
    found: list[Fault] = []

    def note(*faults: Fault) -> None:
        for fault in faults:
            found.append(fault)
            say(f"{'held' if fault.held else 'DID NOT HOLD'}: {fault.fault}: {fault.figures}")

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if "sqlite" in only:
            _on_sqlite(make_stage(fault_database.sqlite_file(place), place), scale, note)
        if "poison" in only:
            note(fault_poison.loud_user(place, 8_000), fault_poison.many_bots(place, 8_000))
            # As much as the checks let pass: a fifth of the events, half of the users.
            note(fault_poison.loud_user(place, 8_000, 0.19), fault_poison.many_bots(place, 30_000))
        if "attacks" in only:
            for fault in fault_attacks.attacks(HERE if release is None else Release(release)):
                note(fault)
        if "clocks" in only:
            note(fault_soak.clocks())
    left_out = []
    for name, inflict in (("postgresql", _on_postgresql), ("soak", _soaked)):
        if name not in only:
            continue
        with own_postgres() as server, tempfile.TemporaryDirectory() as folder:
            if server is None:
                say(f"no PostgreSQL is installed: the faults of {name} are left out")
                left_out.append(name)
                continue
            stage = make_stage(server.url, Path(folder), STAGE_EVENTS[name])
            inflict(stage, server, scale, note)
    return {
        "faults": [vars(fault) for fault in found],
        "held": all(fault.held for fault in found) and not left_out,
        "left_out": left_out,
        "seconds": round(time.monotonic() - started, 1),
    }


def _on_postgresql(
    stage: Stage, server: OwnPostgres, scale: Scale, note: Callable[..., None]
) -> None:
    note(fault_writes.killed_writes(stage, scale.events, scale.kills))
    note(fault_database.postgres_stopped(stage, server, scale.outage_seconds))
    note(fault_database.postgres_hung(stage, server, scale.outage_seconds / 4))
    note(fault_database.postgres_slow(stage, scale.outage_seconds / 4))
    note(fault_database.postgres_out_of_connections(stage, scale.outage_seconds / 4))


def _soaked(stage: Stage, _: OwnPostgres, scale: Scale, note: Callable[..., None]) -> None:
    note(fault_soak.soak(stage, scale.soak_minutes, scale.soak_rate))


def _on_sqlite(stage: Stage, scale: Scale, note: Callable[..., None]) -> None:
    note(fault_writes.killed_writes(stage, scale.events, scale.kills))
    seconds = min(10.0, scale.outage_seconds)
    note(fault_database.sqlite_locked(stage, seconds))
    note(fault_database.sqlite_full(stage, seconds))
    note(fault_database.sqlite_read_only(stage, seconds))
    note(fault_models.damaged_models(stage, scale.models))
    note(fault_clients.hostile_sizes(stage))
    note(fault_clients.slow_clients(stage, scale.clients, 5.0))
    note(fault_clients.burst(stage, scale.connections, 5.0, scale.sessions))
    note(fault_routes.hostile_routes(stage))
