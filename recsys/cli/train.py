"""recsys train | evaluate"""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.cli.common import ConfigOption, JsonOption, now, progress_bar, say, settings_of, show


def register(app: typer.Typer) -> None:
    app.command("train")(train)
    app.command("evaluate")(evaluate)


def train(
    promote: Annotated[bool, typer.Option(help="Promote it if the gate allows.")] = True,
    force_promote: Annotated[
        bool, typer.Option("--force-promote", help="Promote it whatever the gate says.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from the events, evaluate against every baseline, promote through the gate.

    Example: recsys train
    """
    from recsys import pipeline
    from recsys.model.training import Progress
    from recsys.storage.database import open_database

    settings = settings_of(config)
    database = open_database(settings)
    with progress_bar("training", 1.0) as (progress, task):

        def on_progress(at: Progress) -> None:
            note = f"{at.events_per_second:,.0f} events/s, loss {at.loss:.3f}"
            label = f"{at.stage} {at.epoch}/{at.epochs}"
            progress.update(task, description=label, completed=at.done, note=note)

        trained = pipeline.train(
            settings,
            database,
            now(),
            promote=promote,
            force=force_promote,
            on_progress=on_progress,
            say=say,
        )
    result = {
        "version": trained.version,
        "promoted": trained.promoted,
        "reason": trained.verdict.reason,
        "positions": len(trained.trial.positions),
        "metrics": trained.trial.metrics,
    }
    state = "serves" if trained.promoted else "does not serve"
    text = (
        f"{trained.trial.table()}\n\nversion {trained.version} {state} ({trained.verdict.reason})"
    )
    show(result, as_json, text)


def evaluate(
    version: Annotated[str | None, typer.Argument(help="Default: the champion.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a version with every baseline on events it has not learned.

    Example: recsys evaluate
    """
    from recsys import pipeline
    from recsys.evaluation.report import text_table
    from recsys.storage.database import open_database

    settings = settings_of(config)
    database = open_database(settings)
    found = pipeline.evaluate(settings, database, now(), version)
    text = f"{text_table(found.metrics)}\n\n{found.positions:,} positions, {found.note}"
    show(vars(found), as_json, text)
