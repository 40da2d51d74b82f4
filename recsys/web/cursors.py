"""Cursors: opaque to clients, checked on the way back."""

from __future__ import annotations

import base64
import binascii

from recsys.errors import InputError
from recsys.text_rules import stored_text_problem


def write_cursor(position: str) -> str:
    """
    >>> read_cursor(write_cursor("a/b"))
    'a/b'
    """
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> str | None:
    """The position in `cursor`; raises InputError where it is not one of ours."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        text = ""
    if stored_text_problem(text, len(cursor)) or write_cursor(text) != cursor:
        raise InputError("cursor", cursor, "expected the next_cursor of an earlier page")
    return text


def read_number(cursor: str | None) -> int | None:
    """The whole number in `cursor`; raises InputError."""
    text = read_cursor(cursor)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InputError("cursor", cursor, "expected the next_cursor of an earlier page")
    return int(text)
