"""recsys bench experiments: how often experiments err that are watched by the hour."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.cli.terminal import JsonOption, say, show
from recsys.config.process import limit_threads


def experiments(
    number: Annotated[
        int, typer.Option("--experiments", min=1, max=100_000, help="Simulated of each kind.")
    ] = 1_000,
    visitors: Annotated[int, typer.Option(min=2_000, max=1_000_000, help="Of each.")] = 4_000,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    as_json: JsonOption = False,
) -> None:
    """Simulate experiments of equal arms, looked at every hour, and of arms that differ: errors, power.

    Example: recsys bench experiments --experiments 100
    """
    limit_threads()
    from bench.experiment_errors import run_experiment_errors

    show(run_experiment_errors(number, visitors, seed, say), as_json)
