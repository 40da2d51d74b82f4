"""Reading a file, plain or compressed, as a stream of decompressed bytes.

The first bytes of a file tell what it is; a name that claims otherwise is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pyarrow as pa

from recsys.errors import InputError

BLOCK_BYTES = 4 * 2**20
MAX_ROW_BYTES = 2**20

Kind = Literal["delimited", "json", "parquet"]

_COMPRESSION = {".gz": ("gzip", b"\x1f\x8b"), ".zst": ("zstd", b"\x28\xb5\x2f\xfd")}
_PARQUET = b"PAR1"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_KINDS: dict[str, Kind] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "delimited",
    ".tsv": "delimited",
}


def file_size(path: str | Path) -> int:
    """The size of `path` in bytes. Raises InputError where it is not a readable, non-empty file."""
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError("path", str(path), "is a directory; expected a file")
        if not path.is_file():
            raise InputError("path", str(path), "no such file")
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise unreadable(path, error) from None
    if size == 0:
        raise InputError("path", str(path), "the file is empty")
    return size


def unreadable(path: str | Path, error: Exception) -> InputError:
    """`error`, met while reading `path`, as one line."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = " ".join(reason.split())
    return InputError("path", str(path), f"cannot be read: {line[:200]}")


class TextStream:
    """The decompressed bytes of a file, from the beginning on.

    Raises InputError where the file is absent, not what its name says, damaged or cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.size = file_size(path)
        try:
            self._file = pa.OSFile(str(path), "rb")
            magic = bytes(self._file.read(8))
            self._file.seek(0)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(path, error) from None
        self._stream = self._open(magic)
        self._reported = 0
        self._held = b""
        self._held = self.read(65_536)
        if self._held.startswith(b"\xef\xbb\xbf"):
            self._held = self._held[3:]

    def _open(self, magic: bytes) -> pa.NativeFile:
        suffix = self.path.suffix.lower()
        for name, (codec, start) in _COMPRESSION.items():
            if magic.startswith(start):
                return pa.CompressedInputStream(self._file, codec)
            if suffix == name:
                raise InputError("path", str(self.path), f"is named {name} but is not {codec} data")
        for start, what in _FOREIGN.items():
            if magic.startswith(start):
                raise InputError(
                    "path", str(self.path), f"is {what}; expected UTF-8 text, plain, .gz or .zst"
                )
        return self._file

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, or a little more after `put_back`; nothing at the end."""
        if self._held:
            held, self._held = self._held, b""
            return held
        try:
            return bytes(self._stream.read(size))
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self.path, error) from None

    def peek(self) -> bytes:
        """What the next `read` will give first."""
        if not self._held:
            self._held = self.read(BLOCK_BYTES)
        return self._held

    def take_line(self) -> bytes:
        """The next line that is not blank, without its end; empty at the end of the file."""
        while True:
            line = self._line()
            if line.strip() or not self.peek():
                return line

    def _line(self) -> bytes:
        data = self.read(BLOCK_BYTES)
        while b"\n" not in data:
            more = self.read(BLOCK_BYTES)
            if not more:
                break
            if len(data) > MAX_ROW_BYTES:
                raise InputError(
                    "path", str(self.path), f"the first line is longer than {MAX_ROW_BYTES:,} bytes"
                )
            data += more
        line, _, self._held = data.partition(b"\n")
        return line.removesuffix(b"\r")

    def bytes_consumed(self) -> int:
        """Bytes of the file (compressed, where it is) read since the last call."""
        before, self._reported = self._reported, min(self._file.tell(), self.size)
        return self._reported - before


def file_kind(path: str | Path) -> Kind:
    """What `path` holds, by its first bytes and its name. Raises InputError."""
    path = Path(path)
    file_size(path)
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == _PARQUET
    except OSError as error:
        raise unreadable(path, error) from None
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSION:
        suffixes.pop()
    kind = _KINDS.get(suffixes[-1]) if suffixes else None
    if is_parquet:
        return "parquet"
    if kind == "parquet":
        raise InputError("path", str(path), "is not a Parquet file")
    if kind is None:
        kind = "json" if TextStream(path).peek().lstrip().startswith(b"{") else "delimited"
    return kind
