"""recsys plan"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from recsys.cli.terminal import ConfigOption, JsonOption, now, say, settings_of, show
from recsys.errors import InputError


def register(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    events: Annotated[int, typer.Option(min=1, max=10**12, help="Events a month.")],
    items: Annotated[int, typer.Option(min=1, max=10**9, help="Items of the catalogue.")],
    rps: Annotated[
        float, typer.Option(min=0, max=10**7, help="Requests for recommendations a second, peak.")
    ],
    months: Annotated[
        int, typer.Option(min=1, max=120, help="Months of events kept and learned from.")
    ] = 3,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Measure this machine first, about a minute; kept for later plans."
        ),
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Work out workers, memory, database and training time for a shop, from measured costs.

    Without a measurement of this machine the costs are those of docs/benchmarks.md.

    Example: recsys plan --events 10000000 --items 50000 --rps 50
    """
    from recsys.demo import calibration
    from recsys.ops import capacity

    if not math.isfinite(rps):
        raise InputError("--rps", rps, "expected a number from 0 to 10,000,000")
    settings = settings_of(config)
    if measure:
        costs = calibration.measure(settings, calibration.SIZE, now(), say)
    else:
        costs = calibration.kept_costs(settings) or capacity.SHIPPED
    shop = capacity.Shop(events, items, rps, months)
    found = capacity.plan(shop, costs, settings.training, settings.serving.live_events)
    if as_json:
        show({"shop": asdict(shop), "costs": asdict(costs), "plan": asdict(found)}, as_json)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for what, value in capacity.lines(found, costs):
        table.add_row(what, value)
    console = Console(highlight=False)
    console.print(table)
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
    console.print(f"costs: {costs.source}", markup=False)
