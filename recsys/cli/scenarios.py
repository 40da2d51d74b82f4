"""recsys scenarios list | show | set | delete | rollback | estimate"""

from __future__ import annotations

import json
import math
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.cli.terminal import (
    ConfigOption,
    JsonOption,
    named_as_given,
    now,
    settings_of,
    show,
    steering,
)

if TYPE_CHECKING:
    from recsys.storage.entities.scenario_rows import StoredScenario

app = typer.Typer(
    name="scenarios", help="How places of the shop are answered.", no_args_is_help=True
)
NameArgument = Annotated[str, typer.Argument(help="The scenario, such as home.")]
FileArgument = Annotated[Path, typer.Argument(help="A JSON file of what it says.", metavar="FILE")]
MAX_BYTES = 1_000_000  # of a file
SHOWN = 50  # versions


@app.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the scenarios that answer.

    Example: recsys scenarios list
    """
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import scenario_rows

    with open_database(settings_of(config)).connect() as connection:
        found = scenario_rows.list_scenarios(connection)
    lines = [f"{one.name}  version {one.version}  {_kind(one)}" for one in found]
    text = "\n".join(lines) or "no scenario is stored"
    show({"scenarios": [_out(one) for one in found]}, as_json, text)


@app.command("show")
def show_(name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what a scenario says, and its versions.

    Example: recsys scenarios show home
    """
    from recsys.errors import NotFoundError
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import scenario_rows

    with open_database(settings_of(config)).connect() as connection:
        found = scenario_rows.get_scenario(connection, name)
        versions = scenario_rows.list_versions(connection, name, SHOWN)
    if not versions:
        raise NotFoundError("scenario", name)
    state = "deleted" if found is None else f"version {found.version} answers"
    told = json.dumps((found or versions[0]).spec.plain, indent=2, ensure_ascii=False)
    lines = [f"{name}: {state}", told]
    lines += [
        f"  {one.version}  by {one.author}" + (f", {one.note}" if one.note else "")
        for one in versions
    ]
    current = None if found is None else _out(found)
    shown = {"name": name, "current": current, "versions": [_out(one) for one in versions]}
    show(shown, as_json, "\n".join(lines))


@app.command("set")
def set_(
    name: NameArgument,
    file: FileArgument,
    based_on: Annotated[
        int | None,
        typer.Option(min=0, help="Only if this version, or with 0 none, still answers."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a scenario or its next version.

    Example: recsys scenarios set home home.json
    """
    from recsys.commands import scenarios
    from recsys.steering.scenario_spec import read_spec

    spec = read_spec(_read(file))
    database, actor, now_us = steering(config)
    with named_as_given(name="NAME"):
        stored = scenarios.put_scenario(database, actor, name, spec, now_us, based_on=based_on)
    show(_out(stored), as_json, f"{name}: version {stored.version} answers")


@app.command("delete")
def delete(name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Delete a scenario: its name is a label for reports again, its versions stay.

    Example: recsys scenarios delete home
    """
    from recsys.commands import scenarios

    database, actor, now_us = steering(config)
    stored = scenarios.delete_scenario(database, actor, name, now_us)
    show(_out(stored), as_json, f"{name}: deleted")


@app.command("rollback")
def rollback(
    name: NameArgument,
    version: Annotated[
        int | None, typer.Option(min=1, help="Default: the one before the present.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to an earlier version, which gets a new number.

    Example: recsys scenarios rollback home --version 3
    """
    from recsys.commands import scenarios

    database, actor, now_us = steering(config)
    stored = scenarios.roll_back(database, actor, name, version, now_us)
    show(_out(stored), as_json, f"{name}: version {stored.version} answers ({stored.note})")


@app.command("estimate")
def estimate(
    name: NameArgument,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", exists=True, dir_okay=False, help="JSON; default: as it answers now."
        ),
    ] = None,
    model_version: Annotated[
        str | None, typer.Option(help="The model that would answer. Default: the champion.")
    ] = None,
    answers: Annotated[
        int, typer.Option(min=1, max=100_000, help="Logged answers asked again, the newest.")
    ] = 2_000,
    days: Annotated[int, typer.Option(min=1, max=3_650, help="How far back.")] = 14,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate what another version, or another model, would have earned, from the answers of the current one.

    Example: recsys scenarios estimate home home.json
    """
    from recsys.commands import scenarios
    from recsys.events.times import to_us
    from recsys.serving.recommender import Recommender
    from recsys.serving.steering.scenario_estimate import EstimateLimits, estimate_scenario
    from recsys.steering.scenario_spec import read_spec
    from recsys.storage.engine.database import open_database

    settings = settings_of(config)
    spec, now_us = None if file is None else read_spec(_read(file)), to_us(now())
    with closing(Recommender(settings, open_database(settings), time.monotonic)) as recommender:
        with recommender.database.connect() as connection:
            if spec is not None:
                scenarios.check_spec(connection, spec, recommender.catalogue, now_us)
        if problem := recommender.follow_once(now_us):
            typer.echo(problem, err=True)
        limits = EstimateLimits(answers, days, math.inf)
        found = estimate_scenario(
            recommender, name, spec, limits, now_us, model_version=model_version
        )
    show(found.plain, as_json, found.text)


def _read(file: Path) -> Any:
    """The JSON in a file. Raises InputError where there is none, or too much."""
    from recsys.errors import InputError

    with file.open("rb") as opened:
        text = opened.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise InputError("FILE", file.name, f"expected at most {MAX_BYTES:,} bytes")
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError("FILE", file.name, f"expected JSON: {error}") from None


def _kind(one: StoredScenario) -> str:
    return f"{len(one.spec.rows)} rows" if one.spec.rows else one.spec.logic


def _out(one: StoredScenario) -> dict[str, Any]:
    from recsys.events.times import rfc3339

    return {
        "name": one.name,
        "version": one.version,
        "author": one.author,
        "created_at": rfc3339(one.created_at_us),
        "note": one.note,
        "spec": one.spec.plain,
    }
