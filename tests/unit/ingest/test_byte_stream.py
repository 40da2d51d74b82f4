from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.ingest.byte_stream import TextStream, file_kind, file_size


def test_kinds_are_told_by_content_and_name(tmp_path: Path) -> None:
    def written(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    assert file_kind(written("a.csv", b"x,y\n")) == "delimited"
    assert file_kind(written("a.dat", b"1,2\n")) == "delimited"
    assert file_kind(written("a.log", b' {"a":1}\n')) == "json"
    assert file_kind(written("b.log.gz", gzip.compress(b'{"a":1}\n', mtime=0))) == "json"
    assert file_kind(written("a.JSONL", b'{"a":1}\n')) == "json"
    assert file_kind(written("parquet.csv", b"PAR1")) == "parquet"
    with pytest.raises(InputError, match="not a Parquet file"):
        file_kind(written("a.parquet", b"x,y\n"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv.gz", b"user,item\n", "is not gzip data"),
        ("a.csv.zst", b"user,item\n", "is not zstd data"),
        ("a.csv", b"PK\x03\x04rest", "zip archive"),
        ("a.csv.gz", gzip.compress(b"user,item\n" * 100, mtime=0)[:-6], "Truncated"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)

    def read() -> None:
        stream = TextStream(path)
        while stream.read(2**20):
            pass

    with pytest.raises(InputError, match=message) as caught:
        read()
    assert caught.value.field == "path"
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="directory"):
        file_size(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        file_size(tmp_path / "none")
    with pytest.raises(InputError):
        file_size("a\0b")


def test_lines_and_consumed_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf\n\r\nuser,item\r\n1,2\n", mtime=0))
    stream = TextStream(path)
    assert stream.take_line() == b"user,item"
    assert stream.read(100) == b"1,2\n"
    assert stream.read(100) == b""
    assert stream.bytes_consumed() == path.stat().st_size
    assert stream.bytes_consumed() == 0
