"""Files of events: every format and option gives the same events."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from recsys.errors import InputError
from recsys.events.fields import EVENT_SCHEMA
from recsys.events.identity import content_hashes
from recsys.ingest.dialects import TextOptions
from recsys.ingest.event_files import (
    ColumnMap,
    ReadOptions,
    read_events,
)
from tests.unit.ingest.conftest import (
    HEADER,
    MAP,
    NOW_US,
    PACKINGS,
    WRITERS,
    T,
    csv,
    items,
    read,
    reasons,
)


@pytest.mark.parametrize(
    ("name", "packing"),
    [
        (name, packing)
        for name in WRITERS
        for packing in PACKINGS
        if not (packing and "parquet" in name)
    ],
)
def test_every_format_gives_the_same_events_and_hashes(
    tmp_path: Path, name: str, packing: str
) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    if packing:
        plain, path = path, tmp_path / (name + packing)
        with pa.CompressedOutputStream(str(path), PACKINGS[packing]) as stream:
            stream.write(plain.read_bytes())
    chunk = read(path)
    assert chunk.rejections == []
    expected = [
        ("007", "a", "Ü/1", "view", T * 10**6, None, 0),
        (None, "b", "x, y", "view", (T + 1) * 10**6, 2.5, 1),
        ("12", None, '5" "', "cart", (T + 1) * 10**6, 0.0, 2),
        ("12", None, '5" "', "cart", (T + 1) * 10**6, 0.0, 3),
    ]
    names = ["user_id", "session_id", "item_id", "event_type", "timestamp_us", "value", "position"]
    assert [tuple(row.values()) for row in chunk.events.select(names).to_pylist()] == expected
    # The bits of 2.5 are 0x4004000000000000.
    texts = [
        "007|a|Ü/1|view|1592955233000000||||",
        "|b|x, y|view|1592955234000000||4612811918334230528||",
        '12||5" "|cart|1592955234000000||0||',
        '12||5" "|cart|1592955234000000||0||',
    ]
    joined = [text.replace("|", "\x1f").encode() for text in texts]
    expected_hashes = [hashlib.blake2b(text, digest_size=16).hexdigest() for text in joined]
    assert content_hashes(chunk.events) == expected_hashes
    assert expected_hashes[0] == "696d3f72539327d913980579f5984ff5"  # rows on disk rely on it


def test_parquet_columns_of_many_types(tmp_path: Path) -> None:
    moment = datetime.fromtimestamp(T, UTC)
    table = pa.table(
        {
            "user": pa.array([12345.0, float("nan"), 1.5]),
            "session": pa.array(["s", "t", "u"]).dictionary_encode(),
            "item": pa.array([Decimal("7.00"), Decimal("8.00"), Decimal("9.00")]),
            "ts": pa.array([moment] * 3, pa.timestamp("ns", "Europe/Paris")),
            "type": pa.nulls(3),
            "value": pa.array([1, None, 3], pa.int16()),
        }
    )
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    chunk = read(tmp_path / "a.parquet", ReadOptions(columns=MAP))
    assert chunk.events.select(
        ["user_id", "session_id", "item_id", "timestamp_us", "value"]
    ).to_pylist() == [
        {
            "user_id": "12345",
            "session_id": "s",
            "item_id": "7",
            "timestamp_us": T * 10**6,
            "value": 1.0,
        },
        {
            "user_id": None,
            "session_id": "t",
            "item_id": "8",
            "timestamp_us": T * 10**6,
            "value": None,
        },
    ]
    assert reasons(chunk) == {2: "user_id = 1.5: expected text or a whole number"}


@pytest.mark.parametrize(
    ("meaning", "column"),
    [("item", [[1]]), ("item", [True]), ("value", [{"a": 1}]), ("timestamp", [[1]])],
)
def test_parquet_columns_that_cannot_be_meant(
    tmp_path: Path, meaning: str, column: list[object]
) -> None:
    table = pa.table({"user": ["u"], "item": ["i"], "ts": [T], "odd": column})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    columns = ColumnMap(user="user", item="item", timestamp="ts")
    options = ReadOptions(columns=ColumnMap(**{meaning: "odd"}).over(columns), unit="s")
    with pytest.raises(InputError, match=f"{meaning}=odd"):
        read(tmp_path / "a.parquet", options)


def test_a_missing_column_is_named_beside_those_there_are(tmp_path: Path) -> None:
    path = csv(tmp_path, "", header="user,item,time\n")
    for options, field, value in (
        (ReadOptions(columns=ColumnMap(user="user", item="sku", timestamp="time")), "--map", "sku"),
        (
            ReadOptions(
                columns=ColumnMap(user="user", item="item", timestamp="time"), where=("price>1",)
            ),
            "--where",
            "price",
        ),
        (ReadOptions(columns=ColumnMap(user="user", item="item")), "--map", None),
        (ReadOptions(columns=ColumnMap(item="item", timestamp="time")), "--map", None),
        (ReadOptions(), "--map", None),
    ):
        with pytest.raises(InputError, match="user, item, time") as caught:
            read_events(path, options, NOW_US)
        assert (caught.value.field, caught.value.value) == (field, value)


def test_a_column_that_is_there_twice_cannot_be_mapped(tmp_path: Path) -> None:
    path = csv(tmp_path, f"u,i,j,{T}\n", header="user,item,item,ts\n")
    columns = ColumnMap(user="user", item="item", timestamp="ts")
    with pytest.raises(InputError, match="more than one column"):
        read_events(path, ReadOptions(columns=columns, unit="s"), NOW_US)


def test_a_file_with_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert read(csv(tmp_path, "")).read == 0
    table = pa.table({name: pa.array([], pa.string()) for name in HEADER.strip().split(",")})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").read == 0


def test_a_wrong_unit_stops_the_file_and_is_no_quarantine(tmp_path: Path) -> None:
    path = csv(tmp_path, f"u,,i,{T}000,,\n" * 10)
    with pytest.raises(InputError, match="is the unit ms"):
        read(path)
    with pytest.raises(InputError, match="looks like ms"):
        read(path, ReadOptions(columns=MAP))


def test_where_leaves_rows_out_and_counts_them(tmp_path: Path) -> None:
    body = f"u,,a,{T},view,5\nu,,b,{T},cart,-1\n,,c,{T},view,7\nu,,d,{T},view,\nu,,e,{T}\n"
    options = ReadOptions(columns=MAP, unit="s", where=("value>0", "type=view"))
    chunk = read(csv(tmp_path, body), options)
    assert items(chunk) == ["a"]
    assert (chunk.read, chunk.skipped, list(reasons(chunk))) == (5, 2, [2, 4])


def test_the_delimiter_may_be_given(tmp_path: Path) -> None:
    path = csv(tmp_path, f"u,1;i;{T}\n", header="user;item;ts\n", name="a.txt")
    columns = ColumnMap(user="user", item="item", timestamp="ts")
    chunk = read(path, ReadOptions(columns=columns, unit="s", text=TextOptions(delimiter=";")))
    assert chunk.events["user_id"].to_pylist() == ["u,1"]
    with pytest.raises(InputError, match="one character"):
        read(path, ReadOptions(columns=columns, unit="s", text=TextOptions(delimiter=";;")))


def test_event_ids_are_taken(tmp_path: Path) -> None:
    path = csv(tmp_path, f"u,i,{T},e1\nu,i,{T},\nu,i,{T},{'e' * 257}\n", header="user,item,ts,id\n")
    columns = ColumnMap(user="user", item="item", timestamp="ts", event_id="id")
    chunk = read(path, ReadOptions(columns=columns, unit="s", default_type="play"))
    assert chunk.events["event_id"].to_pylist() == ["e1", None]
    assert chunk.events["event_type"].to_pylist() == ["play", "play"]
    assert reasons(chunk)[2].startswith("event_id = ")


def test_hashes_tell_apart_what_differs_and_nothing_else() -> None:
    base = {
        "user_id": "u",
        "session_id": "s",
        "item_id": "i",
        "event_type": "view",
        "timestamp_us": 5,
        "event_id": None,
        "value": 1.0,
        "recommendation_id": None,
        "properties": None,
    }
    changes: list[dict[str, object]] = [
        {},
        {"user_id": "s", "session_id": "u"},
        {"user_id": "us", "session_id": None},
        {"user_id": None, "session_id": "us"},
        {"item_id": "i2"},
        {"event_type": "cart"},
        {"timestamp_us": 6},
        {"event_id": "e"},
        {"value": math.nextafter(1.0, 2.0)},
        {"value": None},
        {"value": 0.0},
        {"recommendation_id": "e"},
        {"properties": "{}"},
    ]
    table = pa.Table.from_pylist([base | change for change in changes], schema=EVENT_SCHEMA)
    hashes = content_hashes(table)
    assert len(set(hashes)) == len(changes)
    assert {len(text) for text in hashes} == {32}
    positioned = table.append_column("position", pa.array(range(len(changes))))
    assert content_hashes(positioned.slice(3)) == hashes[3:]
    negative = pa.Table.from_pylist([base | {"value": -0.0}], schema=EVENT_SCHEMA)
    assert content_hashes(negative) == [hashes[10]]
    assert content_hashes(EVENT_SCHEMA.empty_table()) == []


PEAK = """
import re, sys
from pathlib import Path
from recsys.ingest.event_files import ColumnMap, ReadOptions, read_events
options = ReadOptions(columns=ColumnMap(user="user", item="item", timestamp="ts"), unit="s")
rows = sum(chunk.read for chunk in read_events(sys.argv[1], options, 1_700_000_000_000_000, 50_000))
print(rows, re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.csv.zst", "a.parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    def peak_mib(rows: int) -> float:
        path = tmp_path / f"{rows}.{name}"
        column = pa.array(range(rows))
        texts = column.cast(pa.string())
        table = pa.table({"user": texts, "item": texts, "ts": pa.array([T] * rows)})
        if path.suffix == ".parquet":
            pa.parquet.write_table(table, path)
        else:
            with pa.CompressedOutputStream(str(path), "zstd") as stream:
                pa.csv.write_csv(table, stream)
        answer = subprocess.run(
            [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
        )
        count, kibibytes = answer.stdout.split()
        assert int(count) == rows
        return int(kibibytes) / 1024

    # Texts of a Parquet file that are all different are kept at some 20 bytes a row while it is read.
    assert peak_mib(3_000_000) - peak_mib(1_200_000) < (48 if name == "a.parquet" else 24)
