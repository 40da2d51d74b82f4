"""Export of record batches to a Parquet, CSV or JSON Lines file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from recsys.errors import InputError

Write = Callable[[pa.RecordBatch], int]
KINDS = (".parquet", ".csv", ".jsonl")


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
        with open(part, "wb") as file:
            opened: list[Any] = []

            def write(batch: pa.RecordBatch) -> int:
                if path.suffix == ".jsonl":
                    lines = (
                        orjson.dumps({k: v for k, v in row.items() if v is not None})
                        for row in batch.to_pylist()
                    )
                    file.writelines(line + b"\n" for line in lines)
                    return int(batch.num_rows)
                if not opened:
                    if path.suffix == ".parquet":
                        # Checksums let a reader tell a damaged page from wrong numbers.
                        opened.append(
                            pq.ParquetWriter(file, batch.schema, write_page_checksum=True)
                        )
                    else:
                        opened.append(pa_csv.CSVWriter(file, batch.schema))
                opened[0].write_table(pa.Table.from_batches([batch]))
                return int(batch.num_rows)

            yield write
            for writer in opened:
                writer.close()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
