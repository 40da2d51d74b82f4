"""Parquet files, read in batches of the columns that are needed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from recsys.events.array_types import BoolArray, Int64Array
from recsys.ingest.arrow_columns import NOT_UTF8, as_readable, cell_value
from recsys.ingest.byte_stream import file_size, unreadable
from recsys.ingest.json_lines import chunk_of, members
from recsys.ingest.json_paths import head_of, lists_of
from recsys.ingest.raw_rows import RawChunk, Row

BATCH_BYTES = 32 * 2**20
NESTED_ROWS = 2_000
_BUFFER_BYTES = 2**20
_ERRORS = (OSError, ValueError, pa.ArrowException)  # ValueError: a column's name is not UTF-8


class ParquetFile:
    """A Parquet file; `names` are its top-level columns."""

    nested = True

    def __init__(self, path: str | Path, rows: int) -> None:
        self.path, self._rows = Path(path), rows
        self._size = file_size(path)
        try:
            self._file = pa.parquet.ParquetFile(
                str(path),
                buffer_size=_BUFFER_BYTES,  # else a whole column of a row group is read at once
                pre_buffer=False,
                page_checksum_verification=True,
            )
            self.names: list[str] = self._file.schema_arrow.names
        except _ERRORS as error:
            raise unreadable(path, error) from None

    def chunks(self, needed: Collection[str]) -> Iterator[RawChunk]:
        """The file's rows, in chunks of some 32 MiB at most; only columns `needed` are read."""
        paths = [name for name in needed if name not in self.names]
        lists = lists_of(paths)
        if lists or paths:
            yield from self._nested_chunks(list(needed), lists)
            return
        total = self._file.metadata.num_rows
        position = consumed = 0
        for batch in self._batches(needed):
            positions = np.arange(position, position + batch.num_rows, dtype=np.int64)
            position += batch.num_rows
            before, consumed = consumed, min(self._size, self._size * position // max(total, 1))
            yield self._chunk(batch, positions, needed, consumed - before)

    def _nested_chunks(self, needed: Sequence[str], lists: Sequence[str]) -> Iterator[RawChunk]:
        """The same by way of Python's values, where a column is a path into another."""
        total = self._file.metadata.num_rows
        at = consumed = position = 0
        heads = {name if name in self.names else head_of(name) for name in needed}
        for batch in self._batches(heads, NESTED_ROWS):
            try:
                rows = batch.to_pylist()
            except _ERRORS as error:
                raise unreadable(self.path, error) from None
            at += len(rows)
            before, consumed = consumed, min(self._size, self._size * at // max(total, 1))
            found, positions, rejections, left_out = members(rows, needed, lists, position)
            position += len(found) + len(rejections) + left_out
            chunk = chunk_of(found, positions, rejections, needed, consumed - before)
            yield replace(chunk, left_out=left_out)

    def _batches(self, needed: Collection[str], most: int = 2**31) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._file.iter_batches(
                batch_size=min(most, self._rows, self._rows_within(BATCH_BYTES)),
                columns=[name for name in self.names if name in needed],
                use_threads=False,
            )
        except _ERRORS as error:
            raise unreadable(self.path, error) from None

    def _rows_within(self, limit: int) -> int:
        """How many rows of the fullest row group fill `limit` bytes, uncompressed.

        Of all columns: to ask for a single column's size ends the process where the file is damaged
        (pyarrow 26, ColumnChunkMetaData).
        """
        groups = (
            self._file.metadata.row_group(number)
            for number in range(self._file.metadata.num_row_groups)
        )
        densest = max(
            (group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1
        )
        return max(1, int(limit / max(densest, 1)))

    def _chunk(
        self,
        batch: pa.RecordBatch,
        positions: Int64Array,
        needed: Collection[str],
        bytes_read: int,
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
            return [dict(zip(columns, cells, strict=True)) for cells in zip(*picked, strict=True)]

        return RawChunk(
            columns=columns,
            positions=positions,
            rejections=[],
            bytes_read=bytes_read,
            source_rows=source_rows,
            unusable=unusable,
        )


def _values(column: pa.Array) -> list[object]:
    try:
        values: list[object] = column.to_pylist()
    except (ValueError, OverflowError):  # a time beyond what Python holds
        return [cell_value(cell) for cell in column]
    return values
