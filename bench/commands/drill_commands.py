"""recsys bench chaos, instances, faults: what is killed and broken, and what held."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.commands.options import PostgresOption, ReleaseOption
from recsys.cli.terminal import JsonOption, named_as_given, say, show
from recsys.config.process import limit_threads


def chaos(
    slots: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    leader_kills: Annotated[int, typer.Option(min=0, max=10_000)] = 30,
    training_kills: Annotated[int, typer.Option(min=0, max=10_000)] = 50,
    schedulers: Annotated[int, typer.Option(min=1, max=32)] = 4,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    postgresql: PostgresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Kill schedulers and trainings at random; each slot runs once and the champion goes on.

    Example: recsys bench chaos --slots 10 --leader-kills 5 --training-kills 5
    """
    limit_threads()
    from bench.drills.chaos import run_chaos

    result = run_chaos(slots, leader_kills, training_kills, schedulers, seed, postgresql, say)
    show(result, as_json)


def instances(
    seconds: Annotated[float, typer.Option(min=1, max=3_600, help="Of the load.")] = 60.0,
    postgresql: PostgresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Three instances without a shared disk and two schedulers; one of each is killed under load.

    Example: recsys bench instances --postgresql postgresql://localhost/spare
    """
    limit_threads()
    from bench.drills.instances import run_instances

    show(run_instances(seconds, postgresql, say), as_json)


def faults(
    events: Annotated[int, typer.Option(min=600, max=10_000_000, help="Posted under kills.")] = (
        100_000
    ),
    kills: Annotated[int, typer.Option(min=0, max=10_000, help="Of clients, workers.")] = 40,
    outage: Annotated[float, typer.Option(min=1, max=600, help="Seconds without PostgreSQL.")] = 60,
    models: Annotated[int, typer.Option(min=8, max=10_000, help="Damaged model files.")] = 400,
    soak: Annotated[float, typer.Option(min=0.1, max=600, help="Minutes of mixed load.")] = 3,
    only: Annotated[
        str, typer.Option(help="Of sqlite, poison, clocks, attacks, postgresql, soak, by commas.")
    ] = "sqlite,poison,clocks,attacks,postgresql,soak",
    release: ReleaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Break what can break, and say what held.

    Example: recsys bench faults --events 1000000 --soak 30
    """
    from bench.drills.faults import Scale, run_faults

    scale = Scale(
        events=events, kills=kills, outage_seconds=outage, models=models, soak_minutes=soak
    )
    chosen = None if release is None else release.resolve()
    with named_as_given(only="--only", release="--release"):
        result = run_faults(scale, only.split(","), say, chosen)
    lines = [f"{'held' if row['held'] else 'NO':<5} {row['fault']}" for row in result["faults"]]
    show(result, as_json, "\n".join(lines))
    if not result["held"]:
        raise typer.Exit(1)
