"""Options that several benchmarks share: a spare database, a whole number, a share, a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.errors import InputError
from recsys.events.times import HOUR_US, MINUTE_US

PostgresOption = Annotated[
    str | None, typer.Option(help="A spare PostgreSQL database; its tables are replaced.")
]

ReleaseOption = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, help="Another release: its checkout's folder."),
]


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


def hours_us(name: str, text: str) -> int:
    """A time such as 24h, 90m or 0, in µs. Raises InputError naming the option.

    >>> hours_us("--retrain", "24h"), hours_us("--retrain", "90m"), hours_us("--retrain", "0")
    (86400000000, 5400000000, 0)
    """
    number, unit = text.strip()[:-1], text.strip()[-1:]
    if text.strip() == "0":
        return 0
    if not number.isdecimal() or unit not in "mh" or not 1 <= int(number) <= 100_000:
        raise InputError(name, text, "expected 0, or whole hours or minutes such as 24h or 90m")
    return int(number) * (HOUR_US if unit == "h" else MINUTE_US)
