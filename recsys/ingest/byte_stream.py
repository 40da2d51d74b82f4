"""Reading a file, plain or compressed, as a stream of decompressed bytes.

The first bytes of a file tell what it is; a name that claims otherwise is refused.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Literal

import pyarrow as pa

from recsys.errors import InputError

BLOCK_BYTES = 4 * 2**20
PEEKED_BYTES = 2**20
# A file that inflates to more than both is none of a log: those reach 10 to 60 times their size.
BOMB_BYTES = 256 * 2**20
BOMB_RATIO = 200
MAX_ROW_BYTES = 2**20

Kind = Literal["delimited", "json", "parquet"]

_COMPRESSION = {".gz": ("gzip", b"\x1f\x8b"), ".zst": ("zstd", b"\x28\xb5\x2f\xfd")}
_PARQUET = b"PAR1"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
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


def check_inflation(path: str | Path, size: int, inflated: int) -> None:
    """Raise InputError where `path`, of `size` bytes, comes to more `inflated` bytes than a log does."""
    if inflated > max(BOMB_BYTES, BOMB_RATIO * size):
        problem = f"inflates to more than {BOMB_RATIO} times its size; expected a log"
        raise InputError("path", str(path), problem)


class TextStream:
    """The decompressed bytes of a file as UTF-8, from the beginning on.

    They are in `encoding`; None: in UTF-8, or UTF-16 or -32 where a byte order mark says so.

    Raises InputError where the file is absent, not what its name says, damaged or cut short.
    """

    def __init__(self, path: str | Path, encoding: str | None = None) -> None:
        self.path = Path(path)
        self.size = file_size(path)
        try:
            self._file = pa.OSFile(str(path), "rb")
            magic = bytes(self._file.read(8))
            self._file.seek(0)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(path, error) from None
        self._stream = self._open(magic)
        self._reported = self._inflated = 0
        self._decoder: codecs.IncrementalDecoder | None = None
        self._held = b""
        start = self.read(PEEKED_BYTES)
        self._decoder = _decoder(encoding, start)
        self._held = self._as_utf8(start)
        while self._decoder and start and not self._held:
            start = self.read(PEEKED_BYTES)
            self._held = start
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
        while True:
            try:
                data = bytes(self._stream.read(size))
            except (OSError, pa.ArrowException) as error:
                raise unreadable(self.path, error) from None
            self._inflated += len(data)
            check_inflation(self.path, self.size, self._inflated)
            text = self._as_utf8(data)
            if text or not data:
                return text

    def _as_utf8(self, data: bytes) -> bytes:
        """`data` in UTF-8; what cannot be read in its encoding as a byte that UTF-8 cannot hold."""
        if self._decoder is None:
            return data
        text = self._decoder.decode(data, final=not data)
        return text.encode("utf-8", "surrogateescape")

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


def _decoder(encoding: str | None, start: bytes) -> codecs.IncrementalDecoder | None:
    """The decoder of text that begins with `start`; None where it is UTF-8."""
    if encoding is None:
        encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
    try:
        info = codecs.lookup(encoding)
        info.incrementaldecoder("strict").decode(b"")  # a codec of bytes is no encoding of text
        "".encode(info.name)
    except (LookupError, TypeError, AttributeError, ValueError):
        problem = "expected an encoding such as utf-8, utf-16, latin-1 or cp1252"
        raise InputError("--encoding", encoding, problem) from None
    if info.name in ("utf-8", "utf-8-sig", "ascii"):
        return None
    return info.incrementaldecoder(_INVALID)


def _as_invalid(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udc80", error.end


_INVALID = "recsys.invalid"
codecs.register_error(_INVALID, _as_invalid)


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
        kind = "json" if TextStream(path).peek().lstrip().startswith((b"{", b"[")) else "delimited"
    return kind
