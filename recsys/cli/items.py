"""recsys items import"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.terminal import ConfigOption, JsonOption, now, settings_of, show

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
    """Store item metadata; columns that are not mapped become properties.

    Example: recsys items import films.parquet --map item=imdb_id,title=title,categories=genres
    """
    from recsys.pipeline import import_items
    from recsys.storage.engine.database import open_database

    database = open_database(settings_of(config))
    show(import_items(database, path, columns, now()), as_json)
