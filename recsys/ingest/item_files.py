"""A file of item metadata -> chunks of checked items, and the rejected rows with their reasons."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import orjson

from recsys.errors import InputError
from recsys.ingest.arrow_columns import NUMBER
from recsys.ingest.byte_stream import file_size
from recsys.ingest.cells import CellRules, clean_text, whole_text
from recsys.ingest.dialects import TextOptions
from recsys.ingest.event_body import id_text
from recsys.ingest.item_body import Item, check_item
from recsys.ingest.json_paths import head_of, lists_of, paths_within, value_at
from recsys.ingest.layouts import listed, parse_map, require_columns
from recsys.ingest.raw_rows import RawChunk, Rejection, Row, RowSource, plain
from recsys.ingest.row_files import open_rows, take_rows

_NUMBER = re.compile(NUMBER, re.ASCII)
_CLEANED = CellRules(exact=True)
_AVAILABLE = {"true": True, "t": True, "yes": True, "y": True, "1": True, "in stock": True}
_AVAILABLE |= {
    "false": False,
    "f": False,
    "no": False,
    "n": False,
    "0": False,
    "out of stock": False,
}


@dataclass(frozen=True)
class ItemMap:
    """Source column names by what they hold; None where the file has no such column.

    >>> ItemMap.parse("item=imdb_id,categories=genres").categories
    'genres'
    """

    item: str | None = None
    title: str | None = None
    categories: str | None = None
    price: str | None = None
    image: str | None = None
    available: str | None = None

    @classmethod
    def parse(cls, text: str) -> ItemMap:
        """The map written as `item=a,title=b,…`. Raises InputError naming what is wrong with it."""
        return cls(**parse_map(text, [entry.name for entry in fields(cls)]))

    def mapped(self) -> dict[str, str]:
        """Meaning -> source column, of those that are mapped."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {meaning: column for meaning, column in values.items() if column is not None}


@dataclass(frozen=True)
class ItemOptions:
    """Options for reading a file of items.

    Without `columns`, those named item_id, title, categories, price, image and available are taken.
    """

    columns: ItemMap = field(default_factory=ItemMap)
    text: TextOptions = field(default_factory=TextOptions)  # how a text file is written
    cells: CellRules = field(default_factory=CellRules)


@dataclass(frozen=True)
class ItemChunk:
    """Some rows of a file; the counts are of this chunk alone."""

    items: list[Item]  # in file order; an item may come more than once
    rejections: list[Rejection]  # in file order
    read: int  # items + rejections
    bytes_read: int  # of the file as it lies on disk; the sum over all chunks is its size


def read_items(
    path: str | Path, options: ItemOptions, chunk_rows: int = 10_000
) -> Iterator[ItemChunk]:
    """The items of a CSV, TSV, JSON or Parquet file, all but the last plain, .gz or .zst.

    Cells are taken as those of events are. Categories are a list, JSON text of a list, or text split
    at `|`. A column that is not mapped becomes a property under its own name. Raises InputError at
    once where the file cannot be opened or a column that was named is not there; while reading, where
    the file is damaged.
    """
    source = open_rows(path, options.text, chunk_rows)
    columns = options.columns.mapped()
    if not columns and "item_id" in source.names:
        names = {"item": "item_id"} | {
            entry.name: entry.name for entry in fields(ItemMap) if entry.name != "item"
        }
        columns = {meaning: name for meaning, name in names.items() if name in source.names}
    if source.names:  # a JSON file whose first lines are all bad has none
        if "item" not in columns:
            raise InputError(
                "--map", None, f"say which column is the item; the file has {listed(source.names)}"
            )
        paths = paths_within(columns.values(), source)
        if lists_of(paths):
            problem = "is a path through a list; expected one item a row"
            raise InputError("--map", ", ".join(paths), problem)
        require_columns("--map", list(columns.values()), [*source.names, *paths])
    return _read(source, columns, options.cells, file_size(path))


def _read(
    source: RowSource, columns: Mapping[str, str], rules: CellRules, unread: int
) -> Iterator[ItemChunk]:
    empty = True
    for raw in source.chunks([*source.names, *paths_within(columns.values(), source)]):
        unread -= raw.bytes_read
        empty = False
        yield _chunk(raw, columns, rules)
    if unread or empty:
        yield ItemChunk([], [], 0, unread)


def _chunk(raw: RawChunk, columns: Mapping[str, str], rules: CellRules) -> ItemChunk:
    done = take_rows(raw, lambda row: item_of(row, columns, rules), list(columns.values()))
    read = len(done.taken) + len(done.rejections)
    return ItemChunk(done.taken, done.rejections, read, raw.bytes_read)


def item_of(
    row: Row,
    columns: Mapping[str, str],
    rules: CellRules = CellRules(),  # noqa: B008
) -> Item:
    """The item that a source row describes, `columns` telling what they mean; raises InputError.

    Given is what the row has a column for; an empty cell takes a value away.
    """
    values = {name: _cleaned(value, rules) for name, value in row.items()}
    for column in columns.values():
        if column not in values and head_of(column) in values:
            values[column] = _cleaned(value_at(row, column), rules)
    mapped = {meaning: values[column] for meaning, column in columns.items() if column in values}
    item_id = id_text(mapped.pop("item", None))
    if item_id is None:
        raise InputError("item_id", None, "is missing")
    raw = {meaning: _CELLS[meaning](value) for meaning, value in mapped.items()}
    mapped_columns = set(columns.values())
    properties = {name: value for name, value in values.items() if name not in mapped_columns}
    given = {"item_id": item_id, **raw} | ({"properties": properties} if properties else {})
    return check_item(given, _CLEANED)


def _cleaned(value: object, rules: CellRules) -> object:
    """`value` as JSON has it, a text as `rules` take it."""
    value = plain(value)
    return clean_text(value, rules) if isinstance(value, str) else value


def _optional_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) else value


def _categories(value: object) -> object:
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                value = orjson.loads(value)
            except orjson.JSONDecodeError:
                raise InputError("categories", value, "expected a JSON list or a|b|c") from None
        else:
            value = value.split("|")
    if isinstance(value, list):
        parts = [id_text(part) for part in value]
        cleaned = [clean_text(part) if isinstance(part, str) else part for part in parts]
        return [part for part in cleaned if part is not None]
    return value


def _number(value: object) -> object:
    if isinstance(value, str):
        if not _NUMBER.match(value):
            expected = "expected a number, with a point before its decimals (12.50)"
            raise InputError("price", value, expected)
        return float(value)
    return value


def _available(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    known = _AVAILABLE.get(whole_text(str(value)).lower())
    if known is None:
        raise InputError("available", value, "expected true or false")
    return known


_CELLS: dict[str, Callable[[object], object]] = {
    "title": _optional_text,
    "categories": _categories,
    "price": _number,
    "image": _optional_text,
    "available": _available,
}
