"""Lists that are sorted by a column: the parameter `sort`, and pages that keep their place.

A list is bounded before it is sorted, so that a page costs the same however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from flask import request

from recsys.errors import InputError
from recsys.web.admin.queries import PAGE_ROWS, choice
from recsys.web.cursors import read_cursor, write_cursor

SORTED_ROWS = 1_000  # the newest of a list, among which it is sorted

Row = TypeVar("Row")
Value = str | int | float | None
Position = tuple[Value, str | int]  # a row's value in the sort's column, and its id
Columns = Mapping[str, Callable[[Any], Value]]  # by the name that `sort` has for each


def sort_of(columns: Columns, default: str) -> str:
    """The sort asked for: a column's name, '-' in front for descending. Raises InputError."""
    known = [turn + name for name in columns for turn in ("", "-")]
    return choice("sort", known, default) or default


@dataclass(frozen=True)
class SortedList:
    """Rows by `sort`; those without a value come last, whichever way it is turned.

    `id_of` tells the rows apart and orders those of one value.
    """

    columns: Columns
    sort: str
    id_of: Callable[[Any], str | int]

    def page(self, rows: Sequence[Row], limit: int = PAGE_ROWS) -> tuple[list[Row], str | None]:
        """The page that the request's cursor asks for, and the cursor of the next one.

        Raises InputError. A row that came or went since the page before moves no other one.
        """
        after = _position(request.args.get("cursor"))
        turned, place = self.sort.startswith("-"), self._place
        known = sorted(
            (row for row in rows if place(row)[0] is not None), key=place, reverse=turned
        )
        bare = sorted((row for row in rows if place(row)[0] is None), key=lambda row: place(row)[1])
        if after is not None:
            bare = [
                row for row in bare if after[0] is not None or _beyond(place(row)[1:], after[1:])
            ]
            known = [
                row for row in known if after[0] is not None and _beyond(place(row), after, turned)
            ]
        left = [*known, *bare]
        shown = left[:limit]
        more = len(left) > limit
        return shown, write_cursor(orjson.dumps(place(shown[-1])).decode()) if more else None

    def _place(self, row: Any) -> Any:
        return self.columns[self.sort.lstrip("-")](row), self.id_of(row)


def _beyond(one: tuple[Any, ...], other: tuple[Any, ...], turned: bool = False) -> bool:
    try:
        return one < other if turned else one > other
    except TypeError:  # the cursor is of another column
        raise _refused() from None


def _position(cursor: str | None) -> Position | None:
    text = read_cursor(cursor)
    if text is None:
        return None
    try:
        value, row_id = orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError, ValueError):
        raise _refused() from None
    if not isinstance(value, str | int | float | None) or not isinstance(row_id, str | int):
        raise _refused()
    return value, row_id


def _refused() -> InputError:
    expected = "expected the next_cursor of an earlier page"
    return InputError("cursor", request.args.get("cursor", ""), expected)
