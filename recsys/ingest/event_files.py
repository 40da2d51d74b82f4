"""A file of events -> chunks of checked events, and the rejected rows with their reasons.

Every row of a file is counted once: read = accepted + rejected + skipped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from recsys.errors import InputError
from recsys.events.export_files import unguarded
from recsys.events.fields import EVENT_COLUMNS, POSITIONED_SCHEMA
from recsys.ingest import gorse_exports
from recsys.ingest.byte_stream import file_kind, file_size
from recsys.ingest.delimited import DelimitedFile
from recsys.ingest.dialects import NONE, Dialect, TextOptions, line_fields
from recsys.ingest.event_parser import EventChunk, EventParser
from recsys.ingest.json_lines import JsonLines, chunk_of
from recsys.ingest.json_paths import paths_within
from recsys.ingest.layouts import (
    LAYOUTS,
    ColumnMap,
    Layout,
    ReadOptions,
    choose_layout,
    is_export_header,
    is_own_export,
)
from recsys.ingest.parquet import ParquetFile
from recsys.ingest.raw_rows import CUT, MAX_RAW_VALUE, RawLine, Rejection, Row, RowSource
from recsys.ingest.row_conditions import Condition
from recsys.ingest.row_order import RowOrder
from recsys.ingest.translations import TRANSLATED, Translation, translation_of

__all__ = [
    "LAYOUTS",
    "ColumnMap",
    "EventChunk",
    "ReadOptions",
    "Rejection",
    "file_size",
    "read_events",
    "read_rejected",
]

UNREADABLE = "too little of it was kept to read it again: import its file again"


def read_events(
    path: str | Path,
    options: ReadOptions,
    now_us: int,
    chunk_rows: int = 100_000,
    known_types: Collection[str] = (),
) -> Iterator[EventChunk]:
    """The events of a CSV, TSV, JSON Lines or Parquet file, the first two plain, .gz or .zst.

    Memory is bounded by the chunk, not by the file. `now_us` (µs since 1970) is the time now: what
    lies more than five minutes after it is rejected. `known_types`: of events that there are, or that
    the configuration names; a default type that is nearly one of them is told. Raises InputError at once where the file
    cannot be opened or a column that was named is not there; while reading, where the file is
    damaged or its first chunk shows that the timestamps are not what `options` say.
    """
    if options.format == gorse_exports.FORMAT:
        return gorse_exports.read_gorse_events(path, options, now_us, chunk_rows)
    translation = _translation(options)
    if translation is not None:
        nested = _open_nested(path, options, chunk_rows, translation)
        parser = EventParser(translation.names, options, None, now_us, known_types=known_types)
        order = RowOrder(options.order)
        return _translated(_read(nested, parser, order, file_size(path)), translation)
    source, layout = open_rows(path, options, chunk_rows)
    exported = is_own_export(source.names, options)
    names = _with_paths(source, options)
    parser = EventParser(names, options, layout, now_us, known_types=known_types)
    order = RowOrder("oldest-first" if exported else options.order)
    return _read(source, parser, order, file_size(path))


def _read(
    source: RowSource, parser: EventParser, order: RowOrder, unread: int
) -> Iterator[EventChunk]:
    empty = True
    for raw in source.chunks(parser.needed):
        unread -= raw.bytes_read
        empty = False
        yield order.applied(parser.parse(raw))
    if unread or empty:
        yield EventChunk(POSITIONED_SCHEMA.empty_table(), [], 0, 0, unread)


def _translation(options: ReadOptions) -> Translation | None:
    """How rows of another system's format are taken; None for any other. Raises InputError."""
    found = translation_of(options.format or "", options.tracked)
    if found is not None and options.columns.mapped():
        given = ",".join(f"{a}={b}" for a, b in options.columns.mapped().items())
        raise InputError("--map", given, f"is not taken with --format {options.format}")
    return found


def _open_nested(
    path: str | Path, options: ReadOptions, rows: int, translation: Translation
) -> RowSource:
    """A JSON or Parquet file of another system's. Raises InputError."""
    kind = file_kind(path)
    if kind == "delimited":
        expected = "is a format of JSON Lines and Parquet files; this is neither"
        raise InputError("--format", options.format, expected)
    source: RowSource = (
        ParquetFile(path, rows, translation)
        if kind == "parquet"
        else JsonLines(path, rows, options.text.encoding, translation)
    )
    if source.names:  # a JSON file whose first lines are all bad has none
        translation.columns(source.names)
    return source


def _translated(chunks: Iterator[EventChunk], translation: Translation) -> Iterator[EventChunk]:
    """`chunks` with what was left out of each, by name; a rejected row names its owner in fields of its
    own, or anywhere.
    """
    for chunk in chunks:
        yield replace(chunk, notes=chunk.notes + translation.noted(), owners=None)


def _with_paths(source: RowSource, options: ReadOptions) -> list[str]:
    """The columns of `source`, and what `options` name within one of them."""
    if isinstance(source, JsonLines) and is_own_export(source.names, options):
        return list(EVENT_COLUMNS)  # the first rows may lack what a later one has
    named = [
        *options.columns.mapped().values(),
        *(Condition.parse(text).column for text in options.where),
    ]
    return [*source.names, *paths_within(named, source)]


def read_rejected(
    raws: Sequence[str], options: ReadOptions, now_us: int, known_types: Collection[str] = ()
) -> EventChunk:
    """Read rows that were rejected earlier, given by their `Rejection.raw`, again.

    A position is a place in `raws`. A line that could not be cut into fields is cut as its file was,
    but for what `options` say of quotes, escapes, the delimiter and the columns. Rows of which too
    little was kept are rejected as UNREADABLE, and counted so in `notes`. Single rows say nothing of
    the file they are from, so each is judged alone: a time without a UTC offset needs
    `options.timezone`. Raises InputError where `options` themselves are wrong.
    """
    translation = _translation(options)
    rows: list[Row] = []
    places: list[int] = []
    refused: list[Rejection] = []
    for place, raw in enumerate(raws):
        found = _row_of(raw, options.text)
        if isinstance(found, str):
            refused.append(Rejection(place, found, raw))
            continue
        try:
            each = [found] if translation is None else translation.rows(found)
        except InputError as error:
            refused.append(Rejection(place, str(error), raw))
            continue
        rows += each
        places += [place] * len(each)
    names, layout = list(dict.fromkeys(name for row in rows for name in row)), None
    if translation is not None:
        names = list(translation.names)
    elif options.format and names:
        layout = choose_layout(options.format, names, None)
    parser = EventParser(names, options, layout, now_us, replay=True, known_types=known_types)
    positions = np.array(places, np.int64)
    chunk = parser.parse(chunk_of(rows, positions, refused, parser.needed, 0))
    unreadable = sum(one.reason == UNREADABLE for one in refused)
    notes = chunk.notes + Counter({UNREADABLE: unreadable})
    if translation is not None:
        return replace(chunk, notes=notes + translation.noted(), owners=None)
    return replace(chunk, notes=notes)


def _row_of(raw: str, text: TextOptions) -> Row | str:
    """The row that was kept as `raw`, or why there is none."""
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError):
        return UNREADABLE
    if isinstance(row, dict):
        return UNREADABLE if CUT in row or _was_cut(row) else row
    line = RawLine.of(row)
    if line is None:
        return UNREADABLE
    columns = text.columns or line.columns
    quote = line.quote if text.quote is None else "" if text.quote == NONE else text.quote
    escape = line.escape if text.escape is None else "" if text.escape == NONE else text.escape
    dialect = Dialect(text.delimiter or line.delimiter, len(columns), quote, escape)
    fields = line_fields(line.text, dialect)
    if fields is None:
        return "a quote is opened and not closed"
    if len(fields) != len(columns):
        return f"expected {len(columns)} fields, found {len(fields)}"
    if is_export_header(columns):
        fields = list(map(unguarded, fields))
    return dict(zip(columns, fields, strict=True))


def _was_cut(row: Row) -> bool:
    """Whether a release that did not say so has cut a value of `row`."""
    cut = MAX_RAW_VALUE // 6 + 1
    return any(
        isinstance(one, str) and len(one) == cut and one.endswith(CUT) for one in row.values()
    )


def open_rows(path: str | Path, options: ReadOptions, rows: int) -> tuple[RowSource, Layout | None]:
    if rows < 1:
        raise ValueError("chunk_rows must be at least 1")
    if options.format is not None and options.format not in LAYOUTS:
        known = ", ".join((*LAYOUTS, gorse_exports.FORMAT, *TRANSLATED))
        raise InputError("--format", options.format, f"expected one of: {known}")
    kind = file_kind(path)
    if kind == "delimited":
        return _open_delimited(path, options, rows)
    source: RowSource = (
        ParquetFile(path, rows)
        if kind == "parquet"
        else JsonLines(path, rows, options.text.encoding)
    )
    if options.format is None or not source.names:
        return source, None
    return source, choose_layout(options.format, source.names, None)


def _open_delimited(
    path: str | Path, options: ReadOptions, rows: int
) -> tuple[RowSource, Layout | None]:
    chosen: list[Layout] = []

    def headerless(fields: Sequence[str], delimiter: str) -> Sequence[str] | None:
        if options.format is None or options.text.columns:
            return None
        layout = choose_layout(options.format, fields, delimiter)
        chosen.append(layout)
        return None if set(layout.columns.mapped().values()) <= set(fields) else layout.header

    source = DelimitedFile(path, rows, options.text, headerless)
    return source, chosen[0] if chosen else None
