"""Options that say how a file of events is read, shared by every command that reads one."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.cli.terminal import say, show
from recsys.errors import InputError

if TYPE_CHECKING:
    from recsys.config import Settings
    from recsys.ingest.cells import CellRules
    from recsys.ingest.dialects import TextOptions
    from recsys.ingest.event_files import ReadOptions

# Options by the field of ReadOptions, where they have another name.
OPTIONS = {
    "columns": "--map",
    "cells": "--null",
    "text": "--columns",
    "time_format": "--time-format",
    "default_type": "--default-type",
}
# Parameters of `read_options` that a message has no use for.
OF_FILES = ("format_", "order", "columns", "delimiter", "quote", "escape", "encoding")
MAP_HELP = "Columns by meaning: user=…,item=…,timestamp=…,event_type=…,session=…,event_id=…,value=…"

MapOption = Annotated[str, typer.Option("--map", help=MAP_HELP)]
UnitOption = Annotated[
    str | None, typer.Option(help="Unit of numeric timestamps: s, ms, us or ns.")
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(help="Keep rows where 'column OP value' (= != < <= > >=); can be repeated."),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="A public layout (retailrocket, yoochoose, diginetica, movielens, rees46), or an export "
        "of gorse, segment, ga4, snowplow or posthog.",
    ),
]
ColumnsOption = Annotated[
    str, typer.Option("--columns", help="Column names of a file without a header: a,b,c.")
]
DelimiterOption = Annotated[
    str | None, typer.Option(help="One character, or tab. Default: detected.")
]
QuoteOption = Annotated[
    str | None, typer.Option(help="The quote character, or none. Default: detected.")
]
EscapeOption = Annotated[
    str | None, typer.Option(help="The escape character, or none. Default: detected.")
]
EncodingOption = Annotated[
    str | None,
    typer.Option(help="latin-1, utf-16, … Default: UTF-8, or given by a byte order mark."),
]
NullOption = Annotated[
    str | None,
    typer.Option(
        "--null", help=r"Words that mean a missing value. Default: NULL,null,\N,NaN,nan,None,<NA>."
    ),
]


def text_options(
    columns: str, delimiter: str | None, quote: str | None, escape: str | None, encoding: str | None
) -> TextOptions:
    """How a text file is written. Raises InputError."""
    from recsys.ingest.dialects import TextOptions

    return TextOptions(
        delimiter={"tab": "\t", r"\t": "\t", r"\x01": "\x01"}.get(delimiter or "", delimiter),
        columns=tuple(name.strip() for name in columns.split(",")) if columns else (),
        quote=quote,
        escape=escape,
        encoding=encoding,
    )


def cell_rules(null: str | None) -> CellRules:
    """What a cell means. Raises InputError."""
    from recsys.ingest.cells import CellRules

    return CellRules() if null is None else CellRules.parse(null)


def read_options(
    map_: MapOption = "",
    unit: UnitOption = None,
    default_type: Annotated[str, typer.Option(help="Type of events without one.")] = "view",
    where: WhereOption = None,
    format_: FormatOption = None,
    timezone: Annotated[
        str | None, typer.Option(help="IANA time zone of times without a UTC offset.")
    ] = None,
    time_format: Annotated[
        str | None, typer.Option(help="Format of timestamps, as for strptime: '%d-%m-%Y %H:%M'.")
    ] = None,
    order: Annotated[
        str,
        typer.Option(help="Order of rows with the same time: auto, oldest-first or newest-first."),
    ] = "auto",
    columns: ColumnsOption = "",
    delimiter: DelimiterOption = None,
    quote: QuoteOption = None,
    escape: EscapeOption = None,
    encoding: EncodingOption = None,
    null: NullOption = None,
) -> ReadOptions:
    """The options together. Raises InputError."""
    from recsys.ingest.event_files import ColumnMap, ReadOptions

    return ReadOptions(
        columns=ColumnMap.parse(map_),
        unit=unit,
        default_type=default_type,
        where=tuple(where or ()),
        format=format_,
        timezone=timezone,
        time_format=time_format,
        order=order,
        text=text_options(columns, delimiter, quote, escape, encoding),
        cells=cell_rules(null),
    )


def with_own_names(reading: ReadOptions, settings: Settings) -> ReadOptions:
    """`reading` with what tracked events of a team's own names are."""
    return replace(reading, tracked=settings.segment.events) if reading.format else reading


def refuse_reading(reading: ReadOptions, problem: str) -> None:
    """Raise InputError where an option says how a file is read, and there is none."""
    from recsys.ingest.event_files import ReadOptions

    for one in fields(reading):
        given = getattr(reading, one.name)
        if given != getattr(ReadOptions(), one.name):
            raise InputError(OPTIONS.get(one.name, f"--{one.name}"), given, problem)


def reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the parameters of `read_options` in place of its own named `reading`."""
    return _with_options(command)


def message_options(command: Callable[..., None]) -> Callable[..., None]:
    """As `reading_options`, without those of files: a message is JSON."""
    return _with_options(command, OF_FILES)


def _with_options(
    command: Callable[..., None], without: Collection[str] = ()
) -> Callable[..., None]:
    every = inspect.signature(read_options, eval_str=True, locals={"ReadOptions": Any}).parameters
    taken = {name: one for name, one in every.items() if name not in without}
    own = inspect.signature(command, eval_str=True, locals={"ReadOptions": Any}).parameters

    @wraps(command)
    def called(**values: Any) -> None:
        options = {name: values.pop(name) for name in taken}
        command(reading=read_options(**options), **values)

    before = [one for one in own.values() if one.default is inspect.Parameter.empty]
    after = [one for one in own.values() if one.default is not inspect.Parameter.empty]
    parameters = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for one in (*before, *taken.values(), *after)
        if one.name != "reading"
    ]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    return called


def import_each(
    paths: list[str], import_one: Callable[[Path], Mapping[str, int]], as_json: bool
) -> None:
    """Import files one after the other and print the sum of what `import_one` counted of each.

    Exits with status 1 where every row was rejected.
    """
    from recsys.ingest.input_files import local_files

    summary: Counter[str] = Counter()
    with local_files(paths) as files:
        for path in files:
            summary.update(import_one(path))
    if summary["rejected"] and not as_json:
        say("Rejected rows wait in quarantine, with reasons: recsys events rejected")
    show(dict(summary), as_json)
    if summary["read"] and summary["rejected"] == summary["read"]:
        raise typer.Exit(1)
