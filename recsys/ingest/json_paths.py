"""Paths into nested values: `properties.product_id`, and `items[].item_id`, one row a member.

A name that is a key as it stands is no path, so that rows which were taken apart can be read again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from recsys.errors import InputError
from recsys.ingest.raw_rows import Row, RowSource

_LIST = "[]"


class TakesApart(Protocol):
    """What makes flat rows of a nested one."""

    @property
    def first(self) -> Sequence[str]:
        """What is kept first of a row that is rejected."""

    def columns(self, names: Collection[str]) -> Collection[str]:
        """Those of a file's columns `names` that are read."""

    def rows(self, row: Row) -> list[Row]:
        """The rows that `row` holds. Raises InputError where it cannot be taken apart."""


@dataclass(frozen=True)
class ByPaths:
    """Takes rows apart as `taken_apart` does."""

    first: Sequence[str]  # the paths
    lists: Sequence[str]

    def columns(self, names: Collection[str]) -> Collection[str]:
        return {name if name in names else head_of(name) for name in self.first}

    def rows(self, row: Row) -> list[Row]:
        return taken_apart(row, self.first, self.lists)


def head_of(name: str) -> str:
    """The key of the outermost object that the path `name` begins with.

    >>> head_of("items[].item_id"), head_of("properties.product_id"), head_of("user")
    ('items', 'properties', 'user')
    """
    return re.split(r"\.|\[\]", name, maxsplit=1)[0]


def lists_of(names: Collection[str]) -> list[str]:
    """The lists that the paths `names` go through, the outermost first.

    Raises InputError where two of them lie side by side: no member of one belongs to one of the other.

    >>> lists_of(["a[].b[].c", "a[].d", "e.f"])
    ['a', 'a[].b']
    """
    found = {name[: place.start()] for name in names for place in re.finditer(r"\[\]", name)}
    ordered = sorted(found, key=len)
    for outer, inner in pairwise(ordered):
        if not inner.startswith(outer + _LIST):
            raise InputError(
                "--map", f"{inner}[]", f"is a list beside {outer}[]; expected one list"
            )
    return ordered


def paths_within(columns: Iterable[str], source: RowSource) -> list[str]:
    """Those of `columns` that lead into a column of `source`."""
    return [
        name
        for name in dict.fromkeys(columns)
        if source.nested and name not in source.names and head_of(name) in source.names
    ]


def value_at(row: object, path: str) -> object:
    """What `path`, without lists, leads to in `row`; None where it leads nowhere.

    A list that it would go through is what it leads to: no value, so that it is told.
    """
    for key in filter(None, path.split(".")):
        if isinstance(row, list):
            return row
        if not isinstance(row, dict):
            return None
        row = row.get(key)
    return row


def taken_apart(row: Row, names: Sequence[str], lists: Sequence[str]) -> list[Row]:
    """One flat row a member of the lists, its keys the paths `names`; without lists, one row.

    Raises InputError where a list is none.

    >>> taken_apart({"u": 1, "items": [{"id": 2}, {"id": 3}]}, ["u", "items[].id"], ["items"])
    [{'u': 1, 'items[].id': 2}, {'u': 1, 'items[].id': 3}]
    """
    partial: list[tuple[Row, object]] = [({}, row)]
    before = ""
    for path in (*lists, None):
        own = [
            name for name in names if name.startswith(before) and _LIST not in name[len(before) :]
        ]
        wider: list[tuple[Row, object]] = []
        for flat, member in partial:
            values = {name: _step(member, name[len(before) :]) for name in own if name not in flat}
            flat = {**flat, **values}
            if path is None:
                wider.append((flat, member))
                continue
            members = _step(member, path[len(before) :])
            if members is not None and not isinstance(members, list):
                raise InputError(f"{path}[]", members, "expected a list")
            wider += [(flat, one) for one in members or ()]
        partial = wider
        before = f"{path}[]"
    return [flat for flat, _ in partial]


def _step(member: object, path: str) -> object:
    if isinstance(member, dict) and path in member:
        return member[path]
    return value_at(member, path) if path else member
