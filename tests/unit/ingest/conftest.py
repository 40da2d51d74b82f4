"""Files of events as the tests write and read them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from recsys.events.fields import EVENT_SCHEMA
from recsys.ingest.event_files import (
    ColumnMap,
    EventChunk,
    ReadOptions,
    file_size,
    read_events,
)

NOW_US = 1_700_000_000_000_000
T = 1_592_955_233
MAP = ColumnMap.parse(
    "user=user,session=session,item=item,timestamp=ts,event_type=type,value=value"
)
SECONDS = ReadOptions(columns=MAP, unit="s")
HEADER = "user,session,item,ts,type,value\n"


def read(path: Path, options: ReadOptions = SECONDS, rows: int = 100_000) -> EventChunk:
    """All chunks as one, with the account checked on the way."""
    chunks = list(read_events(path, options, NOW_US, rows))
    for chunk in chunks:
        assert chunk.read == chunk.events.num_rows + len(chunk.rejections) + chunk.skipped <= rows
        assert chunk.events.schema.names == [*EVENT_SCHEMA.names, "position"]
    assert sum(chunk.bytes_read for chunk in chunks) == file_size(path)
    return EventChunk(
        events=pa.concat_tables(chunk.events for chunk in chunks),
        rejections=[rejection for chunk in chunks for rejection in chunk.rejections],
        skipped=sum(chunk.skipped for chunk in chunks),
        read=sum(chunk.read for chunk in chunks),
        bytes_read=file_size(path),
        notes=sum((chunk.notes for chunk in chunks), Counter()),
    )


def csv(tmp_path: Path, body: str | bytes, name: str = "a.csv", header: str = HEADER) -> Path:
    path = tmp_path / name
    path.write_bytes(header.encode() + (body.encode() if isinstance(body, str) else body))
    return path


def items(chunk: EventChunk) -> list[str]:
    return chunk.events["item_id"].to_pylist()


def reasons(chunk: EventChunk) -> dict[int, str]:
    return {rejection.position: rejection.reason for rejection in chunk.rejections}


ROWS: list[dict[str, object]] = [
    {"user": "007", "session": "a", "item": "Ü/1", "ts": T, "type": "view", "value": None},
    {"user": None, "session": "b", "item": "x, y", "ts": T + 1, "type": None, "value": 2.5},
    {"user": "12", "session": None, "item": '5" "', "ts": T + 1, "type": "cart", "value": -0.0},
    {"user": "12", "session": None, "item": '5" "', "ts": T + 1, "type": "cart", "value": 0.0},
]


def as_csv(path: Path, delimiter: str = ",") -> None:
    def cell(value: object) -> str:
        text = "" if value is None else str(value)
        return '"' + text.replace('"', '""') + '"' if set(text) & set('"\n' + delimiter) else text

    lines = [delimiter.join(ROWS[0]), *(delimiter.join(map(cell, row.values())) for row in ROWS)]
    path.write_text("\r\n".join(lines), encoding="utf-8-sig")


def as_jsonl(path: Path) -> None:
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS))


def as_parquet(path: Path) -> None:
    pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.csv": as_csv,
    "a.tsv": lambda path: as_csv(path, "\t"),
    "semicolon.csv": lambda path: as_csv(path, ";"),
    "pipe.txt": lambda path: as_csv(path, "|"),
    "a.jsonl": as_jsonl,
    "a.parquet": as_parquet,
}
PACKINGS = {"": None, ".gz": "gzip", ".zst": "zstd"}
