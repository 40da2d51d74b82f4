"""recsys bench ingest, consume, sequences, expressions, table, scale: events and items at size, without a
server.
"""

from __future__ import annotations

from typing import Annotated

import typer

from bench.commands.options import PostgresOption, whole
from recsys.cli.terminal import JsonOption, now, say, show
from recsys.config.process import limit_threads
from recsys.errors import InputError
from recsys.events.times import to_us


def ingest(
    events: Annotated[int, typer.Option(min=1_000, max=100_000_000)] = 2_000_000,
    postgresql: PostgresOption = None,
    seed: Annotated[int, typer.Option(min=0)] = 7,
    as_json: JsonOption = False,
) -> None:
    """Import a simulated log, beside COPY or executemany of finished rows.

    Example: recsys bench ingest --events 200000
    """
    from bench.import_speed import run_ingest

    show(run_ingest(events, seed, to_us(now()), postgresql), as_json)


def consume(
    events: Annotated[int, typer.Option(min=1_000, max=10_000_000)] = 100_000,
    postgresql: PostgresOption = None,
    seed: Annotated[int, typer.Option(min=0)] = 7,
    as_json: JsonOption = False,
) -> None:
    """Consume a simulated log from a Redis stream, beside COPY or executemany of finished rows.

    It starts a redis-server of its own. Example: recsys bench consume --events 20000
    """
    from bench.consume_speed import run_consume

    show(run_consume(events, seed, to_us(now()), postgresql, say), as_json)


def sequences(
    events: Annotated[int, typer.Option(min=1_000, max=100_000_000)] = 5_000_000,
    seed: Annotated[int, typer.Option(min=0)] = 7,
    train: Annotated[bool, typer.Option("--train", help="Then learn an epoch.")] = False,
    postgresql: PostgresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build sequence files from a simulated log in a database, beside the raw read; then 1% more.

    Example: recsys bench sequences --events 1000000
    """
    from bench.sequence_building import run_sequences

    show(run_sequences(events, seed, to_us(now()), postgresql, train), as_json)


def expressions(
    items: Annotated[int, typer.Option(min=1_000, max=10_000_000)] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0)] = 7,
    as_json: JsonOption = False,
) -> None:
    """Filter a catalogue by expressions of three conditions, new ones and one that was asked before.

    Example: recsys bench expressions --items 100000
    """
    limit_threads()
    from bench.expression_speed import run_expressions

    show(run_expressions(items, seed, to_us(now()), say), as_json)


def table(
    postgresql: Annotated[
        str, typer.Option(help="A spare PostgreSQL database; its tables are replaced.")
    ],
    events: Annotated[int, typer.Option(min=20_000, max=1_000_000_000)] = 10_000_000,
    seed: Annotated[int, typer.Option(min=0)] = 7,
    train: Annotated[bool, typer.Option("--train", help="Then learn an epoch.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read a table with foreign names: dry run, sequence files, 1% more, newest events of users.

    Example: recsys bench table --postgresql postgresql://localhost/spare --events 1000000
    """
    from bench.own_table import run_own_table

    show(run_own_table(events, seed, to_us(now()), postgresql, train), as_json)


def scale(
    events: Annotated[int, typer.Option(min=10_000, max=100_000_000)] = 5_000_000,
    engines: Annotated[
        str, typer.Option(help="Of local, ray, torchrun, by commas.")
    ] = "local,ray,torchrun",
    workers: Annotated[str, typer.Option(help="How many, by commas.")] = "1,2,4",
    seed: Annotated[int, typer.Option(min=0)] = 7,
    postgresql: PostgresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the same files and learn the same weights with one worker and with several.

    Example: recsys bench scale --events 100000 --engines local,torchrun
    """
    from bench.rank_scaling import ENGINES, run_scale

    chosen = [name.strip() for name in engines.split(",")]
    for name in chosen:
        if name not in ENGINES:
            raise InputError("--engines", name, f"expected of: {', '.join(ENGINES)}")
    counts = [whole("--workers", part, 1, 64) for part in workers.split(",")]
    show(run_scale(events, chosen, counts, seed, to_us(now()), postgresql, say), as_json)
