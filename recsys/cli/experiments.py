"""recsys experiments list | set | start | stop | report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.cli.terminal import ConfigOption, JsonOption, settings_of, show, steering
from recsys.errors import InputError

app = typer.Typer(
    name="experiments", help="Try changes on a share of the users.", no_args_is_help=True
)

NameArgument = Annotated[str, typer.Argument(help="The experiment's name.")]
MAX_BYTES = 65_536  # of a draft's file


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List experiments, newest first.

    Example: recsys experiments list
    """
    from recsys.events.times import rfc3339
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import experiment_rows

    with open_database(settings_of(config)).connect() as connection:
        rows = experiment_rows.list_experiments(connection, limit)
    shown: list[dict[str, Any]] = [
        {
            "name": row.name,
            "state": row.state,
            "arms": [arm.name for arm in row.spec.arms],
            "allocation": row.spec.allocation,
            "metric": row.spec.metric,
            "started_at": None if row.started_at_us is None else rfc3339(row.started_at_us),
            "promoted": row.promoted,
        }
        for row in rows
    ]
    lines = [
        f"{one['name']:<24} {one['state']:<8} {one['allocation']:>7.2%} of the users, by "
        f"{one['metric']}: {', '.join(one['arms'])}"
        for one in shown
    ]
    show({"experiments": shown}, as_json, "\n".join(lines) or "no experiments")


@app.command("set")
def set_(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="JSON: arms, allocation, metric, …")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draft an experiment from a JSON file, in place of a draft of the same name.

    Example: recsys experiments set hold-out hold-out.json
    """
    import orjson

    from recsys.commands import experiments
    from recsys.steering.experiment_spec import read_experiment

    if file.stat().st_size > MAX_BYTES:
        raise InputError("FILE", str(file), f"expected at most {MAX_BYTES:,} bytes")
    try:
        given = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError("FILE", str(file), f"expected JSON: {error}") from None
    if not isinstance(given, dict):
        raise InputError("FILE", str(file), "expected a JSON object")
    database, actor, now_us = steering(config)
    row = experiments.draft(database, actor, name, read_experiment(given), now_us)
    show({"name": row.name, "state": row.state}, as_json)


@app.command("start")
def start(
    name: NameArgument,
    allocation: Annotated[
        float | None,
        typer.Option(min=0.0001, max=1, help="Share of all users; the draft's own, if not given."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a draft, or widen a running experiment to --allocation.

    Example: recsys experiments start hold-out --allocation 0.2
    """
    from recsys.commands import experiments

    database, actor, now_us = steering(config)
    row = experiments.start(database, actor, name, allocation, now_us)
    show({"name": name, "state": row.state, "allocation": row.spec.allocation}, as_json)


@app.command("stop")
def stop(name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Stop an experiment: everybody is answered alike again.

    Example: recsys experiments stop hold-out
    """
    from recsys.commands import experiments

    database, actor, now_us = steering(config)
    show({"name": name, "state": experiments.stop(database, actor, name, now_us).state}, as_json)


@app.command("report")
def report(name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Report an experiment by arm; its intervals hold at every look.

    Example: recsys experiments report hold-out
    """
    from recsys.storage.dashboard import experiment_views
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import experiment_rows

    with open_database(settings_of(config)).connect() as connection:
        row = experiment_rows.get_experiment(connection, name)
        found = experiment_views.view(connection, row).plain()
    lines = [f"{name}: {row.state}. {found['verdict']}"]
    lines += [
        f"  {arm['name']:<16} {arm['users']:>9,} users  "
        f"click-through {_interval(arm['click_through'], '.2%')}  "
        f"conversion {_interval(arm['conversion'], '.2%')}  "
        f"value per user {_interval(arm['value_per_user'], ',.3f')}"
        for arm in found["arms"]
    ]
    show(found, as_json, "\n".join(lines))


def _interval(found: dict[str, float | None] | None, form: str) -> str:
    if found is None or found["estimate"] is None:
        return "-"
    text = format(found["estimate"], form)
    if found["low"] is None or found["high"] is None:
        return text
    return f"{text} ({format(found['low'], form)} to {format(found['high'], form)})"
