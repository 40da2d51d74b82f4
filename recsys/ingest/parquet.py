"""Parquet files, read in batches of the columns that are needed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from recsys.events.array_types import BoolArray, Int64Array
from recsys.ingest.arrow_columns import NOT_UTF8, as_readable, cell_value
from recsys.ingest.byte_stream import check_inflation, file_size, unreadable
from recsys.ingest.json_lines import chunk_of, members
from recsys.ingest.json_paths import ByPaths, TakesApart, lists_of
from recsys.ingest.parquet_pages import Leaf, extent, leaves_of
from recsys.ingest.raw_rows import CUT, MAX_RAW_LENGTH, RawChunk, Rejection, Row, raw_text

BATCH_BYTES = 32 * 2**20
NESTED_ROWS = 2_000
_VALUE_BYTES = 128  # of a value of Python's, and its place in its row
_BUFFER_BYTES = 2**20
_ERRORS = (OSError, ValueError, pa.ArrowException)  # ValueError: a column's name is not UTF-8


class ParquetFile:
    """A Parquet file; `names` are its top-level columns."""

    nested = True

    def __init__(self, path: str | Path, rows: int, take: TakesApart | None = None) -> None:
        """`take` makes rows of those of the file."""
        self.path, self._rows, self._take = Path(path), rows, take
        self._size = file_size(path)
        try:
            file = self._open()
            columns = [file.schema.column(number) for number in range(len(file.schema))]
            self._leaves = [
                Leaf(
                    path=one.path,
                    kind=one.physical_type,
                    length=one.length,
                    levels=(one.max_definition_level > 0) + (one.max_repetition_level > 0),
                )
                for one in columns
            ]
            self.names: list[str] = file.schema_arrow.names
            self._total = max(file.metadata.num_rows, 1)
        except _ERRORS as error:
            raise unreadable(path, error) from None

    def _open(self, texts: Sequence[str] = ()) -> pa.parquet.ParquetFile:
        """The file; `texts` are read without writing out again a text that comes again."""
        return pa.parquet.ParquetFile(
            str(self.path),
            read_dictionary=list(texts),
            buffer_size=_BUFFER_BYTES,  # else a whole column of a row group is read at once
            pre_buffer=False,
            page_checksum_verification=True,
        )

    def chunks(self, needed: Collection[str]) -> Iterator[RawChunk]:
        """The file's rows, in chunks of some 32 MiB at most; only columns `needed` are read.

        A row that is larger than that is rejected. Raises InputError where the file is damaged, or
        comes to more than a log does.
        """
        paths = [name for name in needed if name not in self.names]
        take: TakesApart | None = self._take
        if take is None and paths:
            take = ByPaths(list(needed), lists_of(paths))
        nested = take is not None
        heads = needed if take is None else take.columns(self.names)
        at = consumed = position = 0
        for batch, fits in self._batches(heads, nested):
            at += batch.num_rows
            before, consumed = consumed, min(self._size, self._size * at // self._total)
            bytes_read = consumed - before
            for chunk in self._chunks(batch, fits, take, position, needed):
                position += chunk.rows
                yield replace(chunk, bytes_read=bytes_read)
                bytes_read = 0

    def _chunks(
        self,
        batch: pa.RecordBatch,
        fits: bool,
        take: TakesApart | None,
        position: int,
        needed: Collection[str],
    ) -> Iterator[RawChunk]:
        if not fits:
            yield self._oversized(batch, position, needed)
        elif take is not None:  # by way of Python's values, as a column is a path into another
            try:
                rows = batch.to_pylist()
            except _ERRORS as error:
                raise unreadable(self.path, error) from None
            yield from members(rows, needed, take, position)
        else:
            positions = np.arange(position, position + batch.num_rows, dtype=np.int64)
            yield self._chunk(batch, positions, needed)

    def _oversized(self, batch: pa.RecordBatch, position: int, needed: Collection[str]) -> RawChunk:
        """One row that is too large to be taken apart."""
        small = [name for name in batch.schema.names if _size(batch.column(name)) < MAX_RAW_LENGTH]
        raw = raw_text({**batch.select(small).to_pylist()[0], CUT: True})
        reason = f"the row is longer than {BATCH_BYTES:,} bytes"
        return chunk_of([], np.empty(0, np.int64), [Rejection(position, reason, raw)], needed, 0)

    def _batches(
        self, needed: Collection[str], nested: bool
    ) -> Iterator[tuple[pa.RecordBatch, bool]]:
        """Batches of some 32 MiB at most, texts written out, and whether they are: single rows may
        not fit.
        """
        leaves = leaves_of(self._leaves, needed)
        each = _VALUE_BYTES if nested else 0
        inflated = 0
        try:
            found = extent(self.path, leaves)
            check_inflation(self.path, self._size, found.total)
            rows = max(1, min(self._rows, BATCH_BYTES // found.row))
            held: list[pa.RecordBatch] = []
            held_bytes = 0
            for batch in self._open(found.texts).iter_batches(
                batch_size=min(rows, NESTED_ROWS) if nested else rows,
                columns=[name for name in self.names if name in needed],
                use_threads=False,
            ):
                size = sum(_size(column) for column in batch.columns)
                inflated, held_bytes = inflated + size, held_bytes + size
                check_inflation(self.path, self._size, inflated)
                held.append(batch)
                if held_bytes >= BATCH_BYTES or len(held) * rows >= min(self._rows, NESTED_ROWS):
                    yield from _pieces(_joined(held), each)
                    held, held_bytes = [], 0
            if held:
                yield from _pieces(_joined(held), each)
        except _ERRORS as error:
            raise unreadable(self.path, error) from None

    def _chunk(
        self,
        batch: pa.RecordBatch,
        positions: Int64Array,
        needed: Collection[str],
    ) -> RawChunk:
        columns: dict[str, pa.Array] = {}
        unusable: dict[str, tuple[BoolArray, str]] = {}
        for name in needed:
            columns[name], bad = as_readable(batch.column(batch.schema.names.index(name)))
            if bad is not None:
                unusable[name] = (bad, NOT_UTF8)

        def source_rows(numbers: Int64Array) -> list[Row]:
            try:
                picked = [_values(column.take(pa.array(numbers))) for column in columns.values()]
            except _ERRORS as error:  # text within a list or struct that is not UTF-8
                raise unreadable(self.path, error) from None
            rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*picked, strict=True)]
            for bad, _ in unusable.values():  # whose bytes are escaped, so not what they were
                for row, number in zip(rows, numbers, strict=True):
                    row |= {CUT: True} if bad[number] else {}
            return rows

        return RawChunk(
            columns=columns,
            positions=positions,
            rejections=[],
            bytes_read=0,
            source_rows=source_rows,
            unusable=unusable,
        )


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches as one, with one dictionary a column."""
    if len(batches) == 1:
        return batches[0]
    return pa.concat_batches(pa.Table.from_batches(batches).unify_dictionaries().to_batches())


def _pieces(batch: pa.RecordBatch, each: int) -> Iterator[tuple[pa.RecordBatch, bool]]:
    """`batch` in parts of BATCH_BYTES at most, and whether each is: a single row may not be.

    `each`: what a value takes beside its own bytes.
    """
    size = sum(_size(column, each) for column in batch.columns)
    if size <= BATCH_BYTES or batch.num_rows <= 1:
        yield batch, size <= BATCH_BYTES
        return
    rows = -(-batch.num_rows // min(-(-size // BATCH_BYTES) + 1, batch.num_rows))
    for first in range(0, batch.num_rows, rows):
        yield from _pieces(batch.slice(first, rows), each)


def _size(column: pa.Array, each: int = 0) -> int:
    """Bytes of `column` once its texts are written out, and `each` for every value."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    if pa.types.is_dictionary(kind):
        words = column.dictionary
        try:
            lengths = pc.binary_length(words)
        except pa.ArrowException:  # no texts
            lengths = pa.array(np.full(len(words), -(-words.nbytes // max(len(words), 1))))
        written = pc.sum(lengths.take(column.indices)).as_py() or 0
        return int(written) + (4 + each) * len(column)
    if pa.types.is_struct(kind):
        return sum(_size(member, each) for member in column.flatten())
    if pa.types.is_map(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _size(column.flatten(), each) + (4 + each) * len(column)
    return int(column.nbytes) + each * len(column)


def _values(column: pa.Array) -> list[object]:
    try:
        values: list[object] = column.to_pylist()
    except (ValueError, OverflowError):  # a time beyond what Python holds
        return [cell_value(cell) for cell in column]
    return values
