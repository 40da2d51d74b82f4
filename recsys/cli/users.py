"""recsys users attributes | import | delete | allow"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from recsys.cli.read_options import (
    ColumnsOption,
    DelimiterOption,
    EncodingOption,
    EscapeOption,
    NullOption,
    QuoteOption,
    cell_rules,
    import_each,
    text_options,
)
from recsys.cli.terminal import ConfigOption, JsonOption, now, settings_of, show, steering

app = typer.Typer(name="users", help="Users' attributes; erasing users.", no_args_is_help=True)


@app.command("attributes")
def attributes(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    set_: Annotated[
        str | None,
        typer.Option("--set", metavar="JSON", help="Replace them all by this JSON object."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them; events stay.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a user's attributes, replace them, or delete them.

    Example: recsys users attributes u123 --set '{"plan": "pro"}'
    """
    from recsys.commands import user_data
    from recsys.errors import InputError, NotFoundError
    from recsys.events.times import rfc3339
    from recsys.ingest.user_body import attributes_text, check_user
    from recsys.storage.entities import attribute_rows

    if set_ is not None and delete:
        raise InputError("--delete", True, "expected --set or this, not both")
    database, actor, now_us = steering(config)
    if set_ is not None:
        given = check_user(user, attributes_text(set_))
        found = user_data.set_attributes(database, actor, given, now_us)
    elif delete:
        found = user_data.delete_attributes(database, actor, user, now_us)
    else:
        with database.connect() as connection:
            stored = attribute_rows.get_attributes(connection, user)
        if stored is None:
            raise NotFoundError("attributes of user", user)
        found = stored
    state = "deleted" if delete else f"changed {rfc3339(found.updated_at_us)}"
    lines = [f"{found.user_id}: {state}"]
    for name, value in found.attributes.items():
        lines.append(f"  {name}: {json.dumps(value, ensure_ascii=False)}")
    shown = {"user_id": found.user_id, "attributes": found.attributes}
    show({**shown, "updated_at": rfc3339(found.updated_at_us)}, as_json, "\n".join(lines))


@app.command("import")
def import_(
    paths: Annotated[
        list[str],
        typer.Argument(help="CSV, TSV, JSON (.gz, .zst, .zip) or Parquet; patterns; - for stdin."),
    ],
    map_: Annotated[
        str,
        typer.Option("--map", help="Columns by meaning: user=…,attributes=… (an object)"),
    ] = "",
    columns: ColumnsOption = "",
    delimiter: DelimiterOption = None,
    quote: QuoteOption = None,
    escape: EscapeOption = None,
    encoding: EncodingOption = None,
    null: NullOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store users' attributes: every column but the user's is one. What the file has no column for
    stays as it is stored; an empty cell takes an attribute away. Bad rows go to the quarantine.

    Example: recsys users import customers.csv --map user=customer_no
    """
    from recsys.ingest.user_files import UserMap, UserOptions
    from recsys.pipeline import import_users
    from recsys.storage.engine.database import open_database

    options = UserOptions(
        columns=UserMap.parse(map_),
        text=text_options(columns, delimiter, quote, escape, encoding),
        cells=cell_rules(null),
    )
    database = open_database(settings_of(config))
    import_each(paths, lambda path: import_users(database, path, options, now()), as_json)


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
