"""A column of an external table: its kind, what it may hold, and SQLite's values as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from sqlalchemy import ColumnElement, Text, case, cast, func, literal_column

Kind = Literal[
    "integer", "decimal", "float", "uuid", "uuid_bytes", "text", "aware", "naive", "date", "other"
]
ID_KINDS: tuple[Kind, ...] = ("integer", "decimal", "uuid", "uuid_bytes", "text")
TIME_KINDS: tuple[Kind, ...] = ("integer", "decimal", "float", "aware", "naive", "date", "text")
NUMBER_KINDS: tuple[Kind, ...] = ("integer", "decimal", "float")
_ARROW: dict[str, pa.DataType] = {
    "integer": pa.int64(),
    "decimal": pa.string(),
    "float": pa.float64(),
    "aware": pa.timestamp("us", "UTC"),
    "naive": pa.timestamp("us"),
    "date": pa.date32(),
}


@dataclass(frozen=True)
class MappedColumn:
    """One column of the user's."""

    name: str
    kind: Kind
    declared: str = ""  # its type as the database names it
    enumerated: bool = False  # whether it holds none but texts that its type lists

    def arrow_type(self) -> pa.DataType:
        """What its values are once read in bulk."""
        return _ARROW.get(self.kind, pa.string())


def integer_bounds(declared: str) -> tuple[int, int]:
    """What an integer type holds, so that no database is asked for what would be an error."""
    name = declared.upper()
    bits = 15 if "SMALL" in name else 31 if name in ("INTEGER", "INT", "INT4", "SERIAL") else 63
    if "UNSIGNED" in name:
        return 0, 2**64 - 1
    return -(2**bits), 2**bits - 1


def sqlite_text(found: ColumnElement[Any], meaning: str) -> ColumnElement[Any]:
    """A value of SQLite's as text, for its columns hold values of any type.

    A blob is no text: it is given so that it cannot be taken for UTF-8.
    """
    as_text: ColumnElement[Any] = cast(found, Text)
    kind = func.typeof(found)
    blob = cast(literal_column("x'ff'").op("||")(found), Text)
    whens: list[tuple[Any, Any]] = [(kind == literal_column("'blob'"), blob)]
    if meaning in ("timestamp", "value"):
        exact = func.printf(literal_column("'%!.17g'"), found)
        whens.append((kind == literal_column("'real'"), exact))
    return case(*whens, else_=as_text)
