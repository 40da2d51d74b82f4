"""recsys items import"""

from __future__ import annotations

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
from recsys.cli.terminal import ConfigOption, JsonOption, now, settings_of

app = typer.Typer(name="items", help="The catalogue.", no_args_is_help=True)


@app.command("import")
def import_(
    paths: Annotated[
        list[str],
        typer.Argument(help="CSV, TSV, JSON (.gz, .zst, .zip) or Parquet; patterns; - for stdin."),
    ],
    map_: Annotated[
        str,
        typer.Option(
            "--map",
            help="Columns by meaning: item=…,title=…,categories=…,price=…,image=…,available=…",
        ),
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
    """Store item metadata; columns that are not mapped become properties. What the file has no column
    for stays as it is stored; an empty cell takes a value away. Bad rows go to the quarantine.

    Example: recsys items import films.parquet --map item=imdb_id,title=title,categories=genres
    """
    from recsys.ingest.item_files import ItemMap, ItemOptions
    from recsys.pipeline import import_items
    from recsys.storage.engine.database import open_database

    options = ItemOptions(
        columns=ItemMap.parse(map_),
        text=text_options(columns, delimiter, quote, escape, encoding),
        cells=cell_rules(null),
    )
    database = open_database(settings_of(config))
    import_each(paths, lambda path: import_items(database, path, options, now()), as_json)
