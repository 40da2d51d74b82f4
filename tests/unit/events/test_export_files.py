"""What is exported comes back as it was, in every format and whatever the texts are."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.events.export_files import KINDS, guarded, unguarded, unguarded_column, writing
from recsys.events.fields import EVENT_COLUMNS, EVENT_SCHEMA
from recsys.ingest.event_files import ColumnMap, ReadOptions, read_events

NOW_US = 1_700_000_000_000_000
Row = dict[str, object]

# All that an id may hold, and above all what a spreadsheet, a quote or an escape makes of it.
IDS = st.one_of(
    st.text("=+-@'\"\\,;\tN ＝", min_size=1, max_size=6),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=5),
    st.sampled_from(["=1+1", "'=1", "''@a", "'tis", "NULL", r"\N", "nan", " a ", "1001.0", '"']),
).filter(lambda text: "\t" not in text)
ROWS = st.fixed_dictionaries(
    {
        "user_id": st.one_of(st.none(), IDS),
        "session_id": IDS,
        "item_id": IDS,
        "event_type": IDS,
        "timestamp_us": st.integers(0, NOW_US),
        "event_id": st.one_of(st.none(), IDS),
        "value": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
        "recommendation_id": st.one_of(st.none(), IDS),
        "properties": st.one_of(st.none(), st.sampled_from(['{"a":"=1"}', '{"b":"\\\\,\\""}'])),
    }
)


def export(path: Path, rows: list[Row]) -> Path:
    with writing(path) as write:
        for batch in pa.Table.from_pylist(rows, schema=EVENT_SCHEMA).to_batches(max_chunksize=2):
            write(batch)
    return path


def read_back(path: Path, options: ReadOptions = ReadOptions()) -> list[Row]:  # noqa: B008
    chunks = list(read_events(path, options, NOW_US))
    assert not [one for chunk in chunks for one in chunk.rejections]
    return [
        {name: row[name] for name in EVENT_COLUMNS}
        for chunk in chunks
        for row in chunk.events.to_pylist()
    ]


@settings(max_examples=120, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=5), st.sampled_from(KINDS))
def test_an_export_read_again_gives_the_same_events(rows: list[Row], kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert read_back(export(Path(folder) / f"a{kind}", rows)) == rows


@given(st.text())
@example("'=x")
def test_the_guard_is_undone_exactly(text: str) -> None:
    assert unguarded(guarded(text)) == text
    assert guarded(text)[:1] not in tuple("=+-@\t\r\n＝＋－＠")
    try:
        column = pa.array([guarded(text)], pa.string())
    except UnicodeEncodeError:  # half of a pair
        return
    assert unguarded_column(column).to_pylist() == [text]


def test_no_cell_of_an_export_is_a_formula(tmp_path: Path) -> None:
    row: Row = dict.fromkeys(EVENT_COLUMNS) | {"timestamp_us": NOW_US, "value": -1.5}
    row |= {"user_id": "=cmd()", "item_id": "@a", "event_type": "+v"}
    path = export(tmp_path / "a.csv", [row])
    with path.open(newline="") as file:
        (read,) = csv.DictReader(file)
    assert (read["user_id"], read["item_id"], read["event_type"]) == ("'=cmd()", "'@a", "'+v")
    assert read["value"] == "-1.5"
    # However its columns are named to the import, it is an export.
    columns = ColumnMap.parse("user=user_id,item=item_id,timestamp=timestamp_us")
    assert read_back(path, ReadOptions(columns=columns, unit="us"))[0]["user_id"] == "=cmd()"


def test_a_file_of_somebody_else_keeps_its_apostrophes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user_id,item_id,timestamp\n'=u,i,1600000000\n")
    assert read_back(path, ReadOptions(unit="s"))[0]["user_id"] == "'=u"


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), writing(path):
        raise ZeroDivisionError
    assert (path.read_text(), list(tmp_path.iterdir())) == ("before", [path])
    with pytest.raises(InputError, match="expected a name"), writing(tmp_path / "a.txt"):
        pass
