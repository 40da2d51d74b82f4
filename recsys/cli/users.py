"""recsys users delete | allow"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from recsys.cli.terminal import ConfigOption, JsonOption, now, settings_of, show, steering

app = typer.Typer(name="users", help="Erase users.", no_args_is_help=True)


@app.command("delete")
def delete(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase a user everywhere and print the receipt.

    Example: recsys users delete u123
    """
    from recsys.commands import user_data
    from recsys.events.times import to_us
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities.audit_rows import CLI

    settings = settings_of(config)
    receipt = asdict(user_data.erase(settings, open_database(settings), CLI, user, to_us(now())))
    lines = [f"{user}: erased at {receipt['erased_at']}"]
    lines += [f"  {number:>8,} {kind}" for kind, number in receipt["removed"].items()]
    for kind in ("merged_users", "merged_sessions"):
        if receipt[kind]:
            lines.append(
                f"  erased with them, {kind.replace('_', ' ')}: {', '.join(receipt[kind])}"
            )
    lines += [f"  {kind}: {note}" for kind, note in receipt["notes"].items()]
    show(receipt, as_json, "\n".join(lines))


@app.command("allow")
def allow(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accept new events of an erased user again.

    Example: recsys users allow u123
    """
    from recsys.commands import user_data

    database, actor, now_us = steering(config)
    user_data.allow_again(database, actor, user, now_us)
    show({"user_id": user, "allowed": True}, as_json)
