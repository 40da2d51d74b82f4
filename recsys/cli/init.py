"""recsys init"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
            file.write(template().read_bytes())
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
