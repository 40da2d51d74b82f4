"""What is kept of a rejected row is enough to read it again, or says that it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.ingest.dialects import Dialect, TextOptions, line_fields
from recsys.ingest.event_files import (
    UNREADABLE,
    ColumnMap,
    EventChunk,
    ReadOptions,
    Rejection,
    read_events,
    read_rejected,
)
from recsys.ingest.raw_rows import CUT, MAX_RAW_LENGTH, RawLine, raw_text

NOW_US = 1_700_000_000_000_000
T = 1_592_955_233
MAP = ColumnMap.parse("user=u,item=i,timestamp=t")


def options(**text: object) -> ReadOptions:
    return ReadOptions(columns=MAP, unit="s", text=TextOptions(**text))  # type: ignore[arg-type]


def rejected(path: Path, **text: object) -> list[Rejection]:
    return [one for chunk in read_events(path, options(**text), NOW_US) for one in chunk.rejections]


def again(rows: list[Rejection], **text: object) -> EventChunk:
    for row in rows:
        json.loads(row.raw)
        assert len(row.raw) <= MAX_RAW_LENGTH
    chunk = read_rejected([row.raw for row in rows], options(**text), NOW_US)
    assert chunk.read == len(rows) == chunk.events.num_rows + len(chunk.rejections)
    return chunk


def items(chunk: EventChunk) -> list[str]:
    return chunk.events["item_id"].to_pylist()


@pytest.mark.parametrize(
    ("lines", "first", "then"),
    [
        # A quote that means nothing swallows the next line, unless it is told so.
        (['u1\ti1\t"a\tT', 'u2\ti2\t"b\tT', "u3\ti3\tx\tT"], {"quote": '"'}, {"quote": "none"}),
        # Two kinds of delimiter in one file.
        (["u1;i1;a;T", "u2;i2;b;T", "u3,i3,c,T"], {}, {"delimiter": ";"}),
        # A column that only some rows have.
        (["u1,i1,x,T,1", "u2,i2,x,T,2", "u3,i3,x,T"], {}, {"columns": tuple("uiqtv")}),
        (["u1,i1,'a,b',T", "u2,i2,'a,b',T", "u3,i3,x,T"], {}, {"quote": "'"}),
        (["u1,i1,a^,b,T", "u2,i2,a^,b,T", "u3,i3,x,T"], {}, {"escape": "^"}),
    ],
)
def test_lines_that_could_not_be_cut_are_cut_anew(
    tmp_path: Path, lines: list[str], first: dict[str, object], then: dict[str, object]
) -> None:
    stop = "\t" if "\t" in lines[0] else ","
    path = tmp_path / "a.csv"
    path.write_text("\n".join([stop.join("uiqt"), *lines]).replace("T", str(T)))
    rows = rejected(path, **first)
    assert len(rows) == 2
    assert items(again(rows, **first)) == []  # as they were read, they are no events
    assert again(rows, **first).notes[UNREADABLE] == 0
    assert items(again(rows, **then)) == ["i1", "i2"]


def test_what_is_escaped_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"u\ti\tt\nu1\ti\\\t1\t{T}\tmore\nu2\t\\N\t{T}\nu3\ti3\t{T}\n")
    rows = rejected(path)
    assert [row.position for row in rows] == [0, 1]
    assert items(again(rows, columns=tuple("uitv"))) == []  # a tab is no part of an id
    (first, _) = again(rows, columns=tuple("uitv")).rejections
    assert first.reason == "item_id = 'i\\t1': holds a control character"


def test_what_is_not_kept_whole_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = [
        f"u,{'x' * 5_000},q,{T}",  # kept in part: the id was cut
        f"u,i,{'q' * 5_000},soon",
        f"u,{'i' * 5_000}",  # a line, cut
        f"u,caf\xe9,q,{T}",  # not the bytes that there were
        f"u,caf\xe9,{T}",
        f"u,i,q,{T}",
    ]
    path.write_bytes("\n".join(["u,i,q,t", *lines]).encode("latin-1"))
    rows = rejected(path)
    assert len(rows) == 5
    chunk = again(rows)
    assert (items(chunk), chunk.notes[UNREADABLE]) == ([], 5)
    assert all(row.reason == UNREADABLE for row in chunk.rejections)
    path = tmp_path / "a.jsonl"
    path.write_text('{"u": "u", "i"\n[1]\n{"u": "u", "i": "", "t": 1592955233}\n')
    assert again(rejected(path)).notes[UNREADABLE] == 2


def test_parquet_text_that_is_not_utf8_is_not_taken_for_what_is_shown(tmp_path: Path) -> None:
    texts = pa.array([b"fine", b"caf\xe9"])
    claimed = pa.StringArray.from_buffers(2, texts.buffers()[1], texts.buffers()[2])
    table = pa.table({"u": claimed, "i": ["i"] * 2, "t": [T] * 2})
    pq.write_table(table, tmp_path / "a.parquet")
    assert again(rejected(tmp_path / "a.parquet")).notes[UNREADABLE] == 1


def test_rows_kept_by_earlier_releases(tmp_path: Path) -> None:
    whole = {"u": "u", "i": "i", "t": T}
    cut = {"u": "u", "i": "x" * 85 + "…", "t": T}
    raws = [json.dumps(whole), json.dumps(cut), json.dumps(f"u,i,{T}"), "no JSON"]
    chunk = read_rejected(raws, options(), NOW_US)
    assert (items(chunk), chunk.notes[UNREADABLE]) == (["i"], 3)


CELL = st.text("ab\\\",;\t' é=", max_size=5)


@given(st.lists(CELL, min_size=1, max_size=4), st.sampled_from([",", "\t", ";"]), st.booleans())
def test_fields_of_a_line_are_those_that_were_written(
    cells: list[str], stop: str, quoted: bool
) -> None:
    if quoted:
        line = stop.join('"' + cell.replace('"', '""') + '"' for cell in cells)
        dialect = Dialect(stop, len(cells), quote='"')
    else:
        marks = str.maketrans({"\\": "\\\\", stop: f"\\{stop}"})
        line = stop.join(cell.translate(marks) for cell in cells)
        dialect = Dialect(stop, len(cells), quote="", escape="\\")
    assert line_fields(line, dialect) == cells


@given(st.text(max_size=50), st.lists(st.text(max_size=5), max_size=3))
def test_a_line_is_kept_as_it_is(text: str, columns: list[str]) -> None:
    line = RawLine(text.encode(errors="replace").decode(), tuple(columns), ",", "", "\\")
    assert RawLine.of(json.loads(line.raw())) == line or CUT in json.loads(line.raw())[1]


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=900), max_size=9))
def test_a_row_is_kept_whole_or_marked(row: dict[str, str]) -> None:
    row = {key.encode(errors="replace").decode(): one[:800] for key, one in row.items()}
    row = {key: one.encode(errors="replace").decode() for key, one in row.items()}
    kept = json.loads(raw_text(row))
    assert len(raw_text(row)) <= MAX_RAW_LENGTH
    assert kept == row or kept[CUT] is True
