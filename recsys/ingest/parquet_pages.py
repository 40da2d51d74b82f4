"""What a Parquet file comes to once its pages are decoded, told by the pages themselves.

A few bytes may stand for many rows (runs, dictionaries, shared prefixes), and the sizes in the footer may
be wrong, so the header of each page is read: how large the page is once decompressed, and how many values
it holds. The format is Apache Parquet's (parquet.thrift), in Thrift's compact protocol.

Deviation: of both, no more is read than is needed here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

Fields = dict[int, Any]  # of a struct, by their numbers

MAX_HEADER_BYTES = 2**20  # of one page: it may hold the smallest and the largest value
_FIRST_HEADER_BYTES = 4_096
_MAX_DEPTH = 32
_DELTA_BYTE_ARRAY = 7  # an Encoding: a value may begin as the one before it does
_DICTIONARY_PAGE = 2  # a PageType
_DICTIONARY_ENTRY = 16  # bytes in memory, beside those of its text
_WIDTHS = {
    "BOOLEAN": 1,
    "INT32": 4,
    "INT64": 8,
    "INT96": 12,
    "FLOAT": 4,
    "DOUBLE": 8,
    "BYTE_ARRAY": 4,  # its place among the texts, whose own size is told once they are read
}

# Field numbers of parquet.thrift.
_ROW_GROUPS = 4
_GROUP_COLUMNS, _GROUP_ROWS = 1, 3
_METADATA = 3
_PATH, _VALUES, _COMPRESSED = 3, 5, 7
_DATA_AT, _DICTIONARY_AT = 9, 11
_PAGE_TYPE, _PAGE_SIZE, _PAGE_BYTES = 1, 2, 3
_DATA_V1, _DICTIONARY, _DATA_V2 = 5, 7, 8
_ENCODING = {_DATA_V1: 2, _DATA_V2: 4}


class DamagedError(ValueError):
    """Bytes that are not what the format says."""


@dataclass(frozen=True)
class Leaf:
    """A column of plain values."""

    path: str  # its names, by dots
    kind: str  # the physical type
    length: int  # bytes of a value of fixed length
    levels: int  # 0 to 2: whether values may be missing, and whether they are of lists

    @property
    def width(self) -> int:
        """Bytes of a value in memory, with its levels."""
        return _WIDTHS.get(self.kind, max(self.length, 1)) + 2 * self.levels


@dataclass(frozen=True)
class Extent:
    """What some columns of a file come to in memory."""

    total: int  # bytes
    row: int  # bytes that a row may take where rows are densest
    texts: tuple[str, ...]  # paths of columns whose texts can be read each once


@dataclass(frozen=True)
class _Chunk:
    """What a column chunk comes to in memory."""

    total: int  # bytes
    dictionary: int  # bytes of its dictionary
    value: int  # bytes of a value where they are densest
    longest: int  # bytes of its largest page, which no value is longer than
    delta: bool  # values may share their beginnings
    each_row: int  # values of a row


def extent(path: Path, leaves: Mapping[str, Leaf]) -> Extent:
    """The extent of the columns `leaves`, by path. Raises DamagedError, OSError."""
    groups: list[list[tuple[Leaf, _Chunk]]] = []
    with path.open("rb") as file:
        size = path.stat().st_size
        for group in _row_groups(file, size):
            chunks = []
            for column in _list(group, _GROUP_COLUMNS):
                metadata = _struct(column, _METADATA)
                names = _list(metadata, _PATH)
                if not all(isinstance(name, bytes) for name in names):
                    raise DamagedError("expected names")
                leaf = leaves.get(b".".join(names).decode(errors="replace"))
                if leaf is not None:
                    rows = _number(group, _GROUP_ROWS)
                    chunks.append((leaf, _chunk_of(file, size, metadata, leaf, rows)))
            groups.append(chunks)
    found = [one for chunks in groups for one in chunks]
    # pyarrow 26 reads no text once that shares its beginning with another.
    delta = {leaf.path for leaf, chunk in found if chunk.delta}
    texts = {leaf.path for leaf, chunk in found if leaf.kind == "BYTE_ARRAY" and chunk.dictionary}
    row = 1
    for chunks in groups:
        values = [
            chunk.each_row * (chunk.longest if leaf.path in delta else chunk.value)
            for leaf, chunk in chunks
        ]
        row = max(row, sum(values))
    return Extent(sum(chunk.total for _, chunk in found), row, tuple(sorted(texts - delta)))


def _chunk_of(file: BinaryIO, size: int, metadata: Fields, leaf: Leaf, rows: int) -> _Chunk:
    total = dictionary = longest = densest = 0
    delta = False
    for header in _page_headers(file, size, metadata):
        page = max(_number(header, _PAGE_SIZE), 0)
        longest = max(longest, page)
        if _number(header, _PAGE_TYPE) == _DICTIONARY_PAGE:
            entries = _number(_struct(header, _DICTIONARY), 1)
            dictionary = max(page, entries * _DICTIONARY_ENTRY, 1)
            total += dictionary
            continue
        data = next((name for name in _ENCODING if name in header), None)
        described = {} if data is None else _struct(header, data)
        values = max(_number(described, 1), 0)
        delta |= data is not None and _number(described, _ENCODING[data]) == _DELTA_BYTE_ARRAY
        total += max(page, values * leaf.width)
        densest = max(densest, leaf.width, -(-page // max(values, 1)))
    # A list's values belong to fewer rows than there are values.
    each_row = max(1, _number(metadata, _VALUES) // max(rows, 1))
    return _Chunk(total, dictionary, densest, longest, delta, each_row)


def _page_headers(file: BinaryIO, size: int, metadata: Fields) -> Iterator[Fields]:
    if _number(metadata, _VALUES) == 0:
        return
    places = (_number(metadata, _DATA_AT), _number(metadata, _DICTIONARY_AT))
    start = min((place for place in places if place > 0), default=0)
    end = min(start + _number(metadata, _COMPRESSED), size)
    while start < end:
        header, length = _header_at(file, start)
        yield header
        page = _number(header, _PAGE_BYTES)
        if page < 0:
            raise DamagedError("a page of less than no bytes")
        start += length + page


def _header_at(file: BinaryIO, start: int) -> tuple[Fields, int]:
    """The header of the page at `start`, and its bytes."""
    size = _FIRST_HEADER_BYTES
    while True:
        file.seek(start)
        data = file.read(size)
        reader = _Thrift(data)
        try:
            return reader.struct(), reader.at
        except IndexError:
            if len(data) < size or size >= MAX_HEADER_BYTES:
                raise DamagedError("a page's header is cut short") from None
            size *= 16


def _row_groups(file: BinaryIO, size: int) -> list[Any]:
    file.seek(max(size - 8, 0))
    length = int.from_bytes(file.read(4), "little")
    if length > size - 8:
        raise DamagedError("the footer is larger than the file")
    file.seek(size - 8 - length)
    try:
        return _list(_Thrift(file.read(length)).struct(), _ROW_GROUPS)
    except IndexError:
        raise DamagedError("the footer is cut short") from None


class _Thrift:
    """Values in Thrift's compact protocol, from `at` on; IndexError where they are cut short."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at, self._depth = data, 0, 0

    def struct(self) -> Fields:
        """Field number -> value."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise DamagedError("values lie too deep within one another")
        found: Fields = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            found[number] = self._value(head & 15)
        self._depth -= 1
        return found

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _unsigned(self) -> int:
        number = shift = 0
        while (byte := self._byte()) >= 128:
            number |= (byte & 127) << shift
            shift += 7
            if shift > 70:
                raise DamagedError("a number of more than 64 bits")
        return number | byte << shift

    def _signed(self) -> int:
        number = self._unsigned()
        return number >> 1 ^ -(number & 1)

    def _bytes(self, length: int) -> bytes:
        if length > len(self._data) - self.at:
            raise IndexError
        self.at += length
        return self._data[self.at - length : self.at]

    def _value(self, kind: int, in_list: bool = False) -> object:
        if kind in (1, 2):  # a boolean, whose value lies in the kind but for lists
            return self._byte() == 1 if in_list else kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._unsigned())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._unsigned()
            return self._values(count, head & 15)
        if kind == 12:
            return self.struct()
        raise DamagedError("a value of no known kind")

    def _values(self, count: int, kind: int) -> list[object]:
        if count > len(self._data) - self.at:  # each takes a byte at least
            raise IndexError
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise DamagedError("values lie too deep within one another")
        found = [self._value(kind, in_list=True) for _ in range(count)]
        self._depth -= 1
        return found


def _number(values: Any, field: int) -> int:
    found = values.get(field, 0) if isinstance(values, dict) else None
    if not isinstance(found, int):
        raise DamagedError("expected a number")
    return found


def _struct(values: Any, field: int) -> Fields:
    found = values.get(field) if isinstance(values, dict) else None
    if not isinstance(found, dict):
        raise DamagedError("expected a struct")
    return found


def _list(values: Any, field: int) -> list[Any]:
    found = values.get(field, []) if isinstance(values, dict) else None
    if not isinstance(found, list):
        raise DamagedError("expected a list")
    return found


def leaves_of(columns: Collection[Leaf], names: Collection[str]) -> dict[str, Leaf]:
    """Those of `columns` that lie in the top-level columns `names`, by path."""
    return {
        leaf.path: leaf
        for leaf in columns
        if any(leaf.path == name or leaf.path.startswith(f"{name}.") for name in names)
    }
