"""Raw rows of a file: columns of any type, and the rows that could not be parsed.

Legend: n rows of a chunk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Protocol

import orjson
import pyarrow as pa

from recsys.events.array_types import BoolArray, Int64Array

MAX_RAW_LENGTH = 4_096  # characters kept of a rejected row
MAX_RAW_VALUE = 512  # characters kept of one of its values

# A key of a row that is not kept whole: columns were left out of it, or values cut.
CUT = "…"

Row = dict[str, object]


@dataclass(frozen=True)
class Rejection:
    """A rejected row of a file, with the reason."""

    position: int  # 0-based data row in the file
    reason: str  # names the field and the value
    # JSON text of the row: an object, a list (RawLine) where it could not be cut into fields, or a
    # string where nothing can be made of it.
    raw: str


@dataclass(frozen=True)
class RawChunk:
    """n rows of a file in file order."""

    columns: dict[str, pa.Array]  # (n,) each; never binary, never dictionary-encoded
    positions: Int64Array  # (n,) 0-based data row in the file
    rejections: list[Rejection]  # rows between them that could not be taken apart
    bytes_read: int  # of the file, since the last chunk
    source_rows: Callable[[Int64Array], list[Row]]  # row numbers within the chunk -> source values
    # column -> (cells that no id can be made of, why); they are in `columns` as text all the same
    unusable: dict[str, tuple[BoolArray, str]] = field(default_factory=dict)
    note: str = ""  # how these rows were read, where that is worth telling
    left_out: int = 0  # further rows that hold no event: lists without a member

    @property
    def rows(self) -> int:
        """How many rows of the file this accounts for."""
        return len(self.positions) + len(self.rejections) + self.left_out


class RowSource(Protocol):
    """A file of rows. `names` are its columns; `chunks` reads those that are needed."""

    names: list[str]
    nested: bool  # whether a column may be a path into another

    def chunks(self, needed: Collection[str]) -> Iterator[RawChunk]: ...


def raw_text(row: Mapping[str, object] | str, first: Sequence[str] = ()) -> str:
    """`row` as JSON text of at most 4,096 characters, the columns `first` before the others.

    What does not fit is left out, column by column, and long values are cut, so that the text stays
    JSON; CUT is then a key of it.

    >>> raw_text({"a": 1, "b": "x"}, first=["b"])
    '{"b":"x","a":1}'
    """
    if isinstance(row, str):
        text = _dumped(row[:MAX_RAW_LENGTH])
        return text if len(text) <= MAX_RAW_LENGTH else _dumped(row[: MAX_RAW_LENGTH // 6 - 1])
    names = [name for name in dict.fromkeys((*first, *row)) if name in row]
    text = _dumped({name: row[name] for name in names})
    if len(text) <= MAX_RAW_LENGTH:
        return text
    parts = [f"{_dumped(CUT)}:true"]
    size = len(parts[0]) + 3
    for name in names:
        part = f"{_dumped(name)}:{_dumped(row[name])}"
        if len(part) > MAX_RAW_VALUE and isinstance(value := row[name], str):
            part = f"{_dumped(name)}:{_dumped(value[: MAX_RAW_VALUE // 6] + '…')}"
        if size + len(part) < MAX_RAW_LENGTH:
            parts.insert(-1, part)
            size += len(part) + 1
    return "{" + ",".join(parts) + "}"


@dataclass(frozen=True)
class RawLine:
    """A line that could not be cut into fields, with what it takes to cut it another time."""

    text: str
    columns: tuple[str, ...]
    delimiter: str
    quote: str  # '' where quotes mean nothing
    escape: str  # '' where there is none

    def raw(self) -> str:
        """As JSON text of at most 4,096 characters; of a line that is too long, its beginning alone.

        >>> RawLine("a;b", ("x",), ";", "", "").raw()
        '["a;b",{"columns":["x"],"delimiter":";","quote":"","escape":""}]'
        """
        how = {name: value for name, value in vars(self).items() if name != "text"}
        whole = _dumped([self.text, how])
        return whole if len(whole) <= MAX_RAW_LENGTH else cut_line(self.text)

    @classmethod
    def of(cls, row: object) -> RawLine | None:
        """The line that `raw` gave, from its JSON; None where it was not kept whole."""
        if not isinstance(row, list) or not cls.is_one(row) or CUT in row[1]:
            return None
        text, how = row
        return cls(text, tuple(how["columns"]), how["delimiter"], how["quote"], how["escape"])

    @classmethod
    def is_one(cls, row: list[Any]) -> bool:
        """Whether the JSON `row` is a line, or the beginning of one."""
        if len(row) != 2 or not isinstance(row[0], str) or not isinstance(row[1], dict):
            return False
        return set(row[1]) in ({CUT}, {"columns", "delimiter", "quote", "escape"})


def cut_line(text: str) -> str:
    """The beginning of a line that is not kept whole, or not as it was, as JSON text."""
    most = MAX_RAW_LENGTH - 20
    found = _dumped([text[:most], {CUT: True}])
    return found if len(found) <= MAX_RAW_LENGTH else _dumped([text[: most // 6], {CUT: True}])


def plain(value: object) -> object:
    """`value` as JSON has it: times as ISO text, decimals as numbers, NaN as null."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, Mapping):
        return {str(key): plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    return str(value)


def _dumped(value: object) -> str:
    try:
        return orjson.dumps(value, default=plain).decode()
    except orjson.JSONEncodeError:  # an integer beyond 64 bits
        return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))
