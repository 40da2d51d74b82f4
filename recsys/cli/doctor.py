"""recsys doctor"""

from __future__ import annotations

from contextlib import closing

import typer
from rich.console import Console
from rich.table import Table

from recsys.cli.terminal import ConfigOption, JsonOption, now, settings_of, show
from recsys.config import chosen_path
from recsys.errors import ConfigError

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check the installation and say what to fix; exit status 1 if a check fails.

    Example: recsys doctor
    """
    from recsys.ops.diagnosis import examine
    from recsys.ops.machine_checks import Finding
    from recsys.storage.engine.database import open_database

    path = chosen_path(config)
    try:
        settings = settings_of(config)
        with closing(open_database(settings)) as database:
            findings = examine(settings, database, path, now())
    except ConfigError as error:
        findings = [Finding("configuration", "fail", str(error), "fix that key")]
    counts = {state: sum(one.state == state for one in findings) for state in COLOURS}
    if as_json:
        show({"findings": [vars(one) for one in findings], **counts}, as_json)
    else:
        table = Table(box=None, pad_edge=False)
        for title in ("check", "", "found", "what to do"):
            table.add_column(title, overflow="fold")
        for one in findings:
            colour = COLOURS[one.state]
            table.add_row(one.check, f"[{colour}]{one.state}[/]", one.found, one.advice)
        Console(highlight=False).print(table)
    if counts["fail"]:
        raise typer.Exit(1)
