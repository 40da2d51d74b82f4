"""Parsing of ISO 8601 text, a whole column at a time -> µs since 1970.

Legend: n rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from recsys.events.array_types import BoolArray, Int32Array, Int64Array, UInt8Array
from recsys.events.times import DAY_US
from recsys.ingest.arrow_columns import text_bytes

_NAIVE = datetime(1970, 1, 1)
_AWARE = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
LONGEST = len("2024-05-01T12:00:00.123456789+00:00")
_TAIL = 6  # characters of the longest offset, +00:00


@dataclass(frozen=True)
class IsoTimes:
    """Times parsed from n texts; `us` is 0 and `has_offset` False where `readable` is False."""

    us: Int64Array  # (n,) µs since 1970: in UTC where has_offset, else local
    readable: BoolArray  # (n,)
    has_offset: BoolArray  # (n,)


def parse_iso(texts: pa.Array) -> IsoTimes:
    """Read `YYYY-MM-DD[(T| )HH:MM[:SS[.f]]][offset]`, f of 1 to 9 digits, years 0000 to 9999.

    An offset is Z, ±HH, ±HHMM, ±HH:MM or ' UTC'. A date alone is its midnight and takes none. What
    lies below a microsecond is dropped. Anything else is not readable, null and '' included.

    >>> parse_iso(pa.array(["1970-01-02", "1970-01-01 01:00:00.5+01"])).us.tolist()
    [86400000000, 500000]
    """
    offsets, characters = text_bytes(texts)
    lengths = np.diff(offsets)
    text = _Characters(offsets[:-1], lengths, characters)
    date, date_fine = _date(text)
    day_only = lengths == len("YYYY-MM-DD")
    clock, clock_fine, tail = _clock(text)
    shift, shift_fine, has_offset = _offset(text, tail)
    readable = date_fine & (day_only | (clock_fine & shift_fine)) & (lengths <= LONGEST)
    us = date * DAY_US + np.where(day_only, 0, clock - shift)
    return IsoTimes(
        us=np.where(readable, us, 0),
        readable=readable,
        has_offset=has_offset & readable & ~day_only,
    )


def parse_format(texts: pa.Array, time_format: str) -> IsoTimes:
    """Read `texts` (n,) by `time_format`, as strptime has it; each distinct text once.

    >>> parse_format(pa.array(["02-01-1970 00:00", "31-02-1970 00:00"]), "%d-%m-%Y %H:%M").us.tolist()
    [86400000000, 0]
    """
    encoded = texts.dictionary_encode()
    known: list[tuple[int, bool, bool]] = []
    for text in encoded.dictionary.to_pylist():
        try:
            moment = datetime.strptime(text, time_format)
        except ValueError:
            known.append((0, False, False))
            continue
        aware = moment.tzinfo is not None
        known.append(((moment - (_AWARE if aware else _NAIVE)) // _MICROSECOND, True, aware))
    known.append((0, False, False))  # of null
    places = encoded.indices.fill_null(len(known) - 1).to_numpy()
    us, readable, has_offset = (np.array(column)[places] for column in zip(*known, strict=True))
    return IsoTimes(us.astype(np.int64), readable.astype(np.bool_), has_offset.astype(np.bool_))


class _Characters:
    """The characters of n texts by place: 0 beyond a text's end."""

    def __init__(self, starts: Int32Array, lengths: Int32Array, characters: UInt8Array) -> None:
        self._starts = starts.astype(np.int64)
        self._characters = np.append(characters, np.zeros(LONGEST + _TAIL + 1, np.uint8))
        self.lengths = lengths.astype(np.int64)

    def at(self, place: int | Int64Array) -> UInt8Array:
        # A text too long is refused by its length; its places are only kept within the array.
        place = np.minimum(place, LONGEST + _TAIL)
        return np.where(place < self.lengths, self._characters[self._starts + place], 0)

    def digit(self, place: int | Int64Array) -> tuple[Int64Array, BoolArray]:
        value = self.at(place) - np.uint8(48)  # wraps around below '0'
        return value.astype(np.int64), value <= 9

    def two_digits(self, place: int | Int64Array) -> tuple[Int64Array, BoolArray]:
        tens, tens_fine = self.digit(place)
        ones, ones_fine = self.digit(place + 1)
        return tens * 10 + ones, tens_fine & ones_fine

    def among(self, place: int | Int64Array, allowed: bytes) -> BoolArray:
        character = self.at(place)
        found: BoolArray = character == allowed[0]
        for other in allowed[1:]:
            found |= character == other
        return found


def _date(text: _Characters) -> tuple[Int64Array, BoolArray]:
    """Days since 1970 of the first ten characters, and whether they are a date."""
    century, century_fine = text.two_digits(0)
    years, years_fine = text.two_digits(2)
    month, month_fine = text.two_digits(5)
    day, day_fine = text.two_digits(8)
    year = century * 100 + years
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    days_of = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
    month_days = days_of[np.clip(month, 0, 12)] + (leap & (month == 2))
    fine = century_fine & years_fine & month_fine & day_fine
    fine &= text.among(4, b"-") & text.among(7, b"-")
    fine &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= month_days)
    # Years counted from March put the leap day last: 153 days every five months from there.
    shifted = year - (month <= 2)
    from_march = (month + 9) % 12
    days = 365 * shifted + shifted // 4 - shifted // 100 + shifted // 400
    return days + (153 * from_march + 2) // 5 + day - 1 - 719_468, fine


def _clock(text: _Characters) -> tuple[Int64Array, BoolArray, Int64Array]:
    """µs since midnight, whether there is a time of day, and where it ends."""
    hour, hour_fine = text.two_digits(11)
    minute, minute_fine = text.two_digits(14)
    fine = text.among(10, b"T t") & text.among(13, b":") & hour_fine & minute_fine
    has_seconds = text.among(16, b":")
    second, second_fine = text.two_digits(17)
    second = np.where(has_seconds, second, 0)
    fine &= (second_fine | ~has_seconds) & (hour <= 23) & (minute <= 59) & (second <= 59)
    clock = ((hour * 60 + minute) * 60 + second) * 1_000_000
    end = np.where(has_seconds, 19, 16)
    within = has_seconds & text.among(19, b".")
    if within.any():
        end += within
        fraction = np.zeros(len(clock), np.int64)
        for place, weight in enumerate((100_000, 10_000, 1_000, 100, 10, 1, 0, 0, 0), 20):
            digit, is_digit = text.digit(place)
            within &= is_digit
            fraction += np.where(within, digit * weight, 0)
            end += within
        fine &= end != 20  # a point without digits
        clock += fraction
    return clock, fine, end


def _offset(text: _Characters, start: Int64Array) -> tuple[Int64Array, BoolArray, BoolArray]:
    """µs east of UTC, whether the text may end so, and whether it names an offset at all."""
    length = text.lengths - start
    none = length == 0
    zulu = (length == 1) & text.among(start, b"Zz")
    utc = (length == 4) & text.among(start, b" ")
    for place, letter in enumerate((b"U", b"T", b"C"), 1):
        utc &= text.among(start + place, letter)
    named = none | zulu | utc
    if named.all():
        return np.zeros(len(start), np.int64), named, ~none
    hours, hours_fine = text.two_digits(start + 1)
    colon = text.among(start + 3, b":")
    minutes, minutes_fine = text.two_digits(start + 3 + colon)
    only_hours = length == 3
    minutes = np.where(only_hours, 0, minutes)
    signed = text.among(start, b"+-") & hours_fine & (hours <= 23) & (minutes <= 59)
    signed &= only_hours | (minutes_fine & (length == 5 + colon))
    sign = np.where(text.among(start, b"-"), -1, 1)
    shift = np.where(signed, sign * (hours * 60 + minutes) * 60_000_000, 0)
    return shift, named | signed, ~none
