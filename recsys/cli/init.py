"""recsys init"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.common import JsonOption, now, say, settings_of, show
from recsys.errors import ConflictError


def register(app: typer.Typer) -> None:
    app.command("init")(init)


def template() -> Path:
    """The commented config.toml that ships with the package."""
    package = Path(__file__).parents[1]
    installed = package / "_config.toml"
    return installed if installed.is_file() else package.parent / "config.toml"


def init(
    folder: Annotated[Path, typer.Argument(help="Where to put config.toml.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a commented config.toml, create the tables and an admin key.

    Example: recsys init
    """
    from recsys.data.times import to_us
    from recsys.storage import key_rows, migrate
    from recsys.storage.database import open_database

    path = folder / "config.toml"
    if path.exists() and path.resolve() != template().resolve():
        raise ConflictError(f"{path} exists already; it is left as it is")
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        shutil.copyfile(template(), path)
    settings = settings_of(path)
    database = open_database(settings)
    migrate.upgrade(database)
    with database.begin() as connection:
        key = key_rows.create_key(connection, "admin", ["admin"], to_us(now()))
    if not as_json:
        say("The key is shown this once; only its hash is stored.")
    show({"config": str(path), "admin_key": key}, as_json)
