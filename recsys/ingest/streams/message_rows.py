"""Messages -> events, and rows that are none with their reason.

A message is an object as POST /events takes it, a message or batch of Segment's tracking API, a list of
either, or anything that a column map reads. An event without an id gets its message's, and one without a
time the broker's: read again, a message gives the same events.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import orjson

from recsys.errors import InputError, shown
from recsys.events.fields import EVENT_COLUMNS, Event
from recsys.ingest.byte_stream import MAX_ROW_BYTES
from recsys.ingest.ecommerce_events import EventNames
from recsys.ingest.event_body import check_posted
from recsys.ingest.event_parser import EventParser
from recsys.ingest.json_keys import repeated_key, repeats_a_key
from recsys.ingest.json_lines import chunk_of
from recsys.ingest.json_paths import lists_of, taken_apart
from recsys.ingest.layouts import ReadOptions
from recsys.ingest.raw_rows import Rejection, Row, raw_text
from recsys.ingest.row_conditions import Condition
from recsys.ingest.row_owners import OwnerColumns
from recsys.ingest.segment_batch import TrackedBatch
from recsys.ingest.segment_messages import OWNERS as TRACKED_OWNERS
from recsys.ingest.streams.broker import Message, Partition
from recsys.ingest.streams.tracked_messages import (
    TrackedMessages,
    is_tracked,
    read_tracked,
    unmapped,
)
from recsys.text_rules import MAX_ID_LENGTH, text_problem

MAX_ROWS = 10_000  # of one message, as of one POST /events
MESSAGE_TIME = "@message_time"  # the column in which rows get the broker's time
OWN_OWNERS = OwnerColumns("user_id", "session_id")
# Fields that may be something else than text, in a Redis entry.
_NO_TEXTS = ("timestamp", "value", "properties", "traits", "context")


@dataclass(frozen=True)
class _RawRow:
    """One row of a message, as it was sent."""

    message: Message
    row: object
    index: int | None = None  # its place, where the message holds several


@dataclass
class ParsedMessages:
    """What became of each row of some messages.

    read = events + rejections + left out + tracked.batch.events + tracked.without_event
    """

    events: list[tuple[Partition, Event]] = field(default_factory=list)
    tracked: TrackedMessages = field(default_factory=TrackedMessages)
    # By partition, and by where the rejected rows name their owners.
    rejections: defaultdict[tuple[Partition, OwnerColumns], list[Rejection]] = field(
        default_factory=lambda: defaultdict(list)
    )
    read: Counter[Partition] = field(default_factory=Counter)
    left_out: Counter[Partition] = field(
        default_factory=Counter
    )  # by --where, or lists without a member
    notes: Counter[str] = field(default_factory=Counter)  # what was read otherwise than written

    def reject(
        self, message: Message, reason: str, raw: str, owners: OwnerColumns = OWN_OWNERS
    ) -> None:
        """A row more that is no event."""
        self.read[message.partition] += 1
        self.rejections[message.partition, owners].append(rejection(message, reason, raw))

    def track(self, message: Message, one: TrackedBatch) -> None:
        """A tracked message more; it counts once where it holds no event."""
        for rejected in one.rejections:
            self.reject(message, rejected.reason, rejected.raw, TRACKED_OWNERS)
        before = len(self.tracked.without_event)
        self.tracked.add(one, message)
        without_event = len(self.tracked.without_event) - before
        self.read[message.partition] += len(one.events) + unmapped(one) + without_event
        self.left_out[message.partition] += unmapped(one)


def rejection(message: Message, reason: str, raw: str) -> Rejection:
    """What goes to the quarantine of a message."""
    if str(message.place) != message.offset:
        reason = f"{reason} (entry {message.offset})"
    return Rejection(message.place, reason, raw)


class MessageParser:
    """Messages of streams by one set of options. Raises InputError where those cannot be."""

    def __init__(self, options: ReadOptions | None = None, names: EventNames | None = None) -> None:
        """`options`: how rows are read that are not as POST /events takes them; of tracked messages,
        `names` are those of events.
        """
        self._options, self._names = options, names or EventNames()
        if options is None:
            return
        columns = options.columns
        if columns.item is None or (columns.user is None and columns.session is None):
            raise InputError(
                "--map", None, "say which field is the item, and which the user or session"
            )
        if columns.timestamp is None:
            if options.unit or options.time_format or options.timezone:
                raise InputError(
                    "--map", None, "say which field is the timestamp that is described"
                )
            columns = replace(columns, timestamp=MESSAGE_TIME)
            self._options = replace(options, columns=columns, unit="us")
        named = [
            *columns.mapped().values(),
            *(Condition.parse(one).column for one in options.where),
        ]
        self._lists = lists_of(list(dict.fromkeys(named)))
        self._owners = OwnerColumns(columns.user, columns.session)
        within = tuple(f"{one}[]" for one in self._lists[-1:])
        # An id outside the list, such as an order's, is one of all its members.
        self._numbered = bool(within) and not (columns.event_id or "").startswith(within)
        self._parser(0)  # refuses what cannot be

    def parse(self, messages: Sequence[Message], now_us: int) -> ParsedMessages:
        """What `messages` hold; `now_us` is the time now, after which no event may lie far."""
        found = ParsedMessages()
        rows = [row for message in messages for row in _rows_of(message, found)]
        if self._options is None:
            for row in rows:
                self._read(row, found, now_us)
        else:
            self._map(rows, found, now_us)
        return found

    def _read(self, raw: _RawRow, found: ParsedMessages, now_us: int) -> None:
        """A row as its shape says."""
        if isinstance(raw.row, dict) and isinstance(raw.message.value, Mapping):
            raw = replace(raw, row=_typed(raw.row))
        if is_tracked(raw.row):
            self._track(raw, found, now_us)
        else:
            self._check(raw, found, now_us)

    def _track(self, raw: _RawRow, found: ParsedMessages, now_us: int) -> None:
        """A row as POST /v1/batch takes it."""
        row, message = raw.row, raw.message
        assert isinstance(row, dict)
        try:
            tracked = read_tracked(row, _time_of(message, now_us), _name_of(raw), self._names)
        except InputError as error:
            found.reject(message, str(error), raw_text(row), TRACKED_OWNERS)
            return
        for one in tracked:
            found.track(message, one)

    def _check(self, raw: _RawRow, found: ParsedMessages, now_us: int) -> None:
        """A row as POST /events takes it."""
        row = raw.row
        try:
            if isinstance(row, dict) and row.get("timestamp") is None:
                row = {**row, "timestamp": _time_of(raw.message, now_us) // 1_000}
            event = check_posted(row, now_us, page=False)  # type: ignore[arg-type]
        except InputError as error:
            kept = row if isinstance(row, dict) else orjson.dumps(row).decode()
            found.reject(raw.message, str(error), raw_text(kept))
            return
        found.read[raw.message.partition] += 1
        found.events.append((raw.message.partition, _with_id(event, raw)))

    def _map(self, raws: Sequence[_RawRow], found: ParsedMessages, now_us: int) -> None:
        """Rows by the column map."""
        parser, owners = self._parser(now_us), self._owners
        flat: list[Row] = []
        sources: list[_RawRow] = []
        for raw in raws:
            if not isinstance(raw.row, dict):
                text = raw_text(orjson.dumps(raw.row).decode())
                found.reject(raw.message, f"{shown(raw.row)}: expected a JSON object", text, owners)
                continue
            row = raw.row
            if MESSAGE_TIME in parser.needed:
                row = {**row, MESSAGE_TIME: _time_of(raw.message, now_us)}
            try:
                members = taken_apart(row, parser.needed, self._lists) if self._lists else [row]
            except InputError as error:
                found.reject(raw.message, str(error), raw_text(row, parser.needed), owners)
                continue
            found.read[raw.message.partition] += len(members) or 1
            found.left_out[raw.message.partition] += not members
            start = (raw.index or 0) * MAX_ROWS
            several = raw.index is not None or bool(self._lists)
            flat += members
            sources += [
                replace(raw, index=start + number if several else None)
                for number in range(len(members))
            ]
        if not flat:
            return
        chunk = parser.parse(chunk_of(flat, np.arange(len(flat)), [], parser.needed, 0))
        found.notes += chunk.notes
        skipped = set(range(len(flat)))
        for row in chunk.events.to_pylist():
            place = row.pop("position")
            skipped.discard(place)
            event = Event(**{name: row[name] for name in EVENT_COLUMNS})
            with_id = _with_id(event, sources[place], self._numbered)
            found.events.append((sources[place].message.partition, with_id))
        for one in chunk.rejections:
            skipped.discard(one.position)
            message = sources[one.position].message
            found.read[message.partition] -= 1  # it was counted with its message
            found.reject(message, one.reason, one.raw, owners)
        found.left_out.update(sources[place].message.partition for place in skipped)

    def _parser(self, now_us: int) -> EventParser:
        """A parser that judges each row alone: a stream has no first chunk to conclude from."""
        assert self._options is not None
        return EventParser([], self._options, None, now_us, replay=True)


def _rows_of(message: Message, found: ParsedMessages) -> list[_RawRow]:
    """The rows of a message, none where it cannot be read."""
    value = message.value
    if isinstance(value, Mapping):
        if len(value) != 1:
            texts = {name: text.decode(errors="backslashreplace") for name, text in value.items()}
            return [_RawRow(message, dict(texts))]
        (value,) = value.values()
    text = value[:4_096].decode(errors="backslashreplace")
    if len(value) > MAX_ROW_BYTES:
        reason = f"the message is longer than {MAX_ROW_BYTES:,} bytes: {shown(text)}"
        found.reject(message, reason, raw_text(text))
        return []
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        reason = (
            "the message is empty" if not value else f"not JSON: {str(error)[:100]}: {shown(text)}"
        )
        found.reject(message, reason, raw_text(text))
        return []
    if repeats_a_key(value, [parsed]):
        found.reject(message, f"{repeated_key(value)}: {shown(text)}", raw_text(text))
        return []
    if not isinstance(parsed, list):
        return [_RawRow(message, parsed)]
    if not 1 <= len(parsed) <= MAX_ROWS:
        reason = f"expected 1 to {MAX_ROWS:,} events, not {len(parsed)}"
        found.reject(message, reason, raw_text(text))
        return []
    return [_RawRow(message, row, index) for index, row in enumerate(parsed)]


def _typed(row: Row) -> Row:
    """The fields of a Redis entry, which are all text, as JSON would have them."""
    typed = dict(row)
    for name, text in row.items():
        if isinstance(text, str) and name in _NO_TEXTS:
            try:
                typed[name] = orjson.loads(text)
            except orjson.JSONDecodeError:  # such as a time in words
                typed[name] = text
    return typed


def _time_of(message: Message, now_us: int) -> int:
    """When the message was sent; now, where the broker does not say or its clock is ahead."""
    at_us = message.at_us
    return now_us if at_us is None or not 0 < at_us <= now_us else at_us


def _with_id(event: Event, raw: _RawRow, numbered: bool = False) -> Event:
    """`event` with an id; its own, if it has one, is `numbered` where it is that of several rows."""
    if event.event_id is None:
        return replace(event, event_id=_name_of(raw))
    return replace(event, event_id=_numbered(event.event_id, raw)) if numbered else event


def _name_of(raw: _RawRow) -> str:
    """The id of what has none: its message's."""
    message = raw.message
    return _numbered(message.message_id or f"{message.partition}:{message.offset}", raw)


def _numbered(name: str, raw: _RawRow) -> str:
    """The id of a row of what goes by `name`."""
    name += "" if raw.index is None else f"#{raw.index}"
    if text_problem(name, MAX_ID_LENGTH):  # too long, or of characters that no id has
        return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return name
