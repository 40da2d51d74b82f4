"""Whose a raw row is: the owners that a row in quarantine names, in the columns that its file was read by.

Where those columns are known, a text elsewhere in the row is nobody's id. What could not be taken apart, or
has none of those columns, may name its owner anywhere, so that all that could be an id is taken for one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from recsys.events.identity import sequence_key
from recsys.ingest.cells import clean_text, whole_text
from recsys.ingest.raw_rows import RawLine

# What may stand between the fields of a line; an id may hold any one of them.
_SEPARATORS = tuple(re.compile(one) for one in (r"[^\w/@.+-]+", "\t", ",", ";", r"\|", '"', r"\s+"))
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")


class OwnerColumns(NamedTuple):
    """The columns of a file in which owners stand; None: it has no such column."""

    user: str | None = None
    session: str | None = None


def owner_keys(raw: str, columns: Collection[OwnerColumns] | None) -> set[str]:
    """The keys ('u:<user_id>', 's:<session_id>') of those whom a row in quarantine may be of.

    `columns`: of each way in which rows of its file were read; None where that was not written down.

    >>> by = [OwnerColumns("who", "visit")]
    >>> owner_keys('{"who": 7, "visit": "a", "quantity": 9}', by)
    {'u:7'}
    >>> owner_keys('{"who": null, "visit": "a", "quantity": 9}', by)
    {'s:a'}
    """
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError):
        row = raw
    if isinstance(row, list) and RawLine.is_one(row):
        row = row[0]
    if isinstance(row, str):  # a line that could not be taken apart, or no JSON at all
        return _either(_words(row))
    if not isinstance(row, dict) or columns is None:
        return _either(_leaves(row))
    found: set[str] = set()
    for one in columns:
        values = [None if name is None else _at(row, name) for name in one]
        if values == [None, None]:
            if one != OwnerColumns():  # a file of items has no owners
                found |= _either(_leaves(row))
            continue
        users, sessions = (set(_leaves([] if value is None else value)) for value in values)
        if users:
            found |= {sequence_key(user, None) for user in users}
        else:
            found |= {sequence_key(None, session) for session in sessions}
    return found


def _either(names: Iterator[str]) -> set[str]:
    return {key for name in names for key in (sequence_key(name, None), sequence_key(None, name))}


def _at(row: dict[str, object], name: str) -> list[object] | None:
    """The values of a column, which may be a path such as 'user.id' or 'items[].owner'; None: none."""
    if name in row:
        return [row[name]]
    found: list[object] = [row]
    for step in name.removeprefix("$.").split("."):
        many, key = step.endswith("[]"), step.removesuffix("[]")
        found = [one[key] for one in found if isinstance(one, dict) and key in one]
        if many:
            found = [member for one in found if isinstance(one, list) for member in one]
    return found or None


def _leaves(value: object) -> Iterator[str]:
    """The plain values in `value`, however deep, in each way in which an id may be written."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one
        elif one is not None and not isinstance(one, bool):
            yield from _written(str(one))


def _written(text: str) -> Iterator[str]:
    cleaned = clean_text(text)
    if cleaned is not None:
        yield from {cleaned, whole_text(cleaned)}


def _words(line: str) -> Iterator[str]:
    """What could be an id in a line that could not be taken apart."""
    lines = {line}
    if _ESCAPED.search(line):
        plain = _ESCAPED.sub(lambda code: chr(int(code[1], 16)), line)
        lines.add(plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    for one in lines:
        for separator in _SEPARATORS:
            for word in separator.split(one):
                yield from _written(word.strip().strip("\"'"))
