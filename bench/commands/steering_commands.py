"""recsys bench steering: what steering promises, against shoppers whose truth is known."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.cli.terminal import JsonOption, now, say, show


def steering(
    only: Annotated[
        str, typer.Option(help="Parts, by commas: off_policy, effects. Default: all of them.")
    ] = "",
    draws: Annotated[
        int, typer.Option(min=1, max=10_000, help="Logs that the off-policy estimate is drawn.")
    ] = 100,
    visitors: Annotated[
        int, typer.Option(min=100, max=100_000, help="Visitors of the shop, and answers of a log.")
    ] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")] = 11,
    as_json: JsonOption = False,
) -> None:
    """Hold scenarios, experiments and money against simulated shoppers who react to what they see.

    Example: recsys bench steering --only off_policy --json
    """
    from bench.steering import SteeringOptions, run_steering

    chosen = tuple(part.strip() for part in only.split(",") if part.strip())
    options = SteeringOptions(draws, visitors, seed)
    show(run_steering(chosen, options, now(), say), as_json)
