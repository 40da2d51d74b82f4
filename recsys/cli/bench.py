"""recsys bench: measurements, one command each; `recsys bench --help` lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.common import (
    ConfigOption,
    JsonOption,
    named_as_given,
    now,
    progress_bar,
    say,
    settings_of,
    show,
    training_bar,
)
from recsys.cli.events import FormatOption, MapOption, UnitOption, WhereOption
from recsys.data.times import to_us
from recsys.errors import InputError
from recsys.startup import limit_threads

if TYPE_CHECKING:
    from recsys.data.readers import ReadOptions
    from recsys.data.vocabulary import Vocabulary
    from recsys.evaluation.report import Scorer

PostgresOption = Annotated[
    str | None, typer.Option(help="A spare PostgreSQL database; its tables are replaced.")
]

app = typer.Typer(name="bench", help="Measurements, self-contained.", no_args_is_help=True)


@app.command("quality")
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
    from recsys.data.simulation import ShopSize
    from recsys.engines.comparison import compare_networks, network_names
    from recsys.evaluation.report import text_table

    chosen = network_names(networks)
    settings = settings_of(config)
    options = _read_options(columns, unit, where, format_)
    now_us = to_us(now())
    extra: Callable[[Vocabulary], Mapping[str, Scorer]] = lambda vocabulary: {}  # noqa: E731
    if train is not None and test is not None:
        inputs = bench.session_files(train, test, options, settings, now_us)
    elif log is not None and cut is not None:
        inputs = bench.cut_log(log, _moment(cut, unit or "s"), options, settings, now_us)
    elif all(given is None for given in (train, test, log, cut)):
        inputs, extra = bench.simulated_shop(settings, ShopSize(events=events))
    else:
        raise InputError(
            "--train", None, "expected --train with --test, --log with --cut, or none of them"
        )
    with training_bar() as on_progress:
        result = compare_networks(settings, inputs, seeds, chosen, on_progress, say, extra)
    show(result, as_json, text_table(result["results"]))


@app.command("train")
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
    from recsys.model.training import Progress

    settings = settings_of(config)
    with progress_bar("training", 1.0) as (progress, task):

        def on_progress(at: Progress) -> None:
            note = f"{at.events_per_second:,.0f} events/s"
            progress.update(task, description=f"epoch {at.epoch}", completed=at.done, note=note)

        if data is None:
            sizes = [_whole("--items", part, 10, 10_000_000) for part in items.split(",")]
            result = bench.run_training(settings, sizes, events, epochs, on_progress)
        else:
            options = _read_options(columns, unit, where, format_)
            cut_us = 0 if cut is None else _moment(cut, unit or "s")
            log = cut_log(data, cut_us, options, settings, to_us(now())).log
            if cut is None:
                result = bench.run_on_log(settings, log, epochs, on_progress)
            elif warm:
                share = _share("--warm", str(warm))
                result = bench.run_warm(settings, log, cut_us, share, on_progress)
            else:
                goal = [_share("--reach", part) for part in reach.split(",")]
                if len(goal) != 2:
                    raise InputError("--reach", reach, "expected RECALL,MRR")
                result = bench.run_until(settings, log, cut_us, (goal[0], goal[1]), on_progress)
    show(result, as_json)


@app.command("ingest")
def ingest(
    events: Annotated[int, typer.Option(min=1_000, max=100_000_000)] = 2_000_000,
    postgresql: PostgresOption = None,
    seed: Annotated[int, typer.Option(min=0)] = 7,
    as_json: JsonOption = False,
) -> None:
    """Import a simulated log, beside COPY or executemany of finished rows.

    Example: recsys bench ingest --events 200000
    """
    from recsys.bench.ingest import run_ingest

    show(run_ingest(events, seed, to_us(now()), postgresql), as_json)


@app.command("sequences")
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
    from recsys.bench.sequence_building import run_sequences

    show(run_sequences(events, seed, to_us(now()), postgresql, train), as_json)


@app.command("table")
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
    from recsys.bench.own_table import run_own_table

    show(run_own_table(events, seed, to_us(now()), postgresql, train), as_json)


@app.command("scale")
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
    from recsys.bench.scale import ENGINES, run_scale

    chosen = [name.strip() for name in engines.split(",")]
    for name in chosen:
        if name not in ENGINES:
            raise InputError("--engines", name, f"expected of: {', '.join(ENGINES)}")
    counts = [_whole("--workers", part, 1, 64) for part in workers.split(",")]
    show(run_scale(events, chosen, counts, seed, to_us(now()), postgresql, say), as_json)


@app.command("serve")
def serve(
    items: Annotated[int, typer.Option(min=100, max=10_000_000)] = 50_000,
    seconds: Annotated[float, typer.Option(min=0.5, max=3_600, help="Of each loop.")] = 10.0,
    workers: Annotated[int, typer.Option(min=1, max=64)] = 2,
    postgresql: PostgresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a server of its own for personalised items, beside an empty view of it.

    Example: recsys bench serve --items 50000 --postgresql postgresql://localhost/spare
    """
    limit_threads()
    from recsys.bench.serving import run_serving

    show(run_serving(items, seconds, workers, to_us(now()), postgresql, say), as_json)


@app.command("soak")
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
    from recsys.bench.serving import run_soak

    show(run_soak(items, minutes * 60, workers, to_us(now()), postgresql), as_json)


@app.command("beside")
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
    from recsys.bench.serving import run_beside_training

    show(run_beside_training(items, seconds, rate, to_us(now()), postgresql), as_json)


@app.command("pages")
def pages(
    events: Annotated[int, typer.Option(min=10_000, max=1_000_000_000)] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0)] = 7,
    postgresql: PostgresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Server time and size of the dashboard's pages over a large log.

    Example: recsys bench pages --events 10000000 --postgresql postgresql://localhost/spare
    """
    from recsys.bench.pages import run_pages

    show(run_pages(events, seed, now(), postgresql, say), as_json)


@app.command("chaos")
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
    from recsys.bench.chaos import run_chaos

    result = run_chaos(slots, leader_kills, training_kills, schedulers, seed, postgresql, say)
    show(result, as_json)


@app.command("instances")
def instances(
    seconds: Annotated[float, typer.Option(min=1, max=3_600, help="Of the load.")] = 60.0,
    postgresql: PostgresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Three instances without a shared disk and two schedulers; one of each is killed under load.

    Example: recsys bench instances --postgresql postgresql://localhost/spare
    """
    limit_threads()
    from recsys.bench.instances import run_instances

    show(run_instances(seconds, postgresql, say), as_json)


@app.command("swap")
def swap(
    promotions: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    items: Annotated[int, typer.Option(min=100, max=10_000_000)] = 20_000,
    as_json: JsonOption = False,
) -> None:
    """Promote versions under load; no request may fail and no answer may be of an old champion.

    Example: recsys bench swap --promotions 20
    """
    limit_threads()
    from recsys.bench.swap import run_swap

    show(run_swap(promotions, items, to_us(now())), as_json)


@app.command("freshness")
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
    from recsys.bench.freshness import run_freshness

    show(run_freshness(posts, items, to_us(now()), postgresql), as_json)


def _moment(text: str, unit: str) -> int:
    """A time as µs since 1970: RFC 3339, or a number in `unit`."""
    from recsys.data.event_check import rfc3339_us
    from recsys.data.events import MICROSECONDS

    if text.lstrip("-").isdigit():
        if unit not in MICROSECONDS:
            raise InputError("--unit", unit, f"expected one of: {', '.join(MICROSECONDS)}")
        return int(int(text) * MICROSECONDS[unit])
    found = rfc3339_us(text)
    if found is None:
        raise InputError("--cut", text, "expected RFC 3339 with an offset, or a whole number")
    return found


def _read_options(
    columns: str, unit: UnitOption, where: list[str] | None, format_: FormatOption
) -> ReadOptions:
    from recsys.data.readers import ColumnMap, ReadOptions

    return ReadOptions(
        columns=ColumnMap.parse(columns),
        unit=unit or (None if format_ else "s"),
        where=tuple(where or ()),
        format=format_,
    )


def _whole(name: str, text: str, low: int, high: int) -> int:
    if not text.strip().isdecimal() or not low <= int(text) <= high:
        raise InputError(name, text, f"expected whole numbers from {low:,} to {high:,}")
    return int(text)


def _share(name: str, text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise InputError(name, text, "expected numbers from 0 to 1")
    return found


@app.command("faults")
def faults(
    events: Annotated[int, typer.Option(min=600, max=10_000_000, help="Posted under kills.")] = (
        100_000
    ),
    kills: Annotated[int, typer.Option(min=0, max=10_000, help="Of clients, workers.")] = 40,
    outage: Annotated[float, typer.Option(min=1, max=600, help="Seconds without PostgreSQL.")] = 60,
    models: Annotated[int, typer.Option(min=8, max=10_000, help="Damaged model files.")] = 400,
    soak: Annotated[float, typer.Option(min=0.1, max=600, help="Minutes of mixed load.")] = 3,
    only: Annotated[
        str, typer.Option(help="Of sqlite, poison, clocks, postgresql, soak, by commas.")
    ] = "sqlite,poison,clocks,postgresql,soak",
    as_json: JsonOption = False,
) -> None:
    """Break what can break, and say what held.

    Example: recsys bench faults --events 1000000 --soak 30
    """
    from recsys.bench.faults import Scale, run_faults

    scale = Scale(
        events=events, kills=kills, outage_seconds=outage, models=models, soak_minutes=soak
    )
    with named_as_given(only="--only"):
        result = run_faults(scale, only.split(","), say)
    lines = [f"{'held' if row['held'] else 'NO':<5} {row['fault']}" for row in result["faults"]]
    show(result, as_json, "\n".join(lines))
    if not result["held"]:
        raise typer.Exit(1)
