"""Files and rows that are damaged, cut short or no events: told, counted, and no harm to the others."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from recsys.errors import InputError
from recsys.ingest.event_files import (
    ColumnMap,
    ReadOptions,
    read_events,
    read_rejected,
)
from tests.unit.ingest.conftest import (
    HEADER,
    MAP,
    NOW_US,
    SECONDS,
    WRITERS,
    T,
    csv,
    items,
    read,
    reasons,
)


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


@pytest.mark.parametrize("in_array", [False, True])
def test_an_object_with_a_key_twice_is_no_event(tmp_path: Path, in_array: bool) -> None:
    """Of two values readers take the first or the last, so it says nothing."""
    good = (
        f'{{"user": "a:b", "item": "x", "ts": {T}, "more": {{"a": ":", "b": ["c:", {{"d": 1}}]}}}}'
    )
    lines = [
        good,
        good.replace('"item"', '"user": "b", "item"'),
        good.replace('"d": 1', '"d": 1, "d" :2'),
        good.replace('"item"', '"us\\u0065r" : 7, "item"'),
        good.replace('"a:b"', '"\\":\\"a\\": 1"'),
    ]
    path = tmp_path / ("a.json" if in_array else "a.jsonl")
    path.write_text("[" + ",\n".join(lines) + "]" if in_array else "\n".join(lines))
    chunk = read(
        path, ReadOptions(columns=ColumnMap(user="user", item="item", timestamp="ts"), unit="s")
    )
    assert items(chunk) == ["x", "x"] and chunk.read == 5
    told = {1: "'user'", 2: "'d'", 3: "'user'"}
    assert set(reasons(chunk)) == set(told)
    for position, key in told.items():
        assert reasons(chunk)[position].startswith(f"{key} stands twice in one object")
