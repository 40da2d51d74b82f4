"""A file of rows that are not events, such as items or users: opened by its kind, and each row taken or
rejected with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from recsys.errors import InputError
from recsys.ingest.arrow_columns import NOT_UTF8
from recsys.ingest.byte_stream import file_kind
from recsys.ingest.delimited import DelimitedFile
from recsys.ingest.dialects import TextOptions
from recsys.ingest.json_lines import JsonLines
from recsys.ingest.parquet import ParquetFile
from recsys.ingest.raw_rows import RawChunk, Rejection, Row, RowSource, raw_text

T = TypeVar("T")


@dataclass(frozen=True)
class TakenRows(Generic[T]):
    """What became of the rows of a chunk, each in file order."""

    taken: list[T]
    positions: list[int]  # of those taken: 0-based data row in the file
    rejections: list[Rejection]


def open_rows(path: str | Path, text: TextOptions, rows: int) -> RowSource:
    """A CSV, TSV, JSON or Parquet file, to be read `rows` at once. Raises InputError."""
    kind = file_kind(path)
    if kind == "parquet":
        return ParquetFile(path, rows)
    if kind == "json":
        return JsonLines(path, rows, text.encoding)
    return DelimitedFile(path, rows, text)


def take_rows(raw: RawChunk, take: Callable[[Row], T], first: Sequence[str]) -> TakenRows[T]:
    """What `take` makes of each row; where it raises InputError the row is rejected.

    `first`: the columns that are kept of a rejected row before others.
    """
    taken: list[T] = []
    positions: list[int] = []
    rejections = list(raw.rejections)
    rows = raw.source_rows(np.arange(len(raw.positions)))
    not_utf8 = {
        int(row): name
        for name, (mask, problem) in raw.unusable.items()
        if problem == NOT_UTF8
        for row in np.flatnonzero(mask)
    }
    for number, (row, position) in enumerate(zip(rows, raw.positions.tolist(), strict=True)):
        try:
            if number in not_utf8:
                name = not_utf8[number]
                raise InputError(name, row[name], NOT_UTF8)
            taken.append(take(row))
            positions.append(position)
        except InputError as error:
            rejections.append(Rejection(position, str(error), raw_text(row, first)))
    rejections.sort(key=lambda rejection: rejection.position)
    return TakenRows(taken, positions, rejections)
