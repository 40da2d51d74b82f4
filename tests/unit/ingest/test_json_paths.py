"""Nested values and lists of JSON and Parquet: one event a member, every object counted."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from recsys.errors import InputError
from recsys.ingest.event_files import ColumnMap, EventChunk, ReadOptions, read_events
from recsys.ingest.json_elements import json_elements
from recsys.ingest.row_blocks import BadRow

NOW_US = 1_700_000_000_000_000
OTTO = [
    *(
        {"session": n, "events": [{"aid": 10 * n + m, "ts": 1659304800} for m in range(n)]}
        for n in range(4)
    ),
]
OTTO_MAP = "session=session,item=events[].aid,timestamp=events[].ts"
NESTED = [{"u": "u1", "p": {"id": f"i{n}"}, "t": "2023-05-01T12:00:00Z"} for n in range(3)]


def read(path: Path, columns: str, unit: str | None = None) -> list[EventChunk]:
    options = ReadOptions(columns=ColumnMap.parse(columns), unit=unit)
    chunks = list(read_events(path, options, NOW_US, 2))
    for chunk in chunks:
        assert chunk.read == chunk.events.num_rows + len(chunk.rejections) + chunk.skipped
    return chunks


def items(chunks: list[EventChunk]) -> list[str]:
    return [item for chunk in chunks for item in chunk.events["item_id"].to_pylist()]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == ".txt":
        path.write_text("\n".join(json.dumps(row, indent=1) for row in rows))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet", "a.txt"])
def test_each_member_of_a_list_is_an_event(tmp_path: Path, name: str) -> None:
    chunks = read(write(tmp_path / name, OTTO), OTTO_MAP, "s")
    assert items(chunks) == ["10", "20", "21", "30", "31", "32"]
    assert sum(chunk.skipped for chunk in chunks) == 1  # a session without events
    positions = [at for chunk in chunks for at in chunk.events["position"].to_pylist()]
    assert len(set(positions)) == 6
    assert max(positions) < sum(chunk.read for chunk in chunks)
    nested = read(write(tmp_path / f"nested-{name}", NESTED), "user=u,item=p.id,timestamp=t")
    assert items(nested) == ["i0", "i1", "i2"]


def test_what_is_no_list_is_told(tmp_path: Path) -> None:
    rows = [*OTTO, {"session": 9, "events": "x"}]
    chunks = read(write(tmp_path / "a.jsonl", rows), OTTO_MAP, "s")
    (rejection,) = [one for chunk in chunks for one in chunk.rejections]
    assert rejection.reason == "events[] = 'x': expected a list"
    with pytest.raises(InputError, match="is a list beside"):
        read(tmp_path / "a.jsonl", "session=session,item=events[].aid,timestamp=session[].ts", "s")


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_elements_of_an_array_however_it_is_cut(size: int) -> None:
    rows = [{"a": '}],"\\ ['}, {"b": [1, {"c": "é"}]}, 3, "x,y", {}]
    data = (" " + json.dumps(rows, indent=2) + "\n").encode()
    stream = iter([data[at : at + size] for at in range(0, len(data), size)])
    blocks = json_elements(lambda most: next(stream, b""), 2, True)
    found = [piece for block in blocks for piece in block]
    assert [json.loads(piece) for piece in found if isinstance(piece, bytes)] == rows
    cut = iter([data[: data.rindex(b"}")]])
    pieces = [p for b in json_elements(lambda most: next(cut, b""), 9, True) for p in b]
    assert isinstance(pieces[-1], BadRow)


def test_an_export_whose_first_rows_lack_a_field_loses_none_of_it(tmp_path: Path) -> None:
    row = {"user_id": " u", "item_id": "1.0", "event_type": "view", "timestamp_us": 5}
    rows = [row | {"event_id": f"e{n}"} for n in range(4)]
    rows[3]["properties"] = '{"a":1}'
    chunks = list(read_events(write(tmp_path / "a.jsonl", rows), ReadOptions(), NOW_US, 2))
    assert items(chunks) == ["1.0"] * 4  # what was stored is not judged anew
    assert [text for one in chunks for text in one.events["properties"].to_pylist()][3] == '{"a":1}'


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_a_path_through_a_list_without_its_sign_is_told(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, object]] = [{"u": "u1", "t": "2023-05-01T12:00:00Z", "p": [{"id": "i1"}]}]
    chunks = read(write(tmp_path / name, rows), "user=u,item=p.id,timestamp=t")
    assert not items(chunks)
    (found,) = [one.reason for chunk in chunks for one in chunk.rejections]
    assert found == 'item_id = \'[{"id": "i1"}]\': expected text or a whole number'
    assert items(read(tmp_path / name, "user=u,item=p[].id,timestamp=t")) == ["i1"]
