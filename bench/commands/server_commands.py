"""recsys bench serve, intake, soak, beside, pages, swap, freshness: a server of its own under load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import PostgresOption, ReleaseOption, whole
from recsys.cli.terminal import JsonOption, now, say, show
from recsys.config.process import limit_threads
from recsys.errors import InputError
from recsys.events.times import to_us


def serve(
    items: Annotated[int, typer.Option(min=100, max=10_000_000)] = 50_000,
    seconds: Annotated[float, typer.Option(min=0.5, max=3_600, help="Of each loop.")] = 10.0,
    workers: Annotated[int, typer.Option(min=1, max=64)] = 2,
    memory: Annotated[
        int | None,
        typer.Option(
            min=2_000,
            max=100_000_000,
            help="Only measure the workers' memory, after 1,000 answers and after so many.",
        ),
    ] = None,
    returning: Annotated[
        bool, typer.Option("--returning", help="The same 500 visitors ask again and again.")
    ] = False,
    scenario: Annotated[
        bool,
        typer.Option("--scenario", help="With a scenario of three rules and without, by turns."),
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="A log whose visitors ask, not made-up ones."
        ),
    ] = None,
    map_: Annotated[str, typer.Option("--map", help="The log's columns.")] = "",
    unit: Annotated[str, typer.Option(help="Of the log's times.")] = "",
    release: ReleaseOption = None,
    postgresql: PostgresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a server of its own for personalised items, beside an empty view of it.

    Example: recsys bench serve --items 50000 --postgresql postgresql://localhost/spare
    Example: recsys bench serve --log clicks.parquet --map item=sku --release ../recsys-0.2.0
    """
    limit_threads()
    from bench.log_answers import LogOptions, run_log_answers
    from bench.serving_speed import run_memory, run_scenario, run_serving

    if log is not None:
        options = LogOptions(log, map_, unit)
        show(run_log_answers(options, seconds, workers, release, returning, say), as_json)
        return
    for name, given in (("--map", map_), ("--unit", unit), ("--release", release)):
        if given:
            raise InputError(name, str(given), "expected together with --log alone")

    if scenario:
        show(run_scenario(items, seconds, workers, to_us(now()), postgresql), as_json)
        return
    if memory is not None:
        show(run_memory(items, memory, workers, to_us(now()), postgresql), as_json)
        return
    found = run_serving(items, seconds, workers, to_us(now()), postgresql, say, returning=returning)
    show(found, as_json)


def intake(
    seconds: Annotated[float, typer.Option(min=0.2, max=3_600, help="Of each loop.")] = 4.0,
    sizes: Annotated[str, typer.Option(help="Events a request, by commas.")] = "1,100,1000",
    workers: Annotated[int, typer.Option(min=1, max=64)] = 2,
    postgresql: PostgresOption = None,
    release: ReleaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Post events to a server of its own, beside the bare database and answers given meanwhile.

    Example: recsys bench intake --postgresql postgresql://localhost/spare
    """
    limit_threads()
    from bench.intake_speed import run_intake

    chosen = [whole("--sizes", part, 1, 1_000) for part in sizes.split(",")]
    result = run_intake(seconds, workers, to_us(now()), postgresql, release, chosen, say)
    show(result, as_json)


def soak(
    minutes: Annotated[float, typer.Option(min=0.05, max=1_440)] = 10.0,
    items: Annotated[int, typer.Option(min=100, max=10_000_000)] = 50_000,
    workers: Annotated[int, typer.Option(min=1, max=64)] = 2,
    postgresql: PostgresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a server of its own as fast as it answers, and see whether its memory grows.

    Example: recsys bench soak --minutes 10
    """
    limit_threads()
    from bench.serving_speed import run_soak

    show(run_soak(items, minutes * 60, workers, to_us(now()), postgresql), as_json)


def beside(
    seconds: Annotated[float, typer.Option(min=1, max=3_600, help="Of the load.")] = 30.0,
    rate: Annotated[float, typer.Option(min=1, max=100_000, help="Requests a second.")] = 50.0,
    items: Annotated[int, typer.Option(min=100, max=10_000_000)] = 20_000,
    postgresql: PostgresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Latency of answers at a fixed rate, without and beside a training.

    Example: recsys bench beside --rate 50
    """
    limit_threads()
    from bench.serving_speed import run_beside_training

    show(run_beside_training(items, seconds, rate, to_us(now()), postgresql), as_json)


def pages(
    events: Annotated[int, typer.Option(min=10_000, max=1_000_000_000)] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0)] = 7,
    postgresql: PostgresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Server time and size of the dashboard's pages over a large log.

    Example: recsys bench pages --events 10000000 --postgresql postgresql://localhost/spare
    """
    from bench.page_speed import run_pages

    show(run_pages(events, seed, now(), postgresql, say), as_json)


def swap(
    promotions: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    items: Annotated[int, typer.Option(min=100, max=10_000_000)] = 20_000,
    as_json: JsonOption = False,
) -> None:
    """Promote versions under load; no request may fail and no answer may be of an old champion.

    Example: recsys bench swap --promotions 20
    """
    limit_threads()
    from bench.swap import run_swap

    show(run_swap(promotions, items, to_us(now())), as_json)


def freshness(
    posts: Annotated[int, typer.Option(min=1, max=1_000_000)] = 10_000,
    items: Annotated[int, typer.Option(min=100, max=10_000_000)] = 50_000,
    postgresql: PostgresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Post an event through one process, ask another, and compare with the explicit sequence.

    Example: recsys bench freshness --posts 1000
    """
    limit_threads()
    from bench.freshness import run_freshness

    show(run_freshness(posts, items, to_us(now()), postgresql), as_json)
