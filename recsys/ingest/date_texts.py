"""Moments as people and programs write them, in any of the common forms."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from recsys.events.times import to_us

MAX_LENGTH = 64  # characters
_NUMBER_UNITS = {10: 1_000_000, 13: 1_000, 16: 1}  # µs of one, by digits; more digits are ns
_ISO = re.compile(
    r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"
    r"(?:[Tt ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?)?"
    r"\s*(Z|z|UTC|GMT)?\s*([+-]\d{2}:?\d{2})?(?:\s+(?:UTC|GMT|[+-]\d{4}))?",
    re.ASCII,
)
# The rest by strptime, with English names. A zone is Z, UTC, GMT or an offset.
_FORMATS = (
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d-%b-%Y %H:%M:%S %z",
    "%A, %d-%b-%y %H:%M:%S %z",
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Y %z",
    "%a %b %d %Y %H:%M:%S %z",
    "%d %b %Y %H:%M:%S %z",
    "%d %b %Y %H:%M %z",
    "%d %b %Y %z",
    "%d %B %Y %z",
    "%b %d, %Y %I:%M:%S %p %z",
    "%b %d, %Y %I:%M %p %z",
    "%b %d, %Y %H:%M:%S %z",
    "%b %d, %Y %z",
    "%B %d, %Y %I:%M:%S %p %z",
    "%B %d, %Y %H:%M:%S %z",
    "%B %d, %Y %z",
    "%m/%d/%Y %I:%M:%S %p %z",
    "%m/%d/%Y %H:%M:%S %z",
    "%m/%d/%Y %H:%M %z",
    "%m/%d/%Y %z",
    "%Y%m%d%H%M%S %z",
    "%Y%m%d %z",
)
_ZONE = re.compile(
    r"\s*(Z|UTC|GMT|(?:UTC|GMT)?[+-]\d{2}:?\d{2})(?:\s*\([A-Za-z ]+\))?(?=\s\d{4}$|$)"
)


def date_text_us(text: str) -> int | None:
    """The µs since 1970 (UTC) of a date or moment, or None where `text` is none that is known.

    A moment without a zone is UTC; of 10/11/2024 the month comes first. What lies below a microsecond
    is dropped.

    >>> date_text_us("2022-02-24") == date_text_us("Feb 24, 2022") == date_text_us("1645660800")
    True
    >>> date_text_us("May 8, 2009 5:57:51 PM"), date_text_us("1970-01-01T01:00:00.5+01:00")
    (1241805471000000, 500000)
    >>> date_text_us("0001-01-01T00:00:00Z"), date_text_us("tomorrow")
    (-62135596800000000, None)
    """
    text = text.strip()
    if not text or len(text) > MAX_LENGTH:
        return None
    if text.isascii() and text.isdigit() and len(text) in (*_NUMBER_UNITS, 19):
        number = int(text)
        return number * _NUMBER_UNITS[len(text)] if len(text) < 19 else number // 1_000
    try:
        found = _ISO.fullmatch(text)
        return _iso_us(found) if found else _other_us(text)
    except (ValueError, OverflowError):
        return None


def _iso_us(found: re.Match[str]) -> int:
    year, month, day, hour, minute, second, fraction, _, offset = found.groups()
    local = datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), 0, UTC
    )
    return to_us(local) + int((fraction or "").ljust(6, "0")[:6]) - _offset_us(offset)


def _offset_us(offset: str | None) -> int:
    if offset is None:
        return 0
    digits = offset[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        raise ValueError
    return (-1 if offset[0] == "-" else 1) * (hours * 60 + minutes) * 60_000_000


def _other_us(text: str) -> int | None:
    zoned, zones = _ZONE.subn(lambda zone: f" {_numeric(zone[1])}", text)
    if not zones:
        zoned = f"{text} +0000"
    for form in _FORMATS:
        try:
            moment = datetime.strptime(zoned, form)
        except ValueError:
            continue
        return (moment.replace(tzinfo=None) - datetime(1970, 1, 1)) // timedelta(microseconds=1) - (
            _offset_us(moment.strftime("%z"))
        )
    return None


def _numeric(zone: str) -> str:
    return zone[-6:].lstrip("GMTUC") if zone[-1].isdigit() else "+0000"
