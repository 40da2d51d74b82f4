"""Export of record batches to a Parquet, CSV or JSON Lines file; texts that no spreadsheet calculates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from recsys.errors import InputError

Write = Callable[[pa.RecordBatch], int]
KINDS = (".parquet", ".csv", ".jsonl")
# What a spreadsheet takes for a formula, OWASP's list, behind any number of the guard's own sign.
_FORMULA = r"'*[=+\-@\t\r\n＝＋－＠]"
_GUARDED = re.compile(rf"'(?={_FORMULA})")
_UNGUARDED = re.compile(rf"(?={_FORMULA})")


def guarded(text: str) -> str:
    """`text` as a cell of CSV that a spreadsheet takes for text, whatever it begins with.

    `unguarded` is its inverse; a text that needs no guard is left as it is.

    >>> guarded("=1+1"), guarded("'=1"), guarded("'tis")
    ("'=1+1", "''=1", "'tis")
    """
    return _UNGUARDED.sub("'", text, count=1) if _UNGUARDED.match(text) else text


def unguarded(text: str) -> str:
    """The text that `guarded` gave.

    >>> unguarded("'=1+1"), unguarded("''=1"), unguarded("'tis")
    ('=1+1', "'=1", "'tis")
    """
    return text[1:] if _GUARDED.match(text) else text


def unguarded_column(texts: pa.Array) -> pa.Array:
    """`unguarded` of a column of texts."""
    return pc.replace_substring_regex(texts, rf"^'({_FORMULA})", r"\1")


def _guarded_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        pc.replace_substring_regex(column, f"^({_FORMULA})", r"'\1")
        if pa.types.is_string(column.type)
        else column
        for column in batch.columns
    ]
    return pa.record_batch(columns, names=batch.schema.names)


@contextmanager
def writing(path: Path) -> Iterator[Write]:
    """Open `path` for export: a function that appends a batch and returns its number of rows.

    The file appears under its name once everything is written.

    Raises InputError for another ending than .parquet, .csv or .jsonl. A block that raises leaves
    what was there before.
    """
    if path.suffix not in KINDS:
        raise InputError("path", str(path), f"expected a name that ends in {', '.join(KINDS)}")
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file, _batches_to(file, path.suffix) as write:
            yield write
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def streamed(kind: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[bytes]:
    """The bytes of a file of `kind`, one of KINDS, as batches become it; memory holds one of them.

    `schema` is the file's where there is no batch.
    """
    sink = _Sink()
    with _batches_to(sink, kind) as write:
        rows = 0
        for batch in batches:
            rows += write(batch)
            yield sink.taken()
        if not rows:
            write(pa.RecordBatch.from_pylist([], schema))
    yield sink.taken()


class _Sink:
    """A file that is written, and whose bytes are taken as they come."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Nothing waits."""

    def taken(self) -> bytes:
        found, self._parts = b"".join(self._parts), []
        return found


@contextmanager
def _batches_to(file: Any, kind: str) -> Iterator[Write]:
    """What appends a batch to an open file; the file's end is written where the block is done."""
    opened: list[Any] = []

    def write(batch: pa.RecordBatch) -> int:
        if kind == ".jsonl":
            for row in batch.to_pylist():
                # The first row has every name, so that a reader knows them.
                if file.tell():
                    row = {name: value for name, value in row.items() if value is not None}
                file.write(orjson.dumps(row) + b"\n")
            return int(batch.num_rows)
        if kind == ".csv":
            batch = _guarded_batch(batch)
        if not opened:
            if kind == ".parquet":
                # Checksums let a reader tell a damaged page from wrong numbers.
                opened.append(pq.ParquetWriter(file, batch.schema, write_page_checksum=True))
            else:
                opened.append(pa_csv.CSVWriter(file, batch.schema))
        opened[0].write_table(pa.Table.from_batches([batch]))
        return int(batch.num_rows)

    yield write
    for writer in opened:
        writer.close()
