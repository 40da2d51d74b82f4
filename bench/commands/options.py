"""Options that several benchmarks share: a spare database, a whole number, a share."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.errors import InputError

PostgresOption = Annotated[
    str | None, typer.Option(help="A spare PostgreSQL database; its tables are replaced.")
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
