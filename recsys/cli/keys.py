"""recsys keys create | list | revoke"""

from __future__ import annotations

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

app = typer.Typer(name="keys", help="API keys.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="A name for the key, such as what it is for.")],
    scope: Annotated[
        list[str], typer.Option(help="read, write, admin or collect; can be repeated.")
    ],
    origin: Annotated[
        list[str] | None, typer.Option(help="For collect: a page's origin; can be repeated.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key; it is shown only once.

    Example: recsys keys create shop --scope read --scope write
    """
    from recsys.commands import credentials

    database, actor, now_us = steering(config)
    with named_as_given(scopes="--scope", name="NAME", allowed_origins="--origin"):
        key = credentials.create_key(database, actor, name, scope, origin or [], now_us)
    if not as_json:
        say("The key is shown only once; only its hash is stored.")
    show({"key": key, "scopes": ",".join(scope)}, as_json)


@app.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List keys by ID; secrets are not stored and cannot be shown.

    Example: recsys keys list
    """
    from recsys.events.times import rfc3339
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import key_rows

    with open_database(settings_of(config)).connect() as connection:
        rows = key_rows.list_keys(connection)
    shown = [
        {
            "key_id": row.key_id,
            "name": row.name,
            "scopes": ",".join(sorted(row.scopes)),
            "created_at": rfc3339(row.created_at_us),
            "revoked_at": rfc3339(row.revoked_at_us),
        }
        for row in rows
    ]
    lines = [
        f"{row['key_id']}  {row['scopes']:<12} {row['name']}"
        + ("  (revoked)" if row["revoked_at"] else "")
        for row in shown
    ]
    show({"keys": shown}, as_json, "\n".join(lines) or "no keys")


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The ID shown by `keys list`.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key; it stops working at once.

    Example: recsys keys revoke 0a1b2c3d4e5f
    """
    from recsys.commands import credentials

    database, actor, now_us = steering(config)
    credentials.revoke_key(database, actor, key_id, now_us)
    show({"revoked": key_id}, as_json)
