"""recsys admin create | list | disable | enable | password"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.terminal import (
    ConfigOption,
    JsonOption,
    named_as_given,
    say,
    settings_of,
    show,
    steering,
)
from recsys.errors import InputError

app = typer.Typer(name="admin", help="Manage the dashboard's accounts.", no_args_is_help=True)

PasswordOption = Annotated[
    str | None,
    typer.Option(
        help="Where to read the password: file:PATH, - (stdin) or ask. Default: generate one.",
        show_default=False,
    ),
]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="The name to log in with.")],
    role: Annotated[str, typer.Option(help="viewer, operator or admin.")] = "viewer",
    password: PasswordOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an account; a generated password is shown only once.

    Example: recsys admin create ada --role admin
    """
    from recsys.commands import credentials

    chosen, made = _password(password)
    database, actor, now_us = steering(config)
    with named_as_given(name="NAME", role="--role"):
        credentials.create_account(database, actor, name, chosen, role, now_us)
    _show(name, role, chosen if made else None, as_json)


@app.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List accounts and their roles.

    Example: recsys admin list
    """
    from recsys.events.times import rfc3339
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import account_rows

    with open_database(settings_of(config)).connect() as connection:
        rows = account_rows.list_accounts(connection)
    shown = [
        {
            "name": row.name,
            "role": row.role,
            "created_at": rfc3339(row.created_at_us),
            "disabled_at": rfc3339(row.disabled_at_us),
        }
        for row in rows
    ]
    lines = [
        f"{row['name']:<24} {row['role']:<9}" + ("  (disabled)" if row["disabled_at"] else "")
        for row in shown
    ]
    text = "\n".join(lines) or "no accounts yet; run: recsys admin create NAME --role admin"
    show({"accounts": shown}, as_json, text)


@app.command("disable")
def disable(
    name: Annotated[str, typer.Argument(help="The account.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Log an account out everywhere and block it from logging in.

    Example: recsys admin disable ada
    """
    _set_disabled(name, True, config, as_json)


@app.command("enable")
def enable(
    name: Annotated[str, typer.Argument(help="The account.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a disabled account log in again.

    Example: recsys admin enable ada
    """
    _set_disabled(name, False, config, as_json)


@app.command("password")
def password(
    name: Annotated[str, typer.Argument(help="The account.")],
    password: PasswordOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a password, end the account's sessions and lift its lockout.

    Example: recsys admin password ada
    """
    from recsys.commands import credentials

    chosen, made = _password(password)
    database, actor, now_us = steering(config)
    account = credentials.set_password(database, actor, name, chosen, now_us)
    _show(name, account.role, chosen if made else None, as_json)


def _set_disabled(name: str, disabled: bool, config: Path | None, as_json: bool) -> None:
    from recsys.commands import credentials

    database, actor, now_us = steering(config)
    credentials.set_disabled(database, actor, name, disabled, now_us)
    show({"account": name, "disabled": disabled}, as_json)


def _password(source: str | None) -> tuple[str, bool]:
    """The password, and whether it was made here. Raises InputError."""
    from recsys.storage.entities.passwords import MAX_LENGTH, new_password

    if source is None:
        return new_password(), True
    if source == "-":
        return sys.stdin.readline(MAX_LENGTH + 2).rstrip("\r\n"), False
    if source == "ask":
        return typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True), False
    if source.startswith("file:"):
        with open(source[5:], encoding="utf-8") as file:
            return file.readline(MAX_LENGTH + 2).rstrip("\r\n"), False
    raise InputError("--password", "…", "expected file:PATH, - or ask, not the password itself")


def _show(name: str, role: str, made: str | None, as_json: bool) -> None:
    result = {"account": name, "role": role}
    if made is not None:
        if not as_json:
            say("The password is shown only once; only its hash is stored.")
        result["password"] = made
    show(result, as_json)
