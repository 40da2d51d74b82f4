"""recsys train | evaluate | tune"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
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
from recsys.config import Settings, started_by_torchrun
from recsys.errors import InputError

ENGINES = ("local", "ray")
TUNED_SECTIONS = ("model", "training", "sequences")


def register(app: typer.Typer) -> None:
    app.command("train")(train)
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
        str, typer.Option(help="local, or ray: read and train in the workers of a Ray cluster.")
    ] = "local",
    engine_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="Processes that read; with Ray, also ranks. Default: from the configuration.",
        ),
    ] = None,
    ray_address: Annotated[
        str,
        typer.Option(help="HOST:PORT of a running cluster. Default: start one on this machine."),
    ] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on the events, evaluate against every baseline, and promote what passes the gate.

    Started by torchrun, its processes share every batch and rank 0 does the rest:
    torchrun --nproc-per-node 2 -m recsys train

    Example: recsys train
    """
    from recsys import tracing

    if engine not in ENGINES:
        raise InputError("--engine", engine, f"expected one of: {', '.join(ENGINES)}")
    given = read_tuned(tuned) if tuned else {}
    if engine_workers is not None:
        given["training"] = {**given.get("training", {}), "processes": engine_workers}
    settings = settings_of(config, **given)
    tracing.start(settings)
    work = partial(_train, settings, promote, force_promote)
    if engine == "ray":
        found = _train_on_ray(settings, work, ray_address)
    elif started_by_torchrun():
        from recsys.distributed.torchrun import with_ranks

        found = with_ranks(work, settings.training.worker_timeout_seconds)
    else:
        found = work()
    if found is not None:
        result, text = found
        show(result, as_json, text)


def _train_on_ray(settings: Settings, work: Callable[[], Any], address: str) -> Any:
    from recsys import pipeline
    from recsys.distributed.ray_cluster import connected
    from recsys.storage.engine.database import open_database

    with connected(address, settings.training.processes) as cluster:
        pipeline.bring_up_to_date(settings, open_database(settings), cluster.rows, say)
        folder = settings.registry.path / ".ray"
        return cluster.train(work, settings.training.worker_timeout_seconds, folder)


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
