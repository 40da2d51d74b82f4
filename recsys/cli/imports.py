"""recsys events imports | undo"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from recsys.cli.events import app
from recsys.cli.terminal import ConfigOption, JsonOption, settings_of, show, steering

COUNTS = ("read", "accepted", "duplicates", "repeats", "rejected", "skipped")


@app.command("imports")
def imports(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of imports.")] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List file imports, newest first: what each read and stored, and with which options.

    Example: recsys events imports
    """
    from recsys.events.times import rfc3339
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import import_rows

    with open_database(settings_of(config)).connect() as connection:
        rows = import_rows.list_imports(connection, limit)
    shown: list[dict[str, Any]] = [
        {
            "import_id": row.id,
            "source": row.source,
            "state": row.state,
            "actor": row.actor,
            "started_at": rfc3339(row.started_at_us),
            "finished_at": rfc3339(row.finished_at_us),
            "undone_at": rfc3339(row.undone_at_us),
            "options": row.options,
            **{name: row.counts.get(name) for name in (*COUNTS, "seconds")},
        }
        for row in rows
    ]
    lines = [
        f"{one['import_id']:>6}  {one['started_at']}  {one['state']:<10} "
        f"{_number(one['accepted'])} accepted, {_number(one['rejected'])} rejected of "
        f"{_number(one['read'])}  {one['source']}"
        for one in shown
    ]
    show({"imports": shown}, as_json, "\n".join(lines) or "no imports")


@app.command("undo")
def undo(
    import_id: Annotated[int, typer.Argument(min=1, help="The ID shown by `events imports`.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Undo an import: delete the events it stored and its quarantined rows.

    What it found stored already stays. The file can be imported again.

    Example: recsys events undo 3
    """
    from recsys.commands import imports as changes

    database, actor, now_us = steering(config)
    show(changes.undo(database, actor, import_id, now_us), as_json)


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"
