"""One message of Segment's tracking API, which RudderStack speaks too, to what it means here.

Whose it is (`userId` and `anonymousId` are a user and a session), when it happened by a clock that may be
wrong, which events it holds, whom it joins, and what it tells of a user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from recsys.errors import InputError, unknown
from recsys.events.fields import EARLIEST_US
from recsys.events.times import rfc3339, to_us
from recsys.ingest.ecommerce_events import EventNames, EventRow, ItemRow, ListView
from recsys.ingest.event_body import checked_id, rfc3339_us
from recsys.ingest.row_owners import OwnerColumns

TYPES = ("track", "page", "screen", "identify", "group", "alias")
OWNERS = OwnerColumns("userId", "anonymousId")
LATEST_US = 253_402_300_799_000_000  # the end of the year 9999
MAX_NAME = 100  # characters of a name that maps to nothing


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a message came: what stands around it in a batch, and when."""

    received_us: int
    sent_at: object = None  # of the batch, by the sender's clock
    context: Mapping[str, object] = field(default_factory=dict)  # of the batch


@dataclass(frozen=True, slots=True)
class Merge:
    """Whose events count as a user's from now on."""

    user_id: str
    others: tuple[str, ...]  # 'u:<user_id>', 's:<session_id>'


@dataclass(frozen=True, slots=True)
class Message:
    """What one message means here."""

    user_id: str | None
    session_id: str | None
    timestamp_us: int
    message_id: str | None
    events: tuple[EventRow, ...] = ()  # as POST /events takes them
    items: tuple[ItemRow, ...] = ()  # as PUT /items takes them
    shown: ListView | None = None
    merge: Merge | None = None
    traits: Mapping[str, object] | None = None  # of the user `user_id`
    left_out: str | None = None  # the name of what maps to nothing


def read_message(raw: object, arrival: Arrival, names: EventNames, kind: str = "") -> Message:
    """What the JSON object `raw` means. `kind`: its type, where the address names it.

    Raises InputError naming the first field that is missing or not acceptable. Fields that are not
    known are left alone, as the clients of the field send many.

    >>> raw = {"type": "track", "event": "Product Viewed", "userId": 7, "messageId": "m1",
    ...        "timestamp": "2024-05-01T12:00:00Z", "properties": {"product_id": "tea"}}
    >>> found = read_message(raw, Arrival(1714564801000000), EventNames())
    >>> found.events[0]["item_id"], found.events[0]["timestamp"], found.events[0]["event_id"]
    ('tea', '2024-05-01T12:00:00.000000Z', 'm1')
    """
    if not isinstance(raw, Mapping):
        raise InputError("message", raw, "expected a JSON object")
    given = kind or raw.get("type")
    if not isinstance(given, str) or given not in TYPES:
        raise unknown("type", str(given), "a type of message", TYPES)
    user_id = _id("userId", raw)
    session_id = _id("anonymousId", raw)
    if user_id is None and session_id is None and given != "alias":
        raise InputError("userId", None, "userId and anonymousId are both missing")
    message = Message(
        user_id=user_id,
        session_id=session_id,
        timestamp_us=happened_us(raw, arrival),
        message_id=_id("messageId", raw),
    )
    if given == "track":
        return _tracked(raw, arrival, names, message)
    if given == "identify":
        return _identified(raw, message)
    if given == "alias":
        return _aliased(raw, message)
    return replace(message, left_out=given)


def happened_us(raw: Mapping[str, object], arrival: Arrival) -> int:
    """When a message's event happened: receivedAt - (sentAt - originalTimestamp), in us.

    The sender's clock may be wrong, and is so by the same amount in both of its times; `timestamp` where
    there is no originalTimestamp. A time that the caller set, such as one of history, is thereby moved by
    that amount alone. Raises InputError.

    >>> hour_late = {"timestamp": "2024-05-01T11:00:00Z", "sentAt": "2024-05-01T11:00:05Z"}
    >>> rfc3339(happened_us(hour_late, Arrival(rfc3339_us("2024-05-01T12:00:06Z"))))
    '2024-05-01T12:00:01.000000Z'
    """
    received_us = time_us("receivedAt", raw.get("receivedAt"))
    if received_us is None:
        received_us = arrival.received_us
    told_us = time_us("originalTimestamp", raw.get("originalTimestamp"))
    if told_us is None:
        told_us = time_us("timestamp", raw.get("timestamp"))
    sent_at = raw.get("sentAt")
    sent_us = time_us("sentAt", arrival.sent_at if sent_at is None else sent_at)
    if told_us is None:
        return received_us
    found = told_us if sent_us is None else received_us - (sent_us - told_us)
    if not EARLIEST_US <= found <= LATEST_US:
        raise InputError("timestamp", raw.get("timestamp"), "expected a time since 1970")
    return found


def _tracked(
    raw: Mapping[str, object], arrival: Arrival, names: EventNames, message: Message
) -> Message:
    name = raw.get("event")
    if not isinstance(name, str) or not name.strip():
        raise InputError("event", name, "expected the name of an event")
    context = raw.get("context")
    if arrival.context:
        own = context if isinstance(context, Mapping) else {}
        raw = {**raw, "context": {**arrival.context, **own}}
    found = names.read(name, raw)
    if found is None:
        return replace(message, left_out=" ".join(name.split())[:MAX_NAME])
    owner: EventRow = {"timestamp": rfc3339(message.timestamp_us)}
    if message.user_id is not None:
        owner["user_id"] = message.user_id
    if message.session_id is not None:
        owner["session_id"] = message.session_id
    events = []
    for place, row in enumerate(found.events, 1):
        if message.message_id is not None:
            number = f"#{place}" if found.numbered else ""
            row = {**row, "event_id": f"{message.message_id}{number}"}
        events.append({**row, **owner})
    return replace(message, events=tuple(events), items=found.items, shown=found.shown)


def _identified(raw: Mapping[str, object], message: Message) -> Message:
    """Both ids join the session to the user; traits are the user's."""
    traits = raw.get("traits")
    if traits is not None and not isinstance(traits, Mapping):
        raise InputError("traits", traits, "expected a JSON object")
    user_id, session_id = message.user_id, message.session_id
    if user_id is None or (session_id is None and not traits):
        return replace(message, left_out="identify")
    merge = None if session_id is None else Merge(user_id, (f"s:{session_id}",))
    return replace(message, merge=merge, traits=traits or None)


def _aliased(raw: Mapping[str, object], message: Message) -> Message:
    """The previous id, which may have been a user's or a session's, is the user's."""
    previous = _id("previousId", raw)
    if previous is None:
        raise InputError("previousId", raw.get("previousId"), "expected the id to be merged")
    if message.user_id is None:
        raise InputError("userId", raw.get("userId"), "expected the id to merge into")
    if previous == message.user_id:
        return replace(message, left_out="alias")
    return replace(message, merge=Merge(message.user_id, (f"s:{previous}", f"u:{previous}")))


def _id(name: str, raw: Mapping[str, object]) -> str | None:
    value = raw.get(name)
    return None if value == "" else checked_id(name, value)


def time_us(name: str, value: object) -> int | None:
    """us since 1970 of ISO 8601 text or a moment (UTC where it names no offset), or epoch milliseconds.

    None where there is none. Raises InputError, of the field `name`.
    """
    if value is None or value == "":
        return None
    if isinstance(value, datetime):  # as Parquet has it
        return to_us(value if value.tzinfo is not None else value.replace(tzinfo=UTC))
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
        return value * 1_000
    if isinstance(value, str):
        found = rfc3339_us(value)
        if found is None:
            found = rfc3339_us(f"{value}Z")
        if found is not None:
            return found
    raise InputError(name, value, "expected ISO 8601, such as 2024-05-01T12:00:00.000Z")
