"""recsys bench train, replay, rerank: how fast a network learns; a log played as it would have been served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import hours_us, share_of, whole
from recsys.cli.bench import in_seconds, moment
from recsys.cli.read_options import reading_options, refuse_reading
from recsys.cli.terminal import (
    ConfigOption,
    JsonOption,
    now,
    progress_bar,
    settings_of,
    show,
    training_run,
)
from recsys.errors import InputError
from recsys.events.times import to_us

if TYPE_CHECKING:
    from recsys.ingest.event_files import ReadOptions


@reading_options
def train(
    data: Annotated[Path | None, typer.Option(help="A real log; simulated without.")] = None,
    cut: Annotated[
        str | None, typer.Option(help="With --data: train before it and rank what follows.")
    ] = None,
    reach: Annotated[
        str, typer.Option(help="With --cut: the recall@20,mrr@20 to be timed.")
    ] = "0.617,0.279",
    warm: Annotated[
        float, typer.Option(help="With --cut: a warm start on this share of new events.")
    ] = 0.0,
    items: Annotated[str, typer.Option(help="Catalogue sizes, by commas.")] = "17000",
    events: Annotated[int, typer.Option(min=1_000, max=100_000_000)] = 100_000,
    epochs: Annotated[int, typer.Option(min=1, max=100)] = 3,
    *,
    reading: ReadOptions,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the training loop beside the machine's own matrix products.

    Example: recsys bench train --items 20000,100000,1000000 --events 500000 --epochs 1
    """
    from bench import training_speed
    from recsys.ingest.input_files import local_files
    from recsys.models.lstm.checkpoint import Progress
    from recsys.training.file_logs import cut_log

    settings = settings_of(config)
    with progress_bar("training", 1.0) as (progress, task):

        def on_progress(at: Progress) -> None:
            note = f"{at.events_per_second:,.0f} events/s"
            progress.update(task, description=f"epoch {at.epoch}", completed=at.done, note=note)

        if data is None:
            refuse_reading(reading, "is of a file; expected --data")
            sizes = [whole("--items", part, 10, 10_000_000) for part in items.split(",")]
            result = training_speed.run_training(settings, sizes, events, epochs, on_progress)
        else:
            options = in_seconds(reading)
            cut_us = 0 if cut is None else moment(cut, options.unit or "s")
            with local_files([str(data)]) as files:
                log = cut_log(files, cut_us, options, settings, to_us(now())).log
            if cut is None:
                result = training_speed.run_on_log(settings, log, epochs, on_progress)
            elif warm:
                share = share_of("--warm", str(warm))
                result = training_speed.run_warm(settings, log, cut_us, share, on_progress)
            else:
                goal = [share_of("--reach", part) for part in reach.split(",")]
                if len(goal) != 2:
                    raise InputError("--reach", reach, "expected RECALL,MRR")
                result = training_speed.run_until(
                    settings, log, cut_us, (goal[0], goal[1]), on_progress
                )
    show(result, as_json)


@reading_options
def replay(
    log: Annotated[Path, typer.Option(help="The log to play.")],
    cut: Annotated[
        str, typer.Option(help="Where playing begins: RFC 3339, or a number in --unit.")
    ],
    delay: Annotated[
        float,
        typer.Option(min=0, max=31_536_000, help="Seconds until other visitors' events count."),
    ] = 1.0,
    retrain: Annotated[
        str, typer.Option(help="Time of the log between trainings, as 24h; 0: one, at the cut.")
    ] = "0",
    peers: Annotated[
        bool, typer.Option("--peers", help="Play rankers that count beside, still and live.")
    ] = False,
    *,
    reading: ReadOptions,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Play a log in the order of time, each position ranked as a request would have been answered.

    Example: recsys bench replay --log clicks.parquet --cut 2026-11-01T00:00:00Z --map item=sku --peers
    """
    from bench.replay import ReplayOptions, run_replay
    from recsys.ingest.input_files import local_files
    from recsys.training.file_logs import cut_log

    settings, started = settings_of(config), now()
    options = in_seconds(reading)
    cut_us = moment(cut, options.unit or "s")
    with local_files([str(log)]) as files:
        found = cut_log(files, cut_us, options, settings, to_us(started)).log
    chosen = ReplayOptions(cut_us, round(delay * 1e6), hours_us("--retrain", retrain), peers)
    with training_run(started) as run:
        show(run_replay(found, settings, chosen, run), as_json)


@reading_options
def rerank(
    log: Annotated[Path | None, typer.Option(help="The log to play; simulated without.")] = None,
    cut: Annotated[
        str | None,
        typer.Option(help="With --log, where playing begins: RFC 3339, or a number in --unit."),
    ] = None,
    positions: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="Positions that are played at most.")
    ] = 5_000,
    events: Annotated[
        int, typer.Option(min=1_000, max=10_000_000, help="Events of the simulated shop.")
    ] = 200_000,
    *,
    reading: ReadOptions,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what diversity, rotation, exploration and value cost in recall, and what each brings.

    Example: recsys bench rerank --log clicks.parquet --cut 2026-11-01T00:00:00Z --map item=sku
    """
    from bench.reranking_costs import run_reranking
    from recsys.demo.oracle_log import SHOP_END_US, SHOP_SEED, simulated_shop
    from recsys.demo.simulation import Shop, ShopSize
    from recsys.ingest.input_files import local_files
    from recsys.training.file_logs import cut_log

    settings, started = settings_of(config), now()
    options, items = in_seconds(reading), {}
    if (log is None) != (cut is None):
        raise InputError("--cut", cut, "expected --log with --cut, or neither")
    if log is None or cut is None:
        refuse_reading(reading, "is of a file; expected --log with --cut")
        size = ShopSize(events=events)
        data = simulated_shop(settings, size)[0]
        items = {item.item_id: item for item in Shop(size, SHOP_SEED, SHOP_END_US).items}
    else:
        with local_files([str(log)]) as files:
            data = cut_log(
                files, moment(cut, options.unit or "s"), options, settings, to_us(started)
            )
    with training_run(started) as run:
        show(run_reranking(data.log, data.cut_us, settings, items, positions, run), as_json)
