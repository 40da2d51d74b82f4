"""recsys bench: quality, on a log of one's own, and in a checkout every measurement of its bench/."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from recsys.cli.read_options import reading_options, refuse_reading
from recsys.cli.terminal import ConfigOption, JsonOption, now, settings_of, show, training_run
from recsys.errors import InputError, RecsysError
from recsys.events.times import to_us

if TYPE_CHECKING:
    from recsys.events.vocabulary import Vocabulary
    from recsys.ingest.event_files import ReadOptions
    from recsys.training.report import Scorer

CHECKOUT = Path(__file__).parents[2]  # or, in an installed wheel, its site-packages
HELP = "Self-contained benchmarks."
ELSEWHERE = (
    "only `recsys bench quality` is installed; the other benchmarks are in bench/ of the source"
)


def register(app: typer.Typer) -> None:
    """Add the group `bench` to `app`."""
    others = checkout_commands()
    if others is None:
        group = typer.Typer(name="bench", help=HELP, cls=_Installed, invoke_without_command=True)
        group.callback()(_refuse_alone)
    else:
        group = typer.Typer(name="bench", help=HELP, no_args_is_help=True)
    for command in (quality, *(others or ())):
        group.command(command.__name__)(command)
    app.add_typer(group)


def checkout_commands() -> Sequence[Callable[..., None]] | None:
    """Measurements of the checkout that this package lies in; None in an installed wheel.

    They are loaded by name: nothing in the product imports them.
    """
    if not all((CHECKOUT / name).exists() for name in ("pyproject.toml", "bench/commands")):
        return None
    found = importlib.import_module("bench.commands").COMMANDS
    return cast(Sequence[Callable[..., None]], found)


class _Installed(TyperGroup):
    """The group without a checkout, which tells where other measurements are."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is None:
            raise RecsysError(ELSEWHERE)
        return found


def _refuse_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        raise RecsysError(ELSEWHERE)


@reading_options
def quality(
    train: Annotated[Path | None, typer.Option(help="The file to train on.")] = None,
    test: Annotated[Path | None, typer.Option(help="The file to evaluate on.")] = None,
    log: Annotated[
        Path | None, typer.Option(help="One log instead of two files, with --cut.")
    ] = None,
    cut: Annotated[
        str | None,
        typer.Option(help="Time at which --log is cut: RFC 3339, or a number in --unit."),
    ] = None,
    *,
    reading: ReadOptions,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Number of trainings to average.")] = 1,
    networks: Annotated[str, typer.Option(help="lstm, gru, sasrec, separated by commas.")] = "lstm",
    events: Annotated[
        int, typer.Option(min=1_000, max=10_000_000, help="Events of the simulated shop.")
    ] = 200_000,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on one file and evaluate on the other, beside every baseline; needs no database.

    Without a file it is the simulated shop, cut at its last week, with its oracle beside.

    Example: recsys bench quality --train a.tsv --test b.tsv --map session=S,item=I,timestamp=T
    """

    from recsys.demo.oracle_log import simulated_shop
    from recsys.demo.simulation import ShopSize
    from recsys.distributed.engine import opened_engine
    from recsys.ingest.input_files import local_files
    from recsys.training.compare import compare_networks, network_names
    from recsys.training.file_logs import cut_log, session_files
    from recsys.training.report import text_table

    chosen = network_names(networks)
    settings = settings_of(config)
    options = in_seconds(reading)
    started = now()
    now_us = to_us(started)
    extra: Callable[[Vocabulary], Mapping[str, Scorer]] = lambda vocabulary: {}  # noqa: E731
    if train is not None and test is not None:
        with local_files([str(train)]) as learned, local_files([str(test)]) as ranked:
            data = session_files(learned, ranked, options, settings, now_us)
    elif log is not None and cut is not None:
        with local_files([str(log)]) as files:
            cut_us = moment(cut, options.unit or "s")
            data = cut_log(files, cut_us, options, settings, now_us)
    elif all(given is None for given in (train, test, log, cut)):
        refuse_reading(reading, "is of a file; expected --train with --test, or --log with --cut")
        data, extra = simulated_shop(settings, ShopSize(events=events))
    else:
        raise InputError(
            "--train", None, "expected --train with --test, --log with --cut, or none of them"
        )
    with training_run(started) as run, opened_engine(settings) as engine:
        engine.gather_ranks(run.say)
        compared = compare_networks(settings, data, seeds, chosen, run, extra)
    show(vars(compared), as_json, text_table(compared.results))


def in_seconds(reading: ReadOptions) -> ReadOptions:
    """The options of a command that reads a log, whose times are in seconds where nothing is said."""
    said = reading.unit or reading.format or reading.time_format or reading.timezone
    return reading if said else replace(reading, unit="s")


def moment(text: str, unit: str) -> int:
    """A time as µs since 1970: RFC 3339, or a number in `unit`. Raises InputError."""
    from recsys.events.times import MICROSECONDS
    from recsys.ingest.event_body import rfc3339_us

    if text.lstrip("-").isdigit():
        if unit not in MICROSECONDS:
            raise InputError("--unit", unit, f"expected one of: {', '.join(MICROSECONDS)}")
        return int(int(text) * MICROSECONDS[unit])
    found = rfc3339_us(text)
    if found is None:
        raise InputError("--cut", text, "expected RFC 3339 with an offset, or a whole number")
    return found
