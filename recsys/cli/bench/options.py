"""What options of several benchmarks say: a log's reading, a moment, a whole number, a share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.events import FormatOption, UnitOption
from recsys.errors import InputError

if TYPE_CHECKING:
    from recsys.ingest.event_files import ReadOptions

PostgresOption = Annotated[
    str | None, typer.Option(help="A spare PostgreSQL database; its tables are replaced.")
]


def read_options(
    columns: str, unit: UnitOption, where: list[str] | None, format_: FormatOption
) -> ReadOptions:
    """How a log is read, as the options of a command say; times are in seconds where none does."""
    from recsys.ingest.event_files import ColumnMap, ReadOptions

    return ReadOptions(
        columns=ColumnMap.parse(columns),
        unit=unit or (None if format_ else "s"),
        where=tuple(where or ()),
        format=format_,
    )


def moment(text: str, unit: str) -> int:
    """A time as µs since 1970: RFC 3339, or a number in `unit`. Raises InputError."""
    from recsys.events.frame import MICROSECONDS
    from recsys.ingest.event_body import rfc3339_us

    if text.lstrip("-").isdigit():
        if unit not in MICROSECONDS:
            raise InputError("--unit", unit, f"expected one of: {', '.join(MICROSECONDS)}")
        return int(int(text) * MICROSECONDS[unit])
    found = rfc3339_us(text)
    if found is None:
        raise InputError("--cut", text, "expected RFC 3339 with an offset, or a whole number")
    return found


def whole(name: str, text: str, low: int, high: int) -> int:
    """A number of a list. Raises InputError naming the option."""
    if not text.strip().isdecimal() or not low <= int(text) <= high:
        raise InputError(name, text, f"expected whole numbers from {low:,} to {high:,}")
    return int(text)


def share_of(name: str, text: str) -> float:
    """A number from 0 to 1. Raises InputError naming the option."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise InputError(name, text, "expected numbers from 0 to 1")
    return found
