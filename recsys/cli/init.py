"""recsys init"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import orjson
import typer

from recsys.cli.terminal import JsonOption, now, say, settings_of, show
from recsys.config import template
from recsys.errors import ConflictError


def register(app: typer.Typer) -> None:
    app.command("init")(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Where to put config.toml.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a commented config.toml, create the tables, an admin key and the dashboard's first account.

    Example: recsys init
    """
    from recsys.commands import credentials
    from recsys.events.times import to_us
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities.audit_rows import CLI
    from recsys.storage.schema import migrate

    path = folder / "config.toml"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(_config(folder).encode())
    except FileExistsError:
        if path.resolve() != template().resolve():
            raise ConflictError(f"{path} already exists; it was not changed") from None
    settings = settings_of(path)
    database = open_database(settings)
    migrate.upgrade(database)
    key, password = credentials.create_first(database, CLI, to_us(now()))
    result = {"config": str(path), "admin_key": key}
    if password is not None:
        result |= {"admin_account": credentials.FIRST, "admin_password": password}
    if not as_json:
        say("The key and password are shown only once; only their hashes are stored.")
    show(result, as_json)
    if not as_json:
        at = "" if folder.resolve() == Path.cwd() else f" --config {shlex.quote(str(path))}"
        say(f"Next: recsys events import FILE{at}, recsys train{at}, recsys serve{at}")
        say("Events in a table of your own: set events.url, events.table and its columns, then")
        say(f"recsys events check{at}, recsys train{at}, recsys serve{at} (docs/own-table.md)")


def _config(folder: Path) -> str:
    """The template; of another folder than the one at hand, with database, models, backups and uploads there."""
    text, here = template().read_text(), folder.resolve()
    if here == Path.cwd():
        return text
    there = orjson.dumps(f"{here}/var/").decode()[1:-1]  # within quotes, as TOML has them too
    for key in ('url = "sqlite:///', 'path = "'):
        text = text.replace(f"{key}var/", f"{key}{there}")
    return text
