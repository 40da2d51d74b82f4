"""Names of files as people give them, patterns, standard input and archives -> files that can be read."""

from __future__ import annotations

import glob
import lzma
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import IO

from recsys.errors import InputError
from recsys.ingest.byte_stream import check_inflation, file_size, unreadable

MAX_MEMBERS = 10_000  # of an archive
KEPT_FREE = 2**30  # bytes of the disk of temporary files that are left to others
KEPT_SHARE = 10  # or, of a small disk, its tenth part
_LOOK_BYTES = 64 * 2**20  # between two looks at the disk
_ZIP = b"PK\x03\x04"
# RuntimeError: a member asks for a password.
_DAMAGED = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
)


@contextmanager
def local_files(names: Sequence[str]) -> Iterator[list[Path]]:
    """The files that `names` stand for, in order: patterns matched, `-` and pipes written to a
    temporary folder, members of zip archives unpacked there. Raises InputError, also where they come to
    more than the folder's disk has room for.
    """
    with TemporaryDirectory(prefix="recsys-") as folder:
        yield [one for name in names for one in _files_of(name, Path(folder))]


@contextmanager
def local_file(name: Path | None) -> Iterator[Path | None]:
    """The one file that `name` stands for; None where none is named."""
    with local_files([] if name is None else [str(name)]) as found:
        if len(found) > 1:
            raise InputError("path", str(name), f"is {len(found)} files; expected one")
        yield found[0] if found else None


def room(folder: Path) -> int:
    """Bytes that files may still take of a folder's disk; what is kept free for others is not theirs."""
    disk = shutil.disk_usage(folder)
    return disk.free - min(KEPT_FREE, disk.total // KEPT_SHARE)


def _files_of(name: str, folder: Path) -> list[Path]:
    path = Path(name)
    try:
        if name == "-":
            return _copied(sys.stdin.buffer, folder)
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe
            with path.open("rb") as stream:
                return _copied(stream, folder)
        if any(mark in name for mark in "*?[") and not path.exists():
            found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207
            if not found:
                raise InputError("path", name, "no file matches")
            return [one for each in found for one in _files_of(each, folder)]
        file_size(path)
        return _data_files(path, folder)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def _copied(stream: IO[bytes], folder: Path) -> list[Path]:
    """The files that a stream brings, in a folder of its own: there may be several streams."""
    target = Path(mkdtemp(dir=folder)) / "stdin"
    for _ in _written(stream, target):
        pass
    return _data_files(target, folder)


def _data_files(path: Path, folder: Path) -> list[Path]:
    with path.open("rb") as stream:
        is_zip = stream.read(4) == _ZIP
    return _unpacked(path, folder) if is_zip else [path]


def _written(stream: IO[bytes], target: Path) -> Iterator[int]:
    """Write a stream to a file; how many bytes, part by part. Raises InputError before the disk is full."""
    unlooked = 0
    with target.open("wb") as file:
        while data := stream.read(2**20):
            if unlooked >= _LOOK_BYTES:
                unlooked = 0
                if room(target.parent) < _LOOK_BYTES:
                    problem = "comes to more than the disk of temporary files has room for (TMPDIR)"
                    raise InputError("path", target.name, problem)
            unlooked += len(data)
            yield file.write(data)


def _unpacked(path: Path, folder: Path) -> list[Path]:
    """The data files of a zip archive."""
    size, inflated = path.stat().st_size, 0
    found: list[Path] = []
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = Path(member.filename).name
                if member.is_dir() or name.startswith(".") or "__MACOSX" in member.filename:
                    continue
                if len(found) >= MAX_MEMBERS:
                    problem = f"the archive holds more than {MAX_MEMBERS:,} files"
                    raise InputError("path", str(path), problem)
                target = Path(mkdtemp(dir=folder)) / name  # there may be several of one name
                with archive.open(member) as stream:
                    for written in _written(stream, target):
                        inflated += written
                        check_inflation(path, size, inflated)
                found.append(target)
    except _DAMAGED as error:
        raise unreadable(path, error) from None
    if not found:
        raise InputError("path", str(path), "the archive holds no file")
    return found
