"""Every line of a delimited file is accounted for, whatever its quotes and escapes."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.ingest.dialects import TextOptions
from recsys.ingest.event_files import ColumnMap, EventChunk, ReadOptions, read_events

NOW_US = 1_700_000_000_000_000
T = 1_592_955_233
MAP = ColumnMap.parse("user=u,item=i,timestamp=t")


def read(path: Path, **text: object) -> EventChunk:
    options = ReadOptions(columns=MAP, unit="s", text=TextOptions(**text))  # type: ignore[arg-type]
    (chunk,) = read_events(path, options, NOW_US)
    assert chunk.read == chunk.events.num_rows + len(chunk.rejections)
    return chunk


def write(folder: Path, lines: list[str], name: str = "a.tsv", encoding: str = "utf-8") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n", encoding=encoding, newline="")
    return folder / name


def ids(chunk: EventChunk, name: str = "item_id") -> list[str]:
    return chunk.events[name].to_pylist()


def test_a_file_without_quoting_is_read_line_by_line(tmp_path: Path) -> None:
    lines = ["u\ti\tq\tt", f'u1\ti1\t"abc\t{T}', f'u2\ti2\t"def\t{T}', f"u3\ti3\tx\t{T}"]
    chunk = read(write(tmp_path, lines))
    assert ids(chunk) == ["i1", "i2", "i3"]
    assert chunk.notes == {"read without quoting: quotes are opened and not closed": 3}
    # Named as quoted, the two lines cannot be meant: both are told, neither is lost.
    forced = read(tmp_path / "a.tsv", quote='"')
    assert (ids(forced), [one.position for one in forced.rejections]) == (["i3"], [0, 1])


def test_one_stray_quote_in_a_quoted_file_costs_its_lines_only(tmp_path: Path) -> None:
    good = [f'"u{n}","i{n}","a, b",{T}' for n in range(6)]
    lines = ["u,i,q,t", *good[:3], f'u,x1,"abc,{T}', f'u,x2,y",{T}', *good[3:]]
    chunk = read(write(tmp_path, lines, "a.csv"))
    assert ids(chunk) == [f"i{n}" for n in range(6)]
    assert chunk.read == 8
    assert all("goes on over the end of a complete row" in one.reason for one in chunk.rejections)


def test_a_field_of_several_lines_stays_readable(tmp_path: Path) -> None:
    lines = ["u,i,q,t", f'u1,i1,"two, in\nthree\n\n""lines""",{T}', f"u2,i2,x,{T}"]
    chunk = read(write(tmp_path, lines, "a.csv"))
    assert (ids(chunk), chunk.read) == (["i1", "i2"], 2)


CELL = st.text('ab,\t"\n ', max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.lists(CELL, min_size=1, max_size=6), st.sampled_from(",\t"))
def test_what_a_csv_writer_quotes_is_read_as_its_reader_does(cells: list[str], stop: str) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=stop, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["u", "i", "q", "t"])
    writer.writerows((f"u{n}", f"i{n}", cell, T) for n, cell in enumerate(cells))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text(buffer.getvalue(), newline="")
        chunk = read(path)
    rows = list(csv.reader(io.StringIO(buffer.getvalue(), newline=""), delimiter=stop))[1:]
    assert ids(chunk) == [row[1] for row in rows]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text('ab" ', max_size=4), min_size=1, max_size=8), st.sampled_from(",\t"))
def test_no_line_of_single_rows_is_lost(cells: list[str], stop: str) -> None:
    """Each line is one row as it stands; whichever way it is read, each is counted once."""
    lines = [stop.join([f"u{n}", f"i{n}", cell, str(T)]) for n, cell in enumerate(cells)]
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), [stop.join("uiqt"), *lines], "a.txt")
        try:
            chunk = read(path)
        except InputError:  # none of the rows is one
            return
        plain = read(path, quote="none")
    assert chunk.read == len(cells)
    assert ids(plain) == [f"i{n}" for n in range(len(cells))]


@pytest.mark.parametrize(
    ("name", "body", "text", "expected"),
    [
        # Spark: quotes within quotes escaped by a backslash.
        ("a.csv", 'u1,i1,"a \\"b\\", c",T\nu2,"i\\"2",x,T\n', {}, ["i1", 'i"2']),
        # MySQL: tabs and line ends escaped as they are, backslashes doubled, NULL as \N.
        ("a.tsv", "u1\ti\\\\1\ta\\\tb\\\nc\tT\n\\N\ti2\tx\tT\n", {}, ["i\\1"]),
        # Hive and PostgreSQL: letters for what cannot be written; a quote is a character.
        ("a.tsv", 'u1\ti1\t"a\\tb\\nc\tT\nu2\ti2\t\\N\tT\n', {}, ["i1", "i2"]),
        ("a.txt", "u1\x01i1\x01\\N\x01T\n", {}, ["i1"]),
        ("a.csv", "u1,i1,a^,b,T\n", {"escape": "^", "quote": "none"}, ["i1"]),
        ("a.csv", "u1,'i,1','it''s',T\n", {"quote": "'"}, ["i,1"]),
        ("a.csv", "u1,i\\1,C:\\dir,T\n", {"escape": "none"}, ["i\\1"]),
        ("a.csv", "u1,i\\1,C:\\dir,T\n", {}, ["i\\1"]),
    ],
)
def test_dialects(
    tmp_path: Path, name: str, body: str, text: dict[str, str], expected: list[str]
) -> None:
    stop = next(stop for stop in "\t\x01," if stop in body)
    path = tmp_path / name
    path.write_text(stop.join("uiqt") + "\n" + body.replace("T\n", f"{T}\n"))
    assert ids(read(path, **text)) == expected


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1", "cp1252", "utf-32"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, ["u,i,t", f"Müller,é,{T}"], "a.csv", encoding)
    marked = encoding in ("utf-16", "utf-32")
    chunk = read(path) if marked else read(path, encoding=encoding)
    assert ids(chunk, "user_id") == ["Müller"]
    with pytest.raises(InputError, match="expected an encoding"):
        read(path, encoding="base64")


def test_bytes_that_are_none_of_the_encoding_cost_their_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"u,i,t\nM\x81,i1,{T}\nu2,i2,{T}\n".encode("latin-1"))
    chunk = read(path, encoding="cp1252")
    assert (ids(chunk), len(chunk.rejections)) == (["i2"], 1)


def test_columns_name_what_has_no_header(tmp_path: Path) -> None:
    path = write(tmp_path, [f"u1,i1,5.0,{T}", f"u2,i2,4.0,{T}"], "a.csv")
    assert ids(read(path, columns=("u", "i", "v", "t"))) == ["i1", "i2"]
    with pytest.raises(InputError, match="3 names; the first line has 4 fields"):
        read(path, columns=("u", "i", "t"))
    options = ReadOptions(columns=ColumnMap.parse(f"user=u1,item=i1,timestamp={T}"), unit="s")
    with pytest.raises(InputError, match="--columns"):
        read_events(path, options, NOW_US)


def test_a_file_that_inflates_beyond_reason_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"u,i,t\n" + b"u,i,1592955233\n" * 400_000))
    monkeypatch.setattr("recsys.ingest.byte_stream.BOMB_BYTES", 2**20)
    with pytest.raises(InputError, match="inflates to more than 200 times its size"):
        list(read_events(path, ReadOptions(columns=MAP, unit="s"), NOW_US))
