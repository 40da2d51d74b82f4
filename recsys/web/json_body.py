"""JSON bodies of requests: plain or gzip, bounded once inflated, and without a key that stands twice."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

import orjson
from flask import current_app, request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from recsys.errors import shown
from recsys.web.problem_details import FieldError, InvalidRequestError

GZIP = zlib.MAX_WBITS | 16  # a gzip header, and none else
MAX_MEMBERS = 100  # of a gzip body: each costs as much as all that follow it
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"')  # possessive: no way back is kept in memory


class _RepeatedKeyError(Exception):
    """A key that stands twice in one object."""


def read_json(plain: bool = False) -> Any:
    """The JSON body. Its size is bounded, inflated or not, and its depth (1,024) by orjson.

    `plain`: text/plain will do, which is what `navigator.sendBeacon` sends without asking first.
    """
    if not request.is_json and not (plain and request.mimetype == "text/plain"):
        raise UnsupportedMediaType
    data = _inflated(request.get_data(cache=False))
    current_app.extensions["recsys"].keys.spend_bytes(len(data))
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _bad(f"not JSON: line {error.lineno}, column {error.colno}") from None
    # Of two values of one key orjson keeps the last, others the first. A colon outside of strings is a
    # key's; where there are no more colons than keys, no string has to be taken out.
    keys = _keys(parsed)
    if data.count(b":") != keys and _STRING.sub(b"", data).count(b":") != keys:
        raise _bad(_repeated(data))
    return parsed


def _inflated(data: bytes) -> bytes:
    """`data` as Content-Encoding says it is packed."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        return data
    if encoding not in ("gzip", "x-gzip"):
        raise UnsupportedMediaType
    most = current_app.config["MAX_CONTENT_LENGTH"]
    found = b""
    for _ in range(MAX_MEMBERS):  # a gzip file may have several
        unpacking = zlib.decompressobj(GZIP)
        try:
            found += unpacking.decompress(data, most - len(found) + 1)
        except zlib.error:
            raise _bad("not gzip, which Content-Encoding says it is") from None
        if len(found) > most:
            raise RequestEntityTooLarge
        if not unpacking.eof:
            raise _bad("a gzip body that ends too early")
        data = unpacking.unused_data
        if not data:
            return found
    raise _bad(f"a gzip body of more than {MAX_MEMBERS} members")


def _keys(parsed: Any) -> int:
    """Number of keys of all objects within `parsed`."""
    count, left = 0, [parsed]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            count += len(one)
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
    return count


def _repeated(data: bytes) -> str:
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


def _bad(message: str) -> InvalidRequestError:
    return InvalidRequestError([FieldError(field="body", message=message)])
