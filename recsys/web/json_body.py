"""JSON bodies of requests: plain or gzip, bounded once inflated, and without a key that stands twice."""

from __future__ import annotations

import zlib
from typing import Any

import orjson
from flask import current_app, request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from recsys.ingest.json_keys import repeated_key, repeats_a_key
from recsys.web.problem_details import FieldError, InvalidRequestError

GZIP = zlib.MAX_WBITS | 16  # a gzip header, and none else
MAX_MEMBERS = 100  # of a gzip body: each costs as much as all that follow it


def read_json(plain: bool = False) -> Any:
    """The JSON body. Its size is bounded, inflated or not, and its depth (1,024) by orjson.

    `plain`: text/plain will do, which is what `navigator.sendBeacon` sends without asking first.
    """
    if not request.is_json and not (plain and request.mimetype == "text/plain"):
        raise UnsupportedMediaType
    data = body_bytes(current_app.config["MAX_CONTENT_LENGTH"])
    current_app.extensions["recsys"].keys.spend_bytes(len(data))
    return parsed(data)


def parsed(data: bytes) -> Any:
    """The JSON that `data` is. Raises InvalidRequestError."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _bad(f"not JSON: line {error.lineno}, column {error.colno}") from None
    if repeats_a_key(data, [found]):
        raise _bad(repeated_key(data))
    return found


def body_bytes(most: int) -> bytes:
    """The body, unpacked as Content-Encoding says. Raises RequestEntityTooLarge beyond `most` bytes."""
    if (request.content_length or 0) > most:
        raise RequestEntityTooLarge
    data = request.get_data(cache=False)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        if len(data) > most:
            raise RequestEntityTooLarge
        return data
    if encoding not in ("gzip", "x-gzip"):
        raise UnsupportedMediaType
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


def _bad(message: str) -> InvalidRequestError:
    return InvalidRequestError([FieldError(field="body", message=message)])
