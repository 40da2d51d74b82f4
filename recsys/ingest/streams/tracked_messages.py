"""Messages of Segment's tracking API in a stream, gathered so that a batch of them is stored together.

They are known by their shape, which no event of POST /events has, and mean what they mean to POST /v1/batch
with a key of scope `write`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recsys.errors import InputError
from recsys.ingest.ecommerce_events import EventNames
from recsys.ingest.segment_batch import (
    ITEM_LEFT_OUT,
    MAX_MESSAGES,
    Sender,
    TrackedBatch,
    read_batch,
)
from recsys.ingest.segment_messages import TYPES
from recsys.ingest.streams.broker import Message

_OWN_FIELDS = ("messageId", "userId", "anonymousId")


@dataclass
class TrackedMessages:
    """What tracked messages mean together; a message of the stream may hold several."""

    batch: TrackedBatch = field(default_factory=lambda: TrackedBatch([], from_page=False))
    sources: list[Message] = field(default_factory=list)  # by the index of a tracked message
    without_event: list[int] = field(default_factory=list)  # those that join, describe or list
    _known: set[str] = field(default_factory=set)  # items of the batch, each of which is there once

    def add(self, one: TrackedBatch, source: Message) -> None:
        """The meaning of one more tracked message, which may be nothing but its name."""
        index = len(self.sources)
        self.sources.append(source)
        self.batch.messages.append(one.messages[0])
        self.batch.events += [(index, event) for _, event in one.events]
        self.batch.items += [item for item in one.items if item.item_id not in self._known]
        self._known.update(item.item_id for item in one.items)
        self.batch.lists += [(index, listing) for _, listing in one.lists]
        self.batch.merges += [(index, merge) for _, merge in one.merges]
        self.batch.traits += [(index, traits) for _, traits in one.traits]
        self.batch.left_out += one.left_out
        if not one.events and not one.rejections and not unmapped(one):
            self.without_event.append(index)


def is_tracked(row: object) -> bool:
    """Whether `row` is a tracked message or a batch of them, and no event.

    >>> is_tracked({"type": "page", "anonymousId": "a"}), is_tracked({"batch": []})
    (True, True)
    >>> is_tracked({"type": "page", "user_id": "u"}), is_tracked({"item_id": "i", "batch": []})
    (False, False)
    """
    if not isinstance(row, Mapping) or "item_id" in row:
        return False
    kind = row.get("type")
    known = isinstance(kind, str) and kind in TYPES
    return isinstance(row.get("batch"), list) or (known and any(one in row for one in _OWN_FIELDS))


def read_tracked(
    body: Mapping[str, object], received_us: int, name: str, names: EventNames
) -> list[TrackedBatch]:
    """What each tracked message of `body` means, by itself.

    `name`: of what has no messageId, so that it is the same when it is read again. Raises InputError where
    a batch has too many messages, or none.
    """
    members = body.get("batch")
    if not isinstance(members, list):
        return [_read(body, {}, received_us, name, names)]
    if not 1 <= len(members) <= MAX_MESSAGES:
        expected = f"expected a list of 1 to {MAX_MESSAGES:,} messages"
        raise InputError("batch", len(members), expected)
    return [
        _read(one, body, received_us, f"{name}#{number}", names)
        for number, one in enumerate(members)
    ]


def unmapped(one: TrackedBatch) -> int:
    """How many of its messages map to nothing."""
    return one.left_out.total() - one.left_out[ITEM_LEFT_OUT]


def _read(
    message: object, around: Mapping[str, object], received_us: int, name: str, names: EventNames
) -> TrackedBatch:
    if isinstance(message, Mapping) and message.get("messageId") in (None, ""):
        message = {**message, "messageId": name}
    return read_batch({**around, "batch": [message]}, received_us, names, Sender())
