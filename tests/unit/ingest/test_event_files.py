from __future__ import annotations

import gzip
import hashlib
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random

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
    EventChunk,
    ReadOptions,
    file_size,
    read_events,
    read_rejected,
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


# --- formats -------------------------------------------------------------------------------------

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


# --- bad rows ------------------------------------------------------------------------------------


def test_bad_rows_are_told_and_the_good_ones_kept(tmp_path: Path) -> None:
    body = "\n".join(
        [
            f"u,,good0,{T},,",
            f",,i,{T},,",
            f"u,,,{T},,",
            f"u,,{'x' * 257},{T},,",
            f"u,,a\tb,{T},,",
            "u,,i,,,",
            "u,,i,soon,,",
            f"u,,i,{T}000,,",
            "u,,i,-1,,",
            f"u,,i,{T},{'t' * 65},",
            f"u,,i,{T},,nan",
            f"u,,i,{T},,cheap",
            f"u,,i,{T}",
            f"u,,i,{T},,,,",
            "",
            f"u,,good14,{T},,",
        ]
    )
    chunk = read(csv(tmp_path, body), rows=4)
    assert items(chunk) == ["good0", "i", "i", "good14"]
    assert chunk.events["position"].to_pylist() == [0, 10, 11, 14]
    assert chunk.events["value"].to_pylist() == [None] * 4
    assert chunk.notes == {
        "value 'nan' taken as missing": 1,
        "value left out of an event: expected a finite number": 1,
    }
    found = reasons(chunk)
    assert found == {
        1: "user_id and session_id are both missing",
        2: "item_id is missing",
        3: f"item_id = '{'x' * 38}…{'x' * 39}': expected text of 1 to 256 characters",
        4: "item_id = 'a\\tb': holds a control character",
        5: "timestamp is missing",
        6: "timestamp 'soon': expected a number of s",
        7: "timestamp 1592955233000 as s is in the year 52448; is the unit ms?",
        8: "timestamp -1 as s is before 1970",
        9: f"event_type = '{'t' * 65}': expected text of 1 to 64 characters",
        12: f"expected 6 fields, found 4: 'u,,i,{T}'",
        13: f"expected 6 fields, found 8: 'u,,i,{T},,,,'",
    }
    assert chunk.read == 15
    raw = json.loads(chunk.rejections[1].raw)
    assert raw == {"user": "u", "session": "", "item": "", "ts": str(T), "type": "", "value": ""}
    assert list(raw)[:4] == ["user", "session", "item", "ts"]
    assert json.loads(chunk.rejections[9].raw)[0] == f"u,,i,{T}"


def test_bytes_that_are_not_utf8_cost_their_row(tmp_path: Path) -> None:
    row = f"u,,i,{T},,\n".encode()
    bad = f"u,,caf\xe9,{T},,\n".encode("latin-1")
    malformed = f"u,,caf\xe9,{T}\n".encode("latin-1")
    chunk = read(csv(tmp_path, row + bad + row + malformed + "u,,ü,1592955233,,".encode()))
    assert items(chunk) == ["i", "i", "ü"]
    assert reasons(chunk) == {
        1: "item_id = 'caf\\\\xe9': is not UTF-8 text",
        3: f"expected 6 fields, found 4: 'u,,caf\\\\xe9,{T}'",
    }
    assert json.loads(chunk.rejections[0].raw)["item"] == "caf\\xe9"

    path = tmp_path / "a.jsonl"
    good = json.dumps({"user": "u", "item": "i", "ts": T}).encode()
    path.write_bytes(good + b"\n" + good.replace(b'"i"', b'"\xe9"') + b"\n" + good)
    columns = ColumnMap(user="user", item="item", timestamp="ts")
    chunk = read(path, ReadOptions(columns=columns, unit="s"))
    assert (items(chunk), list(reasons(chunk))) == (["i", "i"], [1])


def test_bytes_not_utf8_in_a_column_nobody_asked_for_do_no_harm(tmp_path: Path) -> None:
    path = csv(tmp_path, f"u,i,{T},caf\xe9\n".encode("latin-1"), header="user,item,ts,title\n")
    columns = ColumnMap(user="user", item="item", timestamp="ts")
    assert items(read(path, ReadOptions(columns=columns, unit="s"))) == ["i"]


def test_lines_of_json_that_are_no_events(tmp_path: Path) -> None:
    lines = [
        {"user": "u", "item": "good", "ts": T},
        '{"user": "u", "item"',
        "[1]",
        '{"user": "u", "item": "\\ud800", "ts": 1}',
        {"user": "u", "item": [1], "ts": T},
        {"user": "u", "item": True, "ts": T},
        {"user": "u", "item": 1.5, "ts": T},
        {"user": "u", "item": 2**70, "ts": T},
        {"user": "u", "item": 8, "ts": T, "other": {"a": 1}},
        {"user": 9.0, "item": "good2", "ts": str(T)},
        {"user": "u", "item": "i", "ts": {"$date": T}},
        {"user": "u", "ts": T},
    ]
    path = tmp_path / "a.ndjson"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    columns = ColumnMap(user="user", item="item", timestamp="ts")
    chunk = read(path, ReadOptions(columns=columns, unit="s"))
    assert items(chunk) == ["good", "8", "good2"]
    assert chunk.events["user_id"].to_pylist() == ["u", "u", "9"]
    assert chunk.events["position"].to_pylist() == [0, 8, 9]
    found = reasons(chunk)
    assert list(found) == [1, 2, 3, 4, 5, 6, 7, 10, 11]
    assert found[2] == "expected a JSON object: '[1]'"
    assert found[6] == "item_id = '1.5': expected text or a whole number"
    assert found[11] == "item_id is missing"
    assert "timestamp" in found[10]


def test_whether_a_row_is_good_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    values: list[object] = ["a", 1, 2.0, 2.5, True, None, [1], 2**63, 1e300, "", "2.5"]
    columns = ColumnMap(user="user", item="item", timestamp="ts")
    options = ReadOptions(columns=columns, unit="s")
    path = tmp_path / "a.jsonl"

    def accepted(chosen: list[object]) -> list[str]:
        path.write_text("\n".join(json.dumps({"user": 1, "item": v, "ts": T}) for v in chosen))
        return items(read(path, options))

    assert accepted(values) == [item for value in values for item in accepted([value])]


def test_a_giant_row_is_rejected_and_counted(tmp_path: Path) -> None:
    row = f"u,,i,{T},,\n"
    giant = f"u,,{'x' * 9_000_000},{T},,\n"
    chunk = read(csv(tmp_path, row * 3 + giant + row))
    assert chunk.events["position"].to_pylist() == [0, 1, 2, 4]
    assert len(chunk.rejections[0].raw) < 4_096
    assert reasons(chunk)[3].startswith("the row is longer than 1,048,576 bytes")

    path = tmp_path / "a.jsonl"
    good = json.dumps({"user": "u", "item": "i", "ts": T})
    path.write_text("\n".join([good, good.replace('"i"', f'"{"x" * 9_000_000}"'), good]))
    columns = ColumnMap(user="user", item="item", timestamp="ts")
    chunk = read(path, ReadOptions(columns=columns, unit="s"))
    assert (chunk.events["position"].to_pylist(), list(reasons(chunk))) == ([0, 2], [1])


def test_raw_rows_stay_json_however_long(tmp_path: Path) -> None:
    wide = [f"c{number}" for number in range(2_000)]
    header = ",".join(["user", "item", "ts", *wide]) + "\n"
    body = ",".join(["", "x" * 5_000, "1", *wide]) + f"\nu,i,{T}" + ",v" * 2_000
    columns = ColumnMap(user="user", item="item", timestamp="ts")
    chunk = read(csv(tmp_path, body, header=header), ReadOptions(columns=columns, unit="s"))
    raw = json.loads(chunk.rejections[0].raw)
    assert len(chunk.rejections[0].raw) <= 4_096
    assert raw["item"].startswith("xxx")
    assert raw["ts"] == "1"


# --- what a file is ------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"\n \n"),
        ("a.jsonl", b"\n \n"),
        ("a.jsonl", b"user,item\n1,2\n"),
        ("a.parquet", b"PAR1 and no more"),
        ("a.csv", b"user,item,ts\r1,2,3\r"),
        ("a.csv.gz", gzip.compress(b"", mtime=0)),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(tmp_path / name)
    assert caught.value.field == "path"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_file_cut_short_is_noticed_at_its_end(tmp_path: Path, codec: str) -> None:
    body = HEADER + "".join(f"u{n},,i{n % 977},{T + n},,\n" for n in range(200_000))
    whole = pa.compress(body.encode(), codec=codec, asbytes=True)
    path = tmp_path / ("a.csv.gz" if codec == "gzip" else "a.csv.zst")
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InputError, match="cannot be read"):
        read(path, rows=1_000)


def test_a_damaged_parquet_page_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table(
        {"user": [f"u{n}" for n in range(50_000)], "item": ["i"] * 50_000, "ts": [T] * 50_000}
    )
    pa.parquet.write_table(table, path, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[20_000:22_000] = b"\xff" * 2_000
    path.write_bytes(data)
    columns = ColumnMap(user="user", item="item", timestamp="ts")
    with pytest.raises(InputError) as caught:
        read(path, ReadOptions(columns=columns, unit="s"))
    assert caught.value.field == "path"
    assert "\n" not in str(caught.value)


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


def test_a_row_rejected_may_be_read_again(tmp_path: Path) -> None:
    body = f"u,,a,{T},,\nu,,b,{T}000,,\n,,c,{T},,\nu,d\n"
    first = read(csv(tmp_path, body))
    raws = [rejection.raw for rejection in first.rejections]
    again = read_rejected(raws, ReadOptions(columns=MAP, unit="ms"), NOW_US)
    assert items(again) == ["b"]
    assert again.events["position"].to_pylist() == [0]
    assert [rejection.position for rejection in again.rejections] == [1, 2]
    unchanged = read_rejected(raws, SECONDS, NOW_US)
    assert (unchanged.events.num_rows, len(unchanged.rejections)) == (0, 3)


def test_text_in_parquet_that_only_claims_to_be_utf8(tmp_path: Path) -> None:
    texts = pa.array([b"fine", b"caf\xe9", b"\xff"])
    claimed = pa.StringArray.from_buffers(3, texts.buffers()[1], texts.buffers()[2])
    table = pa.table({"user": claimed, "item": ["i"] * 3, "ts": [T] * 3})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    columns = ColumnMap(user="user", item="item", timestamp="ts")
    chunk = read(tmp_path / "a.parquet", ReadOptions(columns=columns, unit="s"))
    assert chunk.events["user_id"].to_pylist() == ["fine"]
    assert reasons(chunk)[1] == "user_id = 'caf\\\\xe9': is not UTF-8 text"


def test_native_times_that_python_cannot_hold(tmp_path: Path) -> None:
    times = pa.array([T, 10**15, -(10**15)], pa.timestamp("s"))
    pa.parquet.write_table(
        pa.table({"user": ["u"] * 3, "item": ["i"] * 3, "ts": times}), tmp_path / "a.parquet"
    )
    columns = ColumnMap(user="user", item="item", timestamp="ts")
    chunk = read(tmp_path / "a.parquet", ReadOptions(columns=columns))
    assert items(chunk) == ["i"]
    assert "is in the year 31690" in reasons(chunk)[1]
    assert "is before 1970" in reasons(chunk)[2]


SCRAPS = [
    b'"',
    b"\n",
    b"\r",
    b",",
    b"\xff",
    b"\0",
    b'""',
    b"{",
    b"}",
    b"[",
    b"9" * 30,
    b"\xc3",
    b"e9",
]


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_is_read_or_refused_but_never_miscounted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    whole = path.read_bytes()
    random = Random(7)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(random.choice([1, 1, 3])):
            start = random.randrange(len(data))
            data[start : start + random.choice([0, 1, 9])] = random.choice(SCRAPS)
        path.write_bytes(data)
        try:
            chunks = list(read_events(path, SECONDS, NOW_US, random.choice([1, 100])))
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        positions: list[int] = []
        for chunk in chunks:
            assert chunk.read == chunk.events.num_rows + len(chunk.rejections)
            positions += chunk.events["position"].to_pylist()
            for rejection in chunk.rejections:
                positions.append(rejection.position)
                assert "\n" not in rejection.reason
                json.loads(rejection.raw)
        assert sorted(positions) == list(range(sum(chunk.read for chunk in chunks)))
        assert sum(chunk.bytes_read for chunk in chunks) == len(data)


# --- hashes and memory ---------------------------------------------------------------------------


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
