"""Gorse's exports: its dump (`/api/dump`), and JSON Lines of users, items and feedback (`/api/bulk`).

A dump is sections of records. Each begins with a number below 0 that says what its records are, a record
with its length, and 0 is the end: 64 bits each, the lowest byte first. A record is a message of Protocol
Buffers; what is read of one is turned into the JSON object that Gorse's REST would give, so that both
kinds of file are read in one way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa

from recsys.errors import InputError
from recsys.events.fields import EVENT_COLUMNS, MAX_FUTURE_SECONDS, POSITIONED_SCHEMA, Event
from recsys.events.times import EPOCH, SECOND_US, to_us
from recsys.ingest.byte_stream import BLOCK_BYTES, MAX_ROW_BYTES, TextStream
from recsys.ingest.event_parser import EventChunk
from recsys.ingest.gorse_objects import (
    ZERO_US,
    GorseItem,
    feedback_event,
    fields_of,
    gorse_item,
    gorse_time,
    gorse_user,
    put_id,
)
from recsys.ingest.json_lines import JsonLines
from recsys.ingest.layouts import ReadOptions
from recsys.ingest.raw_rows import Rejection, raw_text
from recsys.ingest.user_body import UserAttributes, check_user

FORMAT = "gorse"
LAST_US = to_us(EPOCH.replace(year=9999))
Kind = Literal["user", "item", "feedback"]
_SECTIONS: dict[int, Kind] = {-1: "user", -2: "item", -3: "feedback"}
_STARTS = {struct.pack("<q", number) for number in (*_SECTIONS, 0)}
# Of each message: field number -> name in JSON. Labels hold JSON text, those of _TIMES a Timestamp.
_FIELDS: dict[Kind, dict[int, str]] = {
    "user": {1: "UserId", 2: "Labels", 3: "Comment"},
    "item": {
        **{2: "ItemId", 3: "IsHidden", 4: "Categories", 5: "Timestamp"},
        **{6: "Labels", 7: "Comment"},
    },
    "feedback": {
        **{2: "FeedbackType", 3: "UserId", 4: "ItemId", 5: "Value", 6: "Timestamp"},
        **{7: "Comment", 8: "Updated", 9: "Labels"},
    },
}
_TIMES = ("Timestamp", "Updated")
_IDS: dict[str, Kind] = {"feedbacktype": "feedback", "itemid": "item", "userid": "user"}


@dataclass(frozen=True)
class GorseRows:
    """Some rows of an export, sorted by what they are."""

    users: list[UserAttributes]
    items: list[GorseItem]
    events: list[tuple[int, Event]]  # with their positions in the file
    rejections: list[Rejection]  # of users and items
    rejected_events: list[Rejection]  # and of rows that are nothing
    bytes_read: int


def read_gorse_events(
    path: str | Path, options: ReadOptions, now_us: int, rows: int
) -> Iterator[EventChunk]:
    """The feedback of an export as events; its users and items are left to `read_gorse`.

    Raises InputError where the file cannot be opened, is cut off or damaged, or `options` say how
    columns are read.
    """
    for option, given in (("--map", options.columns.mapped()), ("--where", options.where)):
        if given:
            raise InputError(option, "…", f"is not taken with --format {FORMAT}")
    return map(_chunk, read_gorse(path, now_us, rows))


def _chunk(found: GorseRows) -> EventChunk:
    columns = [
        pa.array(
            [getattr(event, name) for _, event in found.events], POSITIONED_SCHEMA.field(name).type
        )
        for name in EVENT_COLUMNS
    ]
    places = pa.array([place for place, _ in found.events], pa.int64())
    events = pa.Table.from_arrays([*columns, places], schema=POSITIONED_SCHEMA)
    read = len(found.events) + len(found.rejected_events)
    return EventChunk(events, found.rejected_events, 0, read, found.bytes_read)


def read_gorse(path: str | Path, now_us: int, rows: int = 10_000) -> Iterator[GorseRows]:
    """The rows of an export, some at a time. Raises InputError."""
    stream = TextStream(path, "utf-8")  # bytes as they are
    if stream.peek()[:8] in _STARTS:
        return _of_dump(_Bytes(stream), now_us, rows)
    return _of_lines(JsonLines(path, rows), now_us)


def _of_lines(source: JsonLines, now_us: int) -> Iterator[GorseRows]:
    for raw in source.chunks([]):
        places = raw.positions.tolist()
        given = zip(places, raw.source_rows(np.arange(len(places))), strict=True)
        found = _sorted([(place, None, row) for place, row in given], now_us)
        refused = sorted([*raw.rejections, *found.rejected_events], key=lambda one: one.position)
        yield replace(found, rejected_events=refused, bytes_read=raw.bytes_read)


def _of_dump(stream: _Bytes, now_us: int, rows: int) -> Iterator[GorseRows]:
    kind: Kind | None = None
    given: list[tuple[int, Kind | None, Mapping[str, Any]]] = []
    place = 0
    while number := stream.number():
        if number < 0:
            kind = _SECTIONS.get(number)
            if kind is None:
                raise stream.damaged(f"a section of kind {number}, which is not known")
            continue
        if kind is None or number > MAX_ROW_BYTES:
            raise stream.damaged(
                f"a record of {number:,} bytes; expected at most {MAX_ROW_BYTES:,}"
            )
        try:
            given.append((place, kind, _message(kind, stream.take(number))))
        except (ValueError, IndexError, struct.error):
            raise stream.damaged(f"record {place} cannot be read") from None
        place += 1
        if len(given) >= rows:
            yield replace(_sorted(given, now_us), bytes_read=stream.bytes_consumed())
            given = []
    yield replace(_sorted(given, now_us), bytes_read=stream.bytes_consumed())


def _sorted(given: list[tuple[int, Kind | None, Mapping[str, Any]]], now_us: int) -> GorseRows:
    found = GorseRows([], [], [], [], [], 0)
    for place, known, row in given:
        kind = known
        try:
            if kind is None:
                kind = _kind_of(row)
            if kind == "user":
                found.users.append(check_user(*gorse_user(row)))
            elif kind == "item":
                found.items.append(gorse_item(row))
            else:
                found.events.append((place, _event(row, now_us)))
        except InputError as error:
            refused = found.rejections if kind in ("user", "item") else found.rejected_events
            refused.append(Rejection(place, str(error), raw_text(dict(row), list(row))))
    return found


def _kind_of(row: Mapping[str, Any]) -> Kind:
    """By the first of the ids that a row has."""
    names = fields_of(row, "row")
    kind = next((kind for name, kind in _IDS.items() if name in names), None)
    if kind is None:
        raise InputError("row", "…", "expected a User, Item or Feedback of Gorse")
    return kind


def _event(row: Mapping[str, Any], now_us: int) -> Event:
    """Feedback as an event that is the same each time it is read."""
    named = fields_of(row, "Feedback")
    zero = gorse_time(ZERO_US)
    if named.get("timestamp") in (None, "", zero):
        if named.get("updated") in (None, "", zero):
            raise InputError("Timestamp", named.get("timestamp"), "is missing")
        named = {**named, "timestamp": named["updated"]}
    event = feedback_event(named, now_us)
    if event.timestamp_us > now_us + MAX_FUTURE_SECONDS * SECOND_US:
        problem = f"more than {MAX_FUTURE_SECONDS} s in the future"
        raise InputError("Timestamp", named["timestamp"], problem)
    return replace(event, event_id=put_id(event, None))


class _Bytes:
    """A stream of bytes, taken in pieces of a given length."""

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream
        self._held = b""
        self._at = 0
        self.bytes_consumed = stream.bytes_consumed

    def take(self, size: int) -> bytes:
        """The next `size` bytes. Raises InputError where the file is cut off."""
        while len(self._held) - self._at < size:
            more = self._stream.read(BLOCK_BYTES)
            if not more:
                raise self.damaged("it is cut off")
            self._held, self._at = self._held[self._at :] + more, 0
        taken = self._held[self._at : self._at + size]
        self._at += size
        return taken

    def number(self) -> int:
        (found,) = struct.unpack("<q", self.take(8))
        return int(found)

    def damaged(self, reason: str) -> InputError:
        return InputError("path", str(self._stream.path), f"is no whole dump of Gorse: {reason}")


def _message(kind: Kind, data: bytes) -> dict[str, Any]:
    """The JSON object of a message. Raises ValueError, IndexError or struct.error where it is none.

    >>> _message("user", bytes([0x0A, 1, 0x75, 0x12, 3, 0x5B, 0x31, 0x5D]))
    {'UserId': 'u', 'Labels': [1]}
    """
    found: dict[str, Any] = {}
    for number, value in _fields(data):
        name = _FIELDS[kind].get(number)
        if name is None:
            continue
        if name in _TIMES:
            found[name] = _timestamp(value)
        elif name == "IsHidden":
            found[name] = bool(value)
        elif name == "Value":
            found[name] = value
        elif name == "Labels":
            found[name] = orjson.loads(value) if value else None
        elif name == "Categories":
            found.setdefault(name, []).append(value.decode())
        else:
            found[name] = value.decode()
    return found


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message's fields: an int, a float, or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 1:
            (value,) = struct.unpack_from("<d", data, at)
            at += 8
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError
            value, at = data[at : at + size], at + size
        elif wire == 5:
            (value,) = struct.unpack_from("<f", data, at)
            at += 4
        else:
            raise ValueError
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """
    >>> _varint(bytes([0xAC, 0x02]), 0)
    (300, 2)
    """
    found = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found & (2**64 - 1), at
    raise ValueError


def _timestamp(data: bytes) -> str:
    """A google.protobuf.Timestamp as text."""
    parts = dict(_fields(data))
    seconds, nanos = int(parts.get(1, 0)), int(parts.get(2, 0))
    seconds -= 2**64 if seconds >= 2**63 else 0
    if not ZERO_US <= seconds * SECOND_US < LAST_US or not 0 <= nanos < 10**9:
        raise ValueError
    return gorse_time(seconds * SECOND_US + nanos // 1_000)
