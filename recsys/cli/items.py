"""recsys items import"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.terminal import ConfigOption, JsonOption, now, say, settings_of, show

app = typer.Typer(name="items", help="The catalogue.", no_args_is_help=True)


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="CSV, TSV, JSON Lines (.gz, .zst) or Parquet.")],
    columns: Annotated[
        str,
        typer.Option(
            "--map",
            help="Columns by meaning: item=…,title=…,categories=…,price=…,image=…,available=…",
        ),
    ] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store item metadata; columns that are not mapped become properties. What the file has no column
    for stays as it is stored; an empty cell takes a value away. Bad rows go to the quarantine.

    Example: recsys items import films.parquet --map item=imdb_id,title=title,categories=genres
    """
    from recsys.pipeline import import_items
    from recsys.storage.engine.database import open_database

    database = open_database(settings_of(config))
    summary = import_items(database, path, columns, now())
    if summary["rejected"] and not as_json:
        say("Rejected rows wait in quarantine, with reasons: recsys events rejected")
    show(summary, as_json)
    if summary["read"] and summary["rejected"] == summary["read"]:
        raise typer.Exit(1)
