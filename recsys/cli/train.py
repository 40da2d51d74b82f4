"""recsys train | evaluate | tune"""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.cli.terminal import (
    ConfigOption,
    JsonOption,
    now,
    progress_bar,
    say,
    settings_of,
    show,
    training_run,
)
from recsys.config import ENGINES, Settings, started_by_torchrun
from recsys.errors import InputError

JOIN_SECONDS = 86_400.0  # for the other ranks: the training gives up before
TUNED_SECTIONS = ("model", "training", "sequences")


def register(app: typer.Typer) -> None:
    app.command("train")(train)
    app.command("train-rank")(train_rank)
    app.command("evaluate")(evaluate)
    app.command("tune")(tune)


def train(
    promote: Annotated[
        bool, typer.Option(help="Promote the version if it passes the gate.")
    ] = True,
    force_promote: Annotated[
        bool, typer.Option("--force-promote", help="Promote the version whatever the gate says.")
    ] = False,
    tuned: Annotated[
        Path | None, typer.Option(help="A settings file that `recsys tune` wrote.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="local, torchrun or ray: where it trains. Default: from the configuration."
        ),
    ] = None,
    engine_address: Annotated[
        str | None,
        typer.Option(
            "--engine-address",
            "--ray-address",
            help="HOST:PORT of a running Ray cluster, or of this machine for ranks from others.",
        ),
    ] = None,
    engine_workers: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Processes that read, and ranks that train."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on the events, evaluate against every baseline, and promote what passes the gate.

    Started by torchrun, its processes share every batch and rank 0 does the rest:
    torchrun --nproc-per-node 2 -m recsys train

    Example: recsys train
    """
    from recsys import tracing

    given = read_tuned(tuned) if tuned else {}
    chosen = _engine_options(engine, engine_address, engine_workers)
    given["training"] = {**given.get("training", {}), **chosen}
    settings = settings_of(config, **given)
    tracing.start(settings)
    work = partial(_train, settings, promote, force_promote)
    if started_by_torchrun():
        from recsys.distributed.torchrun import with_ranks

        found = with_ranks(work, settings.training.worker_timeout_seconds)
    else:
        found = work()
    if found is not None:
        result, text = found
        show(result, as_json, text)


def _engine_options(engine: str | None, address: str | None, workers: int | None) -> dict[str, Any]:
    """What the options of an engine say in [training]. Raises InputError."""
    if engine is not None and engine not in ENGINES:
        raise InputError("--engine", engine, f"expected one of: {', '.join(ENGINES)}")
    found: dict[str, Any] = {} if engine is None else {"engine": engine, "engine_address": ""}
    if address is not None:
        found["engine_address"] = address
    if workers is not None:
        found |= {"processes": workers, "ranks": workers}
    return found


def train_rank(
    address: Annotated[str, typer.Argument(help="HOST:PORT at which the training is.")],
    wait: Annotated[
        float | None,
        typer.Option(
            min=0, max=31_536_000, help="Seconds to wait for it. Default: until it begins."
        ),
    ] = None,
    first_gpu: Annotated[
        int,
        typer.Option(min=0, max=63, help="Number of the GPU of the first rank on this machine."),
    ] = 0,
) -> None:
    """Take part in one training that runs elsewhere; needs no database and no configuration.

    The training has training.engine = "torchrun", and in training.engine_address the address at which
    ranks join it. Several are started, and numbered, by torchrun:
    torchrun --nproc-per-node 4 -m recsys train-rank 10.0.0.5:29500

    Example: recsys train-rank 10.0.0.5:29500
    """
    from recsys.distributed.torchrun import be_rank, rank_place, wait_for_rank_0

    place = rank_place(address, first_gpu)
    wait_for_rank_0(place, wait)
    be_rank(place, JOIN_SECONDS)


def _train(settings: Settings, promote: bool, force: bool) -> tuple[dict[str, Any], str]:
    """Train and publish; what to print, as JSON and as text."""
    from recsys import pipeline
    from recsys.storage.engine.database import open_database

    database = open_database(settings)
    with training_run(now()) as run:
        trained = pipeline.train(settings, database, run, promote=promote, force=force)
    result = {
        "version": trained.version,
        "promoted": trained.promoted,
        "reason": trained.reason,
        "positions": len(trained.evaluation.positions),
        "metrics": trained.evaluation.metrics,
        "network_mib": round((trained.facts.network_bytes or 0) / 2**20, 1),
        "peak_mib": trained.facts.peak_mib,
    }
    state = "serves" if trained.promoted else "does not serve"
    text = (
        f"{trained.evaluation.table()}\n\nversion {trained.version} {state} ({trained.reason})\n"
        f"network {result['network_mib']} MiB, most memory held {result['peak_mib']:,} MiB"
    )
    return result, text


def evaluate(
    version: Annotated[str | None, typer.Argument(help="Default: the champion.")] = None,
    networks: Annotated[
        str | None,
        typer.Option(
            help="Train and compare these instead: lstm, gru, sasrec, separated by commas."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=20, help="With --networks: trainings of each network.")
    ] = 1,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a version with every baseline on events it was not trained on; or compare networks.

    Example: recsys evaluate --networks lstm,gru,sasrec
    """
    from recsys import pipeline
    from recsys.storage.engine.database import open_database
    from recsys.training.compare import network_names
    from recsys.training.report import text_table

    settings = settings_of(config)
    database = open_database(settings)
    if networks is None:
        found = pipeline.evaluate(settings, database, now(), version)
        text = f"{text_table(found.metrics)}\n\n{found.positions:,} positions, {found.note}"
        show(vars(found), as_json, text)
        return
    if version is not None:
        raise InputError("--networks", networks, "expected without a version: it trains its own")
    names = network_names(networks)
    with training_run(now()) as run:
        compared = pipeline.compare(settings, database, run, names, seeds)
    show(vars(compared), as_json, text_table(compared.results))


def tune(
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Trials to add.")] = 20,
    timeout_minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Start no new trial after this many minutes.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The file to write the best settings to.")] = Path(
        "tuned.toml"
    ),
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search for better settings by validation MRR@20; run it again to continue the search.

    Example: recsys tune --trials 20 && recsys train --tuned tuned.toml
    """
    from recsys import pipeline
    from recsys.models.lstm.checkpoint import Progress
    from recsys.storage.engine.database import open_database
    from recsys.training.hyperparameters import SearchBudget, TrialResult
    from recsys.training.run import Run

    settings = settings_of(config)
    database = open_database(settings)
    with progress_bar("tuning", float(trials)) as (progress, task):
        done = 0

        def on_progress(at: Progress) -> None:
            note = f"epoch {at.epoch}/{at.epochs}, loss {at.loss:.3f}"
            progress.update(task, description=at.stage, completed=done + at.done, note=note)

        def on_trial(one: TrialResult) -> None:
            nonlocal done
            done += 1
            figure = "pruned" if one.mrr is None else f"MRR@20 {one.mrr:.4f}"
            values = ", ".join(f"{key} {value:.4g}" for key, value in one.values.items())
            say(f"trial {one.number}: {figure}  ({values})")

        run = Run(now(), say=say, on_progress=on_progress)
        budget = SearchBudget(trials, None if timeout_minutes is None else timeout_minutes * 60)
        tuned = pipeline.tune(settings, database, run, budget, on_trial)
    lines = [f"# validation MRR@20 {tuned.mrr:.4f}, best of {tuned.trials} trials"]
    for section, values in tuned.best.items():
        lines += [f"\n[{section}]", *(f"{key} = {value}" for key, value in values.items())]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = "\n".join([*lines, "", f"written to {output}; use it: recsys train --tuned {output}"])
    show({**vars(tuned), "path": str(output)}, as_json, text)


def read_tuned(path: Path) -> dict[str, dict[str, Any]]:
    """Settings of a file that `tune` wrote. Raises InputError where it is not one."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        kind = type(error).__name__
        raise InputError("--tuned", str(path), f"expected a readable TOML file ({kind})") from None
    for section, values in found.items():
        if section not in TUNED_SECTIONS or not isinstance(values, dict):
            raise InputError("--tuned", section, f"expected sections {', '.join(TUNED_SECTIONS)}")
    return found
