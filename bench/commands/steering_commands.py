"""recsys bench steering, conversions: what steering promises, against shoppers whose truth is known; and
what conversions cost.
"""

from __future__ import annotations

from typing import Annotated

import typer

from bench.commands.options import PostgresOption
from recsys.cli.terminal import JsonOption, now, say, show
from recsys.errors import InputError


def steering(
    only: Annotated[
        str,
        typer.Option(
            help="Parts, by commas: aa, attribution_error, off_policy, effects. Default: all."
        ),
    ] = "",
    draws: Annotated[
        int, typer.Option(min=1, max=10_000, help="Logs that the off-policy estimate is drawn.")
    ] = 200,
    visitors: Annotated[
        int, typer.Option(min=100, max=100_000, help="Visitors of the shop, and answers of a log.")
    ] = 3_000,
    experiments: Annotated[
        int, typer.Option(min=1, max=100_000, help="Simulated of equal arms, and of others.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")] = 11,
    as_json: JsonOption = False,
) -> None:
    """Hold scenarios, experiments and money against simulated shoppers who react to what they see.

    Example: recsys bench steering --only off_policy --json
    """
    from bench.steering import SteeringOptions, run_steering

    chosen = tuple(part.strip() for part in only.split(",") if part.strip())
    options = SteeringOptions(draws, visitors, experiments, seed)
    show(run_steering(chosen, options, now(), say), as_json)


def conversions(
    answers: Annotated[int, typer.Option(min=100, max=10_000_000)] = 200_000,
    number: Annotated[int, typer.Option("--conversions", min=10, max=1_000_000)] = 20_000,
    postgresql: PostgresOption = None,
    seed: Annotated[int, typer.Option(min=0)] = 7,
    as_json: JsonOption = False,
) -> None:
    """Attribute conversions to answers, and report on them by each column, in processor time.

    Example: recsys bench conversions --answers 20000 --conversions 2000
    """
    from bench.conversion_speed import run_conversions

    if number > answers:
        raise InputError("--conversions", number, "expected at most as many as --answers")
    show(run_conversions(answers, number, seed, now(), postgresql, say), as_json)
