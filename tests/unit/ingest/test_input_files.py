"""Patterns, standard input, pipes and archives stand for files."""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.ingest.event_files import ColumnMap, ReadOptions, read_events
from recsys.ingest.input_files import local_file, local_files

OPTIONS = ReadOptions(columns=ColumnMap.parse("user=u,item=i,timestamp=t"), unit="s")
ROWS = "u,i,t\nu1,{},1592955233\n"


def items(*names: str | Path) -> list[str]:
    with local_files([str(name) for name in names]) as paths:
        chunks = [
            one for path in paths for one in read_events(path, OPTIONS, 1_700_000_000_000_000)
        ]
        return [item for chunk in chunks for item in chunk.events["item_id"].to_pylist()]


def archive(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(name, text)
    return path


def test_patterns_are_matched_in_order(tmp_path: Path) -> None:
    for day in ("2", "1", "[3]"):
        (tmp_path / f"day{day}.csv").write_text(ROWS.format(f"i{day}"))
    assert items(tmp_path / "day?.csv") == ["i1", "i2"]
    assert items(tmp_path / "day[3].csv") == ["i[3]"]  # a name that exists is no pattern
    assert items(tmp_path / "day2.csv", tmp_path / "day1.csv") == ["i2", "i1"]
    with pytest.raises(InputError, match="no file matches"):
        items(tmp_path / "week*.csv")
    with pytest.raises(InputError, match="no such file"):
        items(tmp_path / "none.csv")
    with pytest.raises(InputError, match="directory"):
        items(tmp_path)
    with (
        pytest.raises(InputError, match="is 2 files; expected one"),
        local_file(tmp_path / "day?.csv"),
    ):
        pass


def test_standard_input_and_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.TextIOWrapper(io.BytesIO(ROWS.format("é").encode("utf-16")))
    monkeypatch.setattr(sys, "stdin", text)
    assert items("-") == ["é"]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(ROWS.format("i1"),))
    writer.start()
    assert items(pipe) == ["i1"]
    writer.join()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(InputError, match="the file is empty"):
        items("-")


def test_several_streams_and_archives_of_one_name_stay_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, writers = [], []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        pipe = tmp_path / str(number) / "pipe"
        os.mkfifo(pipe)
        rows = ROWS.format(f"p{number}")
        writers.append(threading.Thread(target=pipe.write_text, args=(rows,)))
        zipped = archive(tmp_path / str(number) / "a.zip", {"x.csv": ROWS.format(f"z{number}")})
        names += [pipe, zipped]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(zipped.read_bytes())))
    for writer in writers:
        writer.start()
    assert items(*names, "-") == ["p0", "z0", "p1", "z1", "z1"]
    for writer in writers:
        writer.join()


def test_a_stream_without_an_end_fills_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            return len(buffer)

    free = iter([2**31, 2**31, 2**30])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
    monkeypatch.setattr(
        "recsys.ingest.input_files.shutil.disk_usage",
        lambda _: shutil._ntuple_diskusage(2**40, 0, next(free)),  # type: ignore[attr-defined]
    )
    with pytest.raises(InputError, match="than the disk of temporary files has room for"):
        items("-")
    assert next(free, None) is None


def test_members_of_an_archive_are_files(tmp_path: Path) -> None:
    members = {"a/x.csv": ROWS.format("i1"), "b/x.csv": ROWS.format("i2"), "a/": ""}
    members |= {"__MACOSX/a/._x.csv": "fork", ".hidden": "x", "../up.csv": ROWS.format("i3")}
    path = archive(tmp_path / "a.zip", members)
    assert items(path) == ["i1", "i2", "i3"]
    assert not (tmp_path.parent / "up.csv").exists()
    path.rename(tmp_path / "log.csv")  # told by its first bytes
    assert items(tmp_path / "log.csv") == ["i1", "i2", "i3"]
    with pytest.raises(InputError, match="holds no file"):
        items(archive(tmp_path / "none.zip", {".hidden": "x"}))


def test_an_archive_is_bounded_and_may_be_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "a.zip", {"x.csv": "u,i,t\n" + "u,i,1592955233\n" * 500_000})
    monkeypatch.setattr("recsys.ingest.byte_stream.BOMB_BYTES", 2**20)
    with pytest.raises(InputError, match="inflates to more than 200 times its size"):
        items(path)
    monkeypatch.setattr("recsys.ingest.input_files.MAX_MEMBERS", 2)
    with pytest.raises(InputError, match="more than 2 files"):
        items(archive(tmp_path / "b.zip", dict.fromkeys("abc", ROWS)))
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        items(path)
