"""recsys bench quality, train: what a log teaches, and how fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.bench.options import moment, read_options, share_of, whole
from recsys.cli.common import (
    ConfigOption,
    JsonOption,
    now,
    progress_bar,
    say,
    settings_of,
    show,
    training_bar,
)
from recsys.cli.events import FormatOption, MapOption, UnitOption, WhereOption
from recsys.errors import InputError
from recsys.events.times import to_us

if TYPE_CHECKING:
    from recsys.events.vocabulary import Vocabulary
    from recsys.training.report import Scorer


def quality(
    train: Annotated[Path | None, typer.Option(help="The file to learn from.")] = None,
    test: Annotated[Path | None, typer.Option(help="The file to rank.")] = None,
    log: Annotated[Path | None, typer.Option(help="One log instead, with --cut.")] = None,
    cut: Annotated[
        str | None, typer.Option(help="Where --log is cut: RFC 3339, or a number in --unit.")
    ] = None,
    columns: MapOption = "",
    unit: UnitOption = None,
    where: WhereOption = None,
    format_: FormatOption = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Trainings to average.")] = 1,
    networks: Annotated[str, typer.Option(help="Of lstm, gru, sasrec, by commas.")] = "lstm",
    events: Annotated[
        int, typer.Option(min=1_000, max=10_000_000, help="Of the simulated shop.")
    ] = 200_000,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on one file and rank the other, beside every baseline; needs no database.

    Without a file it is the simulated shop, cut at its last week, with its oracle beside.

    Example: recsys bench quality --train a.tsv --test b.tsv --map session=S,item=I,timestamp=T
    """
    from recsys.bench import quality as bench
    from recsys.demo.simulation import ShopSize
    from recsys.training.compare import compare_networks, network_names
    from recsys.training.report import text_table

    chosen = network_names(networks)
    settings = settings_of(config)
    options = read_options(columns, unit, where, format_)
    now_us = to_us(now())
    extra: Callable[[Vocabulary], Mapping[str, Scorer]] = lambda vocabulary: {}  # noqa: E731
    if train is not None and test is not None:
        inputs = bench.session_files(train, test, options, settings, now_us)
    elif log is not None and cut is not None:
        inputs = bench.cut_log(log, moment(cut, unit or "s"), options, settings, now_us)
    elif all(given is None for given in (train, test, log, cut)):
        inputs, extra = bench.simulated_shop(settings, ShopSize(events=events))
    else:
        raise InputError(
            "--train", None, "expected --train with --test, --log with --cut, or none of them"
        )
    with training_bar() as on_progress:
        result = compare_networks(settings, inputs, seeds, chosen, on_progress, say, extra)
    show(result, as_json, text_table(result["results"]))


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
    columns: MapOption = "",
    unit: UnitOption = None,
    where: WhereOption = None,
    format_: FormatOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the training loop beside the machine's own matrix products.

    Example: recsys bench train --items 20000,100000,1000000 --events 500000 --epochs 1
    """
    from recsys.bench import training as bench
    from recsys.bench.quality import cut_log
    from recsys.models.lstm.training_loop import Progress

    settings = settings_of(config)
    with progress_bar("training", 1.0) as (progress, task):

        def on_progress(at: Progress) -> None:
            note = f"{at.events_per_second:,.0f} events/s"
            progress.update(task, description=f"epoch {at.epoch}", completed=at.done, note=note)

        if data is None:
            sizes = [whole("--items", part, 10, 10_000_000) for part in items.split(",")]
            result = bench.run_training(settings, sizes, events, epochs, on_progress)
        else:
            options = read_options(columns, unit, where, format_)
            cut_us = 0 if cut is None else moment(cut, unit or "s")
            log = cut_log(data, cut_us, options, settings, to_us(now())).log
            if cut is None:
                result = bench.run_on_log(settings, log, epochs, on_progress)
            elif warm:
                share = share_of("--warm", str(warm))
                result = bench.run_warm(settings, log, cut_us, share, on_progress)
            else:
                goal = [share_of("--reach", part) for part in reach.split(",")]
                if len(goal) != 2:
                    raise InputError("--reach", reach, "expected RECALL,MRR")
                result = bench.run_until(settings, log, cut_us, (goal[0], goal[1]), on_progress)
    show(result, as_json)
