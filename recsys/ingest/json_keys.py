"""Keys that stand twice in one JSON object: of their values orjson keeps the last, others the first, so
such an object says nothing that could be relied on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from recsys.errors import shown

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"')  # possessive: no way back is kept in memory


class _RepeatedKeyError(Exception):
    """A key that stands twice in one object."""


def repeats_a_key(data: bytes, values: Iterable[Any]) -> bool:
    """Whether `data`, JSON from which `values` were read, has an object with a key twice.

    Outside texts a colon stands after each key and nowhere else.

    >>> repeats_a_key(b'{"a": 1, "a": 2}', [{"a": 2}]), repeats_a_key(b'{"a": "x:y"}', [{"a": "x:y"}])
    (True, False)
    """
    keys = _keys(values)
    return data.count(b":") != keys and _STRING.sub(b"", data).count(b":") != keys


def repeated_key(data: bytes) -> str:
    """Which key `data`, JSON that repeats one, has twice, as a message."""

    def once(pairs: list[tuple[str, Any]]) -> None:
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise _RepeatedKeyError(name)
            names.add(name)

    try:
        json.loads(data, object_pairs_hook=once)
    except _RepeatedKeyError as error:
        return f"{shown(error.args[0])} stands twice in one object"
    except (ValueError, RecursionError):
        pass
    return "a key stands twice in one object"


def _keys(values: Iterable[Any]) -> int:
    """Number of keys of all objects within `values`."""
    count, left = 0, list(values)
    while left:
        one = left.pop()
        if isinstance(one, dict):
            count += len(one)
            left += [value for value in one.values() if value.__class__ in (dict, list)]
        elif isinstance(one, list):
            left += one
    return count
