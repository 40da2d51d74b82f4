"""recsys init"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.common import JsonOption, now, say, settings_of, show
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
    from recsys.events.times import to_us
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import account_rows, key_rows
    from recsys.storage.entities.audit_rows import CLI, add_audit
    from recsys.storage.entities.passwords import new_password
    from recsys.storage.schema import migrate

    path = folder / "config.toml"
    if path.exists() and path.resolve() != template().resolve():
        raise ConflictError(f"{path} exists already; it is left as it is")
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        shutil.copyfile(template(), path)
    settings = settings_of(path)
    database = open_database(settings)
    migrate.upgrade(database)
    moment, password = to_us(now()), new_password()
    result = {"config": str(path)}
    with database.begin() as connection:
        result["admin_key"] = key_rows.create_key(connection, "admin", ["admin"], moment)
        if not account_rows.list_accounts(connection):
            account_rows.create_account(connection, "admin", password, "admin", moment)
            add_audit(connection, CLI, "account.create", "admin", moment, {"role": "admin"})
            result |= {"admin_account": "admin", "admin_password": password}
    if not as_json:
        say("Key and password are shown this once; only their hashes are stored.")
    show(result, as_json)
