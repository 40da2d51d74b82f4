"""Parquet files, read in batches of the columns that are needed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from recsys.data.columns import NOT_UTF8, as_readable
from recsys.data.raw_rows import BoolArray, Int64Array, RawChunk, Row
from recsys.data.text_stream import file_size, unreadable

BATCH_BYTES = 32 * 2**20
_BUFFER_BYTES = 2**20


class ParquetFile:
    """A Parquet file; `names` are its top-level columns."""

    def __init__(self, path: str | Path, rows: int) -> None:
        self.path, self._rows = Path(path), rows
        self._size = file_size(path)
        try:
            # Without a buffer size a whole column of a row group would be read at once.
            self._file = pa.parquet.ParquetFile(
                str(path), buffer_size=_BUFFER_BYTES, pre_buffer=False
            )
        except (OSError, pa.ArrowException) as error:
            raise unreadable(path, error) from None
        self.names: list[str] = self._file.schema_arrow.names

    def chunks(self, needed: Collection[str]) -> Iterator[RawChunk]:
        """The file's rows, in chunks of some 32 MiB at most; only columns `needed` are read."""
        total = self._file.metadata.num_rows
        position = consumed = 0
        batches = self._file.iter_batches(
            batch_size=min(self._rows, self._rows_within(BATCH_BYTES, needed)),
            columns=[name for name in self.names if name in needed],
            use_threads=False,
        )
        while True:
            try:
                batch = next(batches, None)
            except (OSError, pa.ArrowException) as error:
                raise unreadable(self.path, error) from None
            if batch is None:
                return
            positions = np.arange(position, position + batch.num_rows, dtype=np.int64)
            position += batch.num_rows
            before, consumed = consumed, self._size * position // max(total, 1)
            yield _chunk(batch, positions, needed, consumed - before)

    def _rows_within(self, limit: int, needed: Collection[str]) -> int:
        """How many rows of the fullest row group fill `limit` bytes, uncompressed."""
        densest = 1.0
        for number in range(self._file.metadata.num_row_groups):
            group = self._file.metadata.row_group(number)
            columns = (group.column(index) for index in range(group.num_columns))
            size = sum(
                column.total_uncompressed_size
                for column in columns
                if column.path_in_schema.partition(".")[0] in needed
            )
            densest = max(densest, size / max(group.num_rows, 1))
        return max(1, int(limit / densest))


def _chunk(
    batch: pa.RecordBatch, positions: Int64Array, needed: Collection[str], bytes_read: int
) -> RawChunk:
    columns: dict[str, pa.Array] = {}
    unusable: dict[str, tuple[BoolArray, str]] = {}
    for name in needed:
        columns[name], bad = as_readable(batch.column(batch.schema.names.index(name)))
        if bad is not None:
            unusable[name] = (bad, NOT_UTF8)

    def source_rows(numbers: Int64Array) -> list[Row]:
        picked = {name: _values(column.take(pa.array(numbers))) for name, column in columns.items()}
        return [
            dict(zip(picked, values, strict=True)) for values in zip(*picked.values(), strict=True)
        ]

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
        return [None if cell is None else str(cell) for cell in column]
    return values
