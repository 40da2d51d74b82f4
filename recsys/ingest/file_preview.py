"""The first rows of a file: its columns with some of their values, and the events that come of them.

Bounded whatever the file's size: no more is read than the first rows take.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.events.times import rfc3339
from recsys.ingest.event_files import ReadOptions, open_rows, read_events
from recsys.ingest.raw_rows import plain

ROWS = 200  # of a file that are looked at
EVENTS = 10
REASONS = 5
SAMPLES = 3  # values of a column
MAX_COLUMNS = 200
MAX_VALUE = 60  # characters of a value


@dataclass(frozen=True)
class Column:
    """A column of a file, and its first values as texts."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class FileColumns:
    """The columns of a file, MAX_COLUMNS at most."""

    columns: tuple[Column, ...]
    nested: bool  # whether there may be paths into them, as in JSON

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.columns]

    @property
    def values(self) -> dict[str, tuple[str, ...]]:
        return {one.name: one.values for one in self.columns}


@dataclass(frozen=True)
class Preview:
    """What the first rows come to."""

    rows: int
    accepted: int
    events: tuple[dict[str, Any], ...]  # the first EVENTS of them
    rejected: tuple[str, ...]  # the first REASONS
    notes: dict[str, int]  # what was read otherwise than written -> rows


def columns_of(path: Path, options: ReadOptions) -> FileColumns:
    """The columns of a file. Raises InputError where it cannot be read."""
    bare = ReadOptions(format=options.format, text=options.text)
    try:
        source, _ = open_rows(path, bare, ROWS)
    except InputError as error:
        if error.field != "--format":
            raise
        source, _ = open_rows(path, replace(bare, format=None), ROWS)
    names = list(dict.fromkeys(source.names))[:MAX_COLUMNS]
    first = next(iter(source.chunks(names)), None)
    found = {}
    for name in names:
        cells = [] if first is None or name not in first.columns else first.columns[name]
        texts = (_text(cell.as_py()) for cell in cells[:ROWS])
        found[name] = tuple(dict.fromkeys(filter(None, texts)))[:SAMPLES]
    columns = tuple(Column(name, values) for name, values in found.items())
    return FileColumns(columns, source.nested)


def preview(
    path: Path, options: ReadOptions, now_us: int, known_types: Collection[str] = ()
) -> Preview:
    """The events that the first rows of a file come to. Raises InputError as the import of it would."""
    chunk = next(read_events(path, options, now_us, ROWS, known_types))
    rows = chunk.events.drop_columns(["position"]).slice(0, EVENTS).to_pylist()
    for row in rows:
        row["timestamp"] = rfc3339(row.pop("timestamp_us"))
    return Preview(
        rows=chunk.read,
        accepted=chunk.events.num_rows,
        events=tuple(rows),
        rejected=tuple(one.reason for one in chunk.rejections[:REASONS]),
        notes=dict(chunk.notes),
    )


def _text(value: object) -> str:
    text = "" if value is None else str(plain(value))
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"
