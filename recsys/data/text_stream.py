"""A file on disk -> decompressed bytes -> blocks of whole rows; neither file nor row is held whole.

The first bytes of a file tell what it is; a name that claims otherwise is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.errors import InputError

BLOCK_BYTES = 4 * 2**20
MAX_ROW_BYTES = 2**20
SHOWN_BYTES = 2_048  # kept of a row that is too long

Kind = Literal["delimited", "json", "parquet"]
Int64Array = NDArray[np.int64]

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


class BadRow(NamedTuple):
    """A row that could not be told apart from what follows, or that is longer than allowed."""

    head: bytes
    reason: str


Piece = bytes | BadRow  # bytes: whole rows


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


def quoted_row_pattern(delimiter: str) -> re.Pattern[bytes]:
    """A row of delimited text whose quoted fields may hold line ends.

    As in the parser the rows are handed to, a quote opens a field only at its very start.
    """
    stop = re.escape(delimiter.encode())
    field = rb'(?:"(?:[^"]++|"")*+"|(?!"))[^%s\n]*+' % stop
    return re.compile(rb"%s(?:%s%s)*+(?:\n|\Z)" % (field, stop, field))


def row_blocks(
    read: Callable[[int], bytes], rows: int, quoted: re.Pattern[bytes] | None = None
) -> Iterator[list[Piece]]:
    """Blocks of at most `rows` whole rows and some 8 MiB, in order.

    A row longer than 1 MiB, and a line whose opening quote finds no closing one within that, become
    BadRows; reading resumes at the next line. `quoted` is None where a line end always ends a row.
    """
    pending = b""
    skipping = final = False
    while not final:
        data = read(BLOCK_BYTES)
        final = not data
        if skipping:
            cut = data.find(b"\n")
            if cut < 0:
                continue
            data, skipping = data[cut + 1 :], False
        data = pending + data
        ends, bad = _row_ends(data, quoted, final)
        complete = int(ends[-1]) if len(ends) else 0
        skipping = len(data) - complete > MAX_ROW_BYTES
        emit_all = final or skipping or len(data) >= 2 * BLOCK_BYTES
        count = len(ends) if emit_all else len(ends) - len(ends) % rows
        for first in range(0, count, rows):
            last = min(first + rows, count)
            pieces = _pieces(data, ends, first, last, bad)
            if skipping and last == count:
                pieces.append(_too_long(data[complete:]))
            yield pieces
        if skipping and count == 0:
            yield [_too_long(data)]
        pending = b"" if skipping else data[int(ends[count - 1]) if count else 0 :]


def _row_ends(
    data: bytes, quoted: re.Pattern[bytes] | None, final: bool
) -> tuple[Int64Array, dict[int, str]]:
    """Where each whole row of `data` ends, and why some of them are bad (row number -> reason)."""
    characters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(characters == 10) + 1
    if final and len(data) and (not len(ends) or ends[-1] < len(data)):
        ends = np.append(ends, len(data))
    unclosed: list[int] = []
    if quoted is not None and b'"' in data:
        ends, unclosed = _join_quoted(data, ends, characters, quoted, final)
    bad = dict.fromkeys(unclosed, "a quote is opened and not closed")
    lengths = np.diff(ends, prepend=0)
    for row in np.flatnonzero(lengths > MAX_ROW_BYTES).tolist():
        bad[row] = _too_long(b"").reason
    return ends, bad


def _join_quoted(
    data: bytes,
    ends: Int64Array,
    characters: NDArray[np.uint8],
    quoted: re.Pattern[bytes],
    final: bool,
) -> tuple[Int64Array, list[int]]:
    """`ends` without those within quotes, and the numbers of rows whose quote is never closed.

    Only a line with an odd number of quotes can leave one open, so only those are looked at.
    """
    quotes = np.flatnonzero(characters == 34)
    odd = np.flatnonzero(np.diff(np.searchsorted(quotes, ends), prepend=0) & 1)
    kept = np.ones(len(ends), np.bool_)
    unclosed: list[int] = []
    resume = 0
    for line in odd.tolist():
        start = int(ends[line - 1]) if line else 0
        if start < resume:
            continue
        match = quoted.match(data, start)
        end = match.end() if match else start
        if end > start + MAX_ROW_BYTES or not (final or data[end - 1 : end] == b"\n"):
            match = None
        if match is not None:
            kept[line : np.searchsorted(ends, end)] = False
            resume = end
        elif final or len(data) - start > MAX_ROW_BYTES:
            unclosed.append(line)
            resume = int(ends[line])
        else:
            kept[line:] = False
            break
    numbers = np.searchsorted(np.flatnonzero(kept), unclosed)
    return ends[kept], numbers.tolist()


def _pieces(
    data: bytes, ends: Int64Array, first: int, last: int, bad: dict[int, str]
) -> list[Piece]:
    """Rows first..last of `data`, the bad ones apart."""

    def start_of(row: int) -> int:
        return int(ends[row - 1]) if row else 0

    pieces: list[Piece] = []
    start = start_of(first)
    for row in sorted(row for row in bad if first <= row < last):
        if start_of(row) > start:
            pieces.append(data[start : start_of(row)])
        start = int(ends[row])
        pieces.append(BadRow(data[start_of(row) : start][:SHOWN_BYTES], bad[row]))
    if ends[last - 1] > start:
        pieces.append(data[start : int(ends[last - 1])])
    return pieces


def _too_long(row: bytes) -> BadRow:
    return BadRow(row[:SHOWN_BYTES], f"the row is longer than {MAX_ROW_BYTES:,} bytes")
