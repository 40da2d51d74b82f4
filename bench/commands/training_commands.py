"""recsys bench train: how fast a network learns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import share_of, whole
from recsys.cli.bench import in_seconds, moment
from recsys.cli.read_options import reading_options, refuse_reading
from recsys.cli.terminal import ConfigOption, JsonOption, now, progress_bar, settings_of, show
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
