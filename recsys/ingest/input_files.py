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
from tempfile import TemporaryDirectory
from typing import IO

from recsys.errors import InputError
from recsys.ingest.byte_stream import check_inflation, file_size, unreadable

MAX_MEMBERS = 10_000  # of an archive
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
    temporary folder, members of zip archives unpacked there. Raises InputError.
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


def _files_of(name: str, folder: Path) -> list[Path]:
    path = Path(name)
    try:
        if name == "-":
            return [_copied(sys.stdin.buffer, folder / "stdin")]
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe
            with path.open("rb") as stream:
                return [_copied(stream, folder / "stdin")]
        if any(mark in name for mark in "*?[") and not path.exists():
            found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207
            if not found:
                raise InputError("path", name, "no file matches")
            return [one for each in found for one in _files_of(each, folder)]
        file_size(path)
        with path.open("rb") as stream:
            is_zip = stream.read(4) == _ZIP
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    return _unpacked(path, folder) if is_zip else [path]


def _copied(stream: IO[bytes], target: Path) -> Path:
    with target.open("wb") as file:
        shutil.copyfileobj(stream, file, 2**20)
    return target


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
                target = folder / f"{path.name}-{len(found)}" / name
                target.parent.mkdir()
                with archive.open(member) as stream, target.open("wb") as file:
                    while data := stream.read(2**20):
                        inflated += file.write(data)
                        check_inflation(path, size, inflated)
                found.append(target)
    except _DAMAGED as error:
        raise unreadable(path, error) from None
    if not found:
        raise InputError("path", str(path), "the archive holds no file")
    return found
