"""recsys items import"""

from __future__ import annotations

from collections import Counter
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
    text_options,
)
from recsys.cli.terminal import ConfigOption, JsonOption, now, say, settings_of, show

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
    from recsys.ingest.input_files import local_files
    from recsys.ingest.item_files import ItemMap, ItemOptions
    from recsys.pipeline import import_items
    from recsys.storage.engine.database import open_database

    options = ItemOptions(
        columns=ItemMap.parse(map_),
        text=text_options(columns, delimiter, quote, escape, encoding),
        cells=cell_rules(null),
    )
    database = open_database(settings_of(config))
    summary: Counter[str] = Counter()
    with local_files(paths) as files:
        for path in files:
            summary.update(import_items(database, path, options, now()))
    if summary["rejected"] and not as_json:
        say("Rejected rows wait in quarantine, with reasons: recsys events rejected")
    show(dict(summary), as_json)
    if summary["read"] and summary["rejected"] == summary["read"]:
        raise typer.Exit(1)
