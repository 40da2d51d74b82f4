"""Validation of one event as REST receives it.

The rules for ids, times and numbers are those of `recsys.ingest.event_files`, which applies them to whole
columns of a file; `text_problem` is shared by both.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from recsys.errors import InputError
from recsys.events.fields import (
    DEFAULT_EVENT_TYPE,
    DETAIL_FIELDS,
    EARLIEST_US,
    MAX_FUTURE_SECONDS,
    MAX_PROPERTIES_BYTES,
    POSTED_FIELDS,
    Event,
    EventField,
)
from recsys.events.identity import PAGE_ID_PREFIX, page_event_id
from recsys.events.times import DAY_US
from recsys.ingest.cells import CellRules, clean_text, lost_digits, whole_text
from recsys.ingest.numeric_times import too_early
from recsys.text_rules import MAX_ID_LENGTH, MAX_TYPE_LENGTH, text_problem

POSTED_NAMES = tuple(one.rest_name for one in POSTED_FIELDS)
_KNOWN_NAMES = frozenset(POSTED_NAMES)
_DETAILS = tuple((one.rest_name, one) for one in DETAIL_FIELDS)
PAGE_DAYS = 7  # how old an event from a page may be: it tells of what happens
MAX_DEPTH = 8  # objects and arrays within one another, the outermost included

# Ids as most are: nothing to trim, and no number written as a float, which has a '.' or a '+'.
_PLAIN_ID = re.compile(r"[!-*,\-/-~]+")
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?"
    r"(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))",
    re.ASCII,
)
_NUL_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # PostgreSQL cannot hold it
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


def check_event(raw: Mapping[str, object], now_us: int) -> Event:
    """The event that the JSON object `raw` describes; `now_us` is the time where it names none.

    Raises InputError naming the first field that is unknown, missing or not acceptable. A field
    that is null, blank or a word for a missing value counts as absent; ids are trimmed, and
    may be whole numbers.

    >>> event = check_event({"user_id": "7", "item_id": "tea", "timestamp": 1592955233000}, 2**51)
    >>> event.event_type, event.timestamp_us
    ('view', 1592955233000000)
    >>> check_event({"user_id": 7, "item_id": "tea"}, 2**51).user_id
    '7'
    >>> check_event({"user_id": 7.5, "item_id": "tea"}, 2**51)
    Traceback (most recent call last):
    recsys.errors.InputError: user_id = 7.5: expected text of 1 to 256 characters, or a whole number
    """
    if not isinstance(raw, Mapping):
        raise InputError("event", raw, "expected a JSON object")
    if not raw.keys() <= _KNOWN_NAMES:
        name = next(name for name in raw if name not in _KNOWN_NAMES)
        raise InputError(str(name), raw[name], f"unknown field; known: {', '.join(POSTED_NAMES)}")
    item_id = checked_id("item_id", raw.get("item_id"))
    user_id = checked_id("user_id", raw.get("user_id"))
    session_id = checked_id("session_id", raw.get("session_id"))
    event_type = checked_id("event_type", raw.get("event_type"), MAX_TYPE_LENGTH, False)
    if item_id is None:
        problem = f"expected text of 1 to {MAX_ID_LENGTH} characters"
        raise InputError("item_id", raw.get("item_id"), problem)
    if user_id is None and session_id is None:
        raise InputError("user_id", None, "user_id and session_id are both missing")
    return Event(
        user_id=user_id,
        session_id=session_id,
        item_id=item_id,
        event_type=event_type or DEFAULT_EVENT_TYPE,
        timestamp_us=_timestamp(raw.get("timestamp"), now_us),
        **{one.name: _detail(one, raw[name]) for name, one in _DETAILS if name in raw},
    )


def check_posted(raw: Mapping[str, object], now_us: int, page: bool) -> Event:
    """The event to be stored of the JSON object `raw`, as `check_event` reads it.

    What a `page` posts is of the last PAGE_DAYS, and gets an id in the name space of pages, which nobody
    else's may have. Raises InputError.
    """
    event = check_event(raw, now_us)
    given = event.event_id
    if page:
        if event.timestamp_us < now_us - PAGE_DAYS * DAY_US:
            expected = f"a page posts events of the last {PAGE_DAYS} days"
            raise InputError("timestamp", raw.get("timestamp"), expected)
        most = MAX_ID_LENGTH - len(PAGE_ID_PREFIX)
        if given is not None and len(given) > most:
            raise InputError("event_id", given, f"expected at most {most} characters from a page")
        return replace(event, event_id=page_event_id(given or secrets.token_hex(16)))
    if given is not None and given.startswith(PAGE_ID_PREFIX):
        raise InputError("event_id", given, f"ids of pages' events begin with {PAGE_ID_PREFIX}")
    return event


def check_properties(properties: object, field: str = "properties") -> str | None:
    """`properties` as compact JSON text with sorted keys; None for None.

    Raises InputError, of `field`, where it is not a JSON object of at most 8,192 bytes and eight
    levels, or holds what a database or UTF-8 cannot (NUL, half a surrogate pair, NaN).
    """
    if properties is None:
        return None
    if not isinstance(properties, Mapping):
        raise InputError(field, properties, "expected a JSON object")
    if not _shallow(properties):
        raise InputError(field, "…", f"expected at most {MAX_DEPTH} levels")
    try:
        text = json.dumps(
            properties, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
        )
        size = len(text.encode())
    except (TypeError, ValueError):  # UnicodeEncodeError is a ValueError
        raise InputError(field, "…", "holds a value that JSON cannot carry") from None
    if size > MAX_PROPERTIES_BYTES:
        raise InputError(field, "…", f"expected at most {MAX_PROPERTIES_BYTES:,} bytes")
    if _NUL_ESCAPE.search(text):
        raise InputError(field, "…", "holds a NUL character")
    return text


def id_text(value: object) -> object:
    """`value` as text where it is a whole number, as shops count their items; else as it is.

    A whole number may be written as a float, as in a file, while no digit of it can be lost.

    >>> id_text(12), id_text(12.0), id_text(1.5), id_text(1e16), id_text(True)
    ('12', '12', 1.5, 1e+16, True)
    """
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return str(int(value))
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64
    return str(value) if whole else value


def checked_id(
    field: str,
    value: object,
    limit: int = MAX_ID_LENGTH,
    whole_numbers: bool = True,
    rules: CellRules = CellRules(),  # noqa: B008
) -> str | None:
    """The id that `value` stands for, as `rules` clean it; None where it is missing.

    Raises InputError, of `field`, where it is none.

    >>> checked_id("item_id", " 1001.0"), checked_id("item_id", 7), checked_id("item_id", "NULL")
    ('1001', '7', None)
    """
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= limit and _PLAIN_ID.fullmatch(value):
        return value if value not in rules.missing or rules.exact else None
    if whole_numbers:
        value = id_text(value)
    if not isinstance(value, str) or not value:
        whole = ", or a whole number" if whole_numbers and value != "" else ""
        raise InputError(field, value, f"{text_problem(value, limit)}{whole}")
    text = clean_text(value, rules)
    if text is None:
        return None
    if lost_digits(text):
        raise InputError(field, value, "a number that has lost its digits")
    if problem := text_problem(text, limit):
        raise InputError(field, value, problem)
    return whole_text(text)


def _detail(field: EventField, value: object) -> Any:
    if value is None:
        return None
    if field.kind == "number":
        return _number(field.rest_name, value)
    if field.kind == "object":
        return check_properties(value)
    return checked_id(field.rest_name, value, field.max_length)


def _timestamp(value: object, now_us: int) -> int:
    if value is None:
        return now_us
    if isinstance(value, int) and not isinstance(value, bool):
        if problem := too_early(value, "ms", now_us):
            raise InputError("timestamp", value, problem)
        timestamp_us = value * 1_000
    elif isinstance(value, str) and (parsed := rfc3339_us(value)) is not None:
        timestamp_us = parsed
    else:
        raise InputError(
            "timestamp",
            value,
            "expected RFC 3339 with an offset, such as 2024-05-01T12:00:00Z, or epoch milliseconds",
        )
    if timestamp_us < EARLIEST_US:
        raise InputError("timestamp", value, "expected a time since 1970")
    if timestamp_us > now_us + MAX_FUTURE_SECONDS * 1_000_000:
        raise InputError("timestamp", value, f"more than {MAX_FUTURE_SECONDS} s in the future")
    return timestamp_us


def rfc3339_us(text: str) -> int | None:
    """The µs since 1970 (UTC) of an RFC 3339 date-time, or None where `text` is not one.

    A space may stand for the T, as RFC 3339, 5.6 allows. Of a fraction, 1 to 9 digits are taken and
    what lies below a microsecond is dropped.

    >>> rfc3339_us("1970-01-01T01:00:00.5+01:00")
    500000
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        return None
    date, time, fraction, sign, hours, minutes = found.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}")
    except ValueError:
        return None
    local_us = (moment - _EPOCH) // _MICROSECOND + int((fraction or "").ljust(6, "0")[:6])
    offset_minutes = (int(hours) * 60 + int(minutes)) * (-1 if sign == "-" else 1) if sign else 0
    return local_us - offset_minutes * 60_000_000


def _number(field: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise InputError(field, value, "expected a finite number")


def _shallow(value: object, depth: int = MAX_DEPTH) -> bool:
    """Whether `value` nests at most `depth` objects and arrays."""
    if isinstance(value, Mapping):
        return depth > 0 and all(_shallow(member, depth - 1) for member in value.values())
    if isinstance(value, list | tuple):
        return depth > 0 and all(_shallow(member, depth - 1) for member in value)
    return True
