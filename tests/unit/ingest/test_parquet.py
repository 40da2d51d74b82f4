"""Memory is bounded by what a Parquet file comes to, not by what its footer says of itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.events.times import to_us
from recsys.ingest import parquet, parquet_pages
from recsys.ingest.event_files import ColumnMap, ReadOptions, read_events
from recsys.ingest.item_files import ItemMap, ItemOptions, read_items
from recsys.ingest.parquet_pages import DamagedError, Leaf, extent
from recsys.training.file_logs import read_frame

NOW_US = to_us(datetime(2025, 1, 2, tzinfo=UTC))
T = 1_592_955_233
OPTIONS = ReadOptions(columns=ColumnMap.parse("user=u,item=i,timestamp=t"), unit="s")
TEXTS = pa.dictionary(pa.int32(), pa.string())


def repeated(value: str, rows: int) -> pa.Array:
    """One text `rows` times, of which the file will hold one."""
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [value])


def write_log(path: Path, users: pa.Array, items: pa.Array | None = None, **how: object) -> Path:
    rows = len(users)
    columns = [users, repeated("i", rows) if items is None else items, pa.array([T] * rows)]
    pq.write_table(pa.table(columns, names=["u", "i", "t"]), path, compression="zstd", **how)
    return path


def many_rows(path: Path) -> Path:
    zeros = pa.array(np.zeros(4_000_000, np.int64))
    table = pa.table([zeros] * 3, names=["u", "i", "t"])
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(5):
            writer.write_table(table)
    return path


def one_long_list(path: Path) -> Path:
    members = pa.array(np.zeros(50_000_000, np.int8))
    items = pa.ListArray.from_arrays(pa.array([0, len(members)], pa.int32()), members)
    return write_log(path, pa.array(["u"]), items)


def shared_beginnings(path: Path) -> Path:
    users = [("x" * 50_000) + str(number) for number in range(7_000)]
    encodings = {"u": "DELTA_BYTE_ARRAY", "i": "PLAIN", "t": "PLAIN"}
    items = pa.array(["i"] * len(users))
    return write_log(path, pa.array(users), items, use_dictionary=False, column_encoding=encodings)


BOMBS: dict[str, Callable[[Path], Path]] = {
    "a text for many rows": lambda path: write_log(path, repeated("x" * 57_000, 100_000)),
    "pages of equal bytes": lambda path: write_log(
        path, pa.array(["x" * 1_000_000] * 300), use_dictionary=False
    ),
    "rows without bytes": many_rows,
    "a list without end": one_long_list,
    "texts that begin alike": shared_beginnings,
}
PEAK = """
import re, sys
from pathlib import Path
from recsys.errors import InputError
from recsys.ingest.event_files import ColumnMap, ReadOptions, read_events
columns = ColumnMap.parse(f"user=u,item={sys.argv[2]},timestamp=t")
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
before, said, rows = peak(), "", 0
try:
    for chunk in read_events(sys.argv[1], ReadOptions(columns=columns, unit="s"), 1_700_000_000_000_000):
        rows += chunk.read
except InputError as error:
    said = str(error)
print(peak() - before, rows, said)
"""


def read_apart(path: Path, item: str = "i") -> tuple[int, int, str]:
    """(MiB taken, rows read, the error) of reading `path` in a process of its own."""
    command = [sys.executable, "-c", PEAK, str(path), item]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    mib, rows, *said = answer.stdout.strip().split(" ", 2)
    return int(mib), int(rows), "".join(said)


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_comes_to_far_more_than_its_size_is_refused(tmp_path: Path, name: str) -> None:
    path = BOMBS[name](tmp_path / "a.parquet")
    assert path.stat().st_size < 2_000_000
    mib, _, said = read_apart(path, "i[]" if "list" in name else "i")
    assert "inflates to more than 200 times its size" in said
    assert mib < 400


def test_texts_written_out_stay_within_a_chunk(tmp_path: Path) -> None:
    path = write_log(tmp_path / "a.parquet", repeated("x" * 50_000, 5_000))  # 250 MB
    mib, rows, said = read_apart(path)
    assert (rows, said) == (5_000, "")
    assert mib < 250


def test_no_reader_of_files_takes_it(tmp_path: Path) -> None:
    path = BOMBS["a text for many rows"](tmp_path / "a.parquet")
    for read in (
        lambda: list(read_events(path, OPTIONS, NOW_US)),
        lambda: list(read_items(path, ItemOptions(ItemMap(item="u")))),
        lambda: read_frame([path], OPTIONS, NOW_US),
    ):
        with pytest.raises(InputError, match="inflates"):
            read()


def test_a_row_too_large_for_a_chunk_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH_BYTES", 4_096)
    users = pa.array(["a", "x" * 5_000, "b"])
    (*chunks,) = read_events(write_log(tmp_path / "a.parquet", users), OPTIONS, NOW_US)
    assert [one for chunk in chunks for one in chunk.events["user_id"].to_pylist()] == ["a", "b"]
    (rejection,) = [one for chunk in chunks for one in chunk.rejections]
    assert (rejection.position, rejection.reason) == (1, "the row is longer than 4,096 bytes")
    assert rejection.raw == '{"i":"i","t":1592955233,"…":true}'


def varint(number: int) -> bytes:
    """As Thrift writes it."""
    left, found = number << 1, b""
    while left >= 128:
        found, left = found + bytes([left & 127 | 128]), left >> 7
    return found + bytes([left])


def test_sizes_in_the_footer_are_not_believed(tmp_path: Path) -> None:
    users = pa.array(["x" * 1_000_000] * 300)
    path = write_log(tmp_path / "a.parquet", users, use_dictionary=False)
    group = pq.ParquetFile(path).metadata.row_group(0)
    data = path.read_bytes()
    for size in (group.total_byte_size, group.column(0).total_uncompressed_size):
        said = varint(size)
        assert said in data
        data = data.replace(said, b"\x80" * (len(said) - 1) + b"\x01")
    path.write_bytes(data)
    assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size < 2**30
    mib, _, said_of_it = read_apart(path)
    assert "inflates" in said_of_it
    assert mib < 400


@pytest.mark.parametrize(
    "how",
    [
        {"use_dictionary": False},
        {"use_dictionary": False, "column_encoding": {"u": "DELTA_BYTE_ARRAY", "i": "PLAIN"}},
        {"row_group_size": 77},
        {"data_page_version": "2.0"},
        {"dictionary_pagesize_limit": 64, "data_page_size": 256},
    ],
)
def test_every_encoding_gives_the_same_events(tmp_path: Path, how: dict[str, object]) -> None:
    users = pa.array([f"user-{number % 90}" for number in range(1_000)])
    items = pa.array([f"i{number * number % 97}" for number in range(1_000)])
    path = write_log(tmp_path / "a.parquet", users, items, **how)
    chunks = list(read_events(path, OPTIONS, NOW_US, 300))
    events = pa.concat_tables(chunk.events for chunk in chunks)
    assert events["user_id"].to_pylist() == users.to_pylist()
    assert events["item_id"].to_pylist() == items.to_pylist()
    assert sum(chunk.bytes_read for chunk in chunks) == path.stat().st_size


def test_the_extent_is_that_of_the_pages(tmp_path: Path) -> None:
    path = write_log(tmp_path / "a.parquet", pa.array(["abc", "de"]), use_dictionary=False)
    found = extent(path, {"t": Leaf("t", "INT64", 0, 1)})
    assert (found.total, found.texts) == (22, ())  # 2 times 8 bytes, and levels in 6
    path = write_log(tmp_path / "a.parquet", repeated("abc", 9))
    assert extent(path, {"u": Leaf("u", "BYTE_ARRAY", 0, 1)}).texts == ("u",)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_structure_are_told(data: bytes) -> None:
    reader = parquet_pages._Thrift(data)
    try:
        reader.struct()
    except (DamagedError, IndexError):
        return
    assert reader.at <= len(data)
