"""What a cell means is the same however the frame that holds it was written."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.events.fields import Event
from recsys.ingest.cells import (
    BLANKS,
    MISSING_WORDS,
    CellRules,
    clean,
    clean_text,
    whole_text,
    whole_texts,
)
from recsys.ingest.event_body import check_event
from recsys.ingest.event_files import ColumnMap, EventChunk, ReadOptions, read_events

NOW_US = 1_700_000_000_000_000
T = 1_592_955_233
OPTIONS = ReadOptions(columns=ColumnMap.parse("user=u,session=s,item=i,timestamp=t"), unit="s")

EDGES = st.text(BLANKS, max_size=2)
CELLS = st.one_of(
    st.sampled_from([*MISSING_WORDS, "Null", "N/A", "u1", "é", "1001.0", "0.0", "-7.00", "007.0"]),
    st.text("u.01-e+é ", max_size=6),
    st.integers(-(2**53), 2**53).map(lambda number: f"{number}.0"),
).flatmap(lambda cell: st.tuples(EDGES, EDGES).map(lambda edges: edges[0] + cell + edges[1]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(CELLS, st.none()), max_size=6))
def test_a_column_and_a_text_are_taken_alike(cells: list[str | None]) -> None:
    rules = CellRules()
    cleaned = clean(pa.array(cells, pa.string()), rules, "u", Counter(), ids=True)
    expected = [None if cell is None else clean_text(cell, rules) for cell in cells]
    assert [cell or None for cell in cleaned.to_pylist()] == expected
    present = [text for text in expected if text is not None]
    wholes = whole_texts(pa.array(present, pa.string())).to_pylist()
    assert wholes == [whole_text(text) for text in present]


def read(path: Path, options: ReadOptions = OPTIONS) -> EventChunk:
    chunks = list(read_events(path, options, NOW_US))
    for chunk in chunks:
        assert chunk.read == chunk.events.num_rows + len(chunk.rejections) + chunk.skipped
    return EventChunk(
        events=pa.concat_tables(chunk.events for chunk in chunks),
        rejections=[one for chunk in chunks for one in chunk.rejections],
        skipped=sum(chunk.skipped for chunk in chunks),
        read=sum(chunk.read for chunk in chunks),
        bytes_read=0,
        notes=sum((chunk.notes for chunk in chunks), Counter()),
    )


def owners(chunk: EventChunk) -> list[tuple[str | None, ...]]:
    rows = chunk.events.select(["user_id", "session_id", "item_id"]).to_pylist()
    return [tuple(row.values()) for row in rows]


IDS = st.one_of(
    st.none(),
    st.integers(0, 2**53),
    st.sampled_from(["u1", " u1", "NULL", r"\N", "N/A", "1001.0", "1.5", "\u200bu1", "Müller"]),
)
FLOATS = st.one_of(st.none(), st.integers(0, 10**6).map(float))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.one_of(FLOATS), IDS, IDS), min_size=1, max_size=8))
def test_one_frame_gives_the_same_ids_as_csv_json_parquet_and_rest(
    frame: list[tuple[float | None, object, object]],
) -> None:
    """As pandas writes it: a column of whole numbers with a gap in it is one of floats."""
    users = [row[0] for row in frame]
    sessions = [None if row[1] is None else str(row[1]) for row in frame]
    items = [None if row[2] is None else str(row[2]) for row in frame]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        table = pa.table(
            {
                "u": pa.array([math.nan if user is None else user for user in users]),
                "s": pa.array(sessions, pa.string()),
                "i": pa.array(items, pa.string()),
                "t": [T] * len(frame),
            }
        )
        path = Path(folder) / "a.parquet"
        pa.parquet.write_table(table, path)
        found["parquet"] = owners(read(path))
        path = Path(folder) / "a.csv"
        lines = [
            ",".join("" if cell is None else str(cell) for cell in (user, session, item, T))
            for user, session, item in zip(users, sessions, items, strict=True)
        ]
        path.write_text("\n".join(["u,s,i,t", *lines]))
        found["csv"] = owners(read(path))
        path = Path(folder) / "a.jsonl"
        rows = [
            {"u": user, "s": session, "i": item, "t": T}
            for user, session, item in zip(users, sessions, items, strict=True)
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
        found["json"] = owners(read(path))
    posted = [
        {"user_id": user and str(user), "session_id": session, "item_id": item}
        for user, session, item in zip(users, sessions, items, strict=True)
    ]
    found["rest"] = [(e.user_id, e.session_id, e.item_id) for e in map(accepted, posted) if e]
    # A zero is no missing user; REST is asked with texts.
    assert found["csv"] == found["json"] == found["parquet"]
    if 0.0 not in users:
        assert found["rest"] == found["csv"]


def accepted(raw: dict[str, object]) -> Event | None:
    try:
        return check_event(raw, NOW_US)
    except InputError:
        return None


def test_what_looks_like_a_missing_value_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"u,s,i,t\nNULL,s1,i1,{T}\nNULL,s2,i2,{T}\n\\N,s3,i2,{T}\nN/A,s4,i3,{T}\n")
    chunk = read(path)
    assert owners(chunk) == [
        (None, "s1", "i1"),
        (None, "s2", "i2"),
        (None, "s3", "i2"),
        ("N/A", "s4", "i3"),
    ]
    assert chunk.notes == {
        "read with \\ as the escape, as in a dump": 4,
        "user_id 'NULL' taken as missing": 2,
        "user_id '\\\\N' taken as missing": 1,
        "user_id 'N/A' looks like a missing value and was kept; --null names such words": 1,
    }
    options = ReadOptions(columns=OPTIONS.columns, unit="s", cells=CellRules.parse("N/A"))
    assert [row[0] for row in owners(read(path, options))] == ["NULL", "NULL", "\\N", None]


def test_an_event_type_that_looks_like_a_missing_value_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"u,i,t,k\nu1,i1,{T},N/A\nu1,i2,{T},view\nu1,i3,{T},NULL\n")
    columns = ColumnMap.parse("user=u,item=i,timestamp=t,event_type=k")
    chunk = read(path, ReadOptions(columns=columns, unit="s"))
    assert chunk.events["event_type"].to_pylist() == ["N/A", "view", "view"]
    assert chunk.notes == {
        "event_type 'N/A' looks like a missing value and was kept; --null names such words": 1,
        "event_type 'NULL' taken as missing": 1,
    }


def test_digits_that_are_lost_cost_an_id_and_are_told_of_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("u,s,i,t\nu1,,1.59296E+12,1592955233000\nu1,,12e4,1.59296E+12\n")
    chunk = read(path, ReadOptions(columns=OPTIONS.columns, unit="ms"))
    assert owners(chunk) == [("u1", None, "12e4")]
    assert chunk.rejections[0].reason == (
        "item_id = '1.59296E+12': a number that has lost its digits"
    )
    assert chunk.notes == {"timestamp in scientific notation, whose last digits are lost": 1}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_blanks_are_trimmed_as_in_the_header(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.csv":
        path.write_text(f"t, u, i,s\n {T}, u1, i1,\n{T + 1},\u00a0u1 ,i2\u3000,\n", "utf-8-sig")
    else:
        rows = [
            {"t": T, "s": "", "u": " u1", "i": "i1 "},
            {"t": T + 1, "u": "u1\ufeff", "i": "\u3000i2"},
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
    assert owners(read(path)) == [("u1", None, "i1"), ("u1", None, "i2")]
