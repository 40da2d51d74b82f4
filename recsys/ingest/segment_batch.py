"""A body of Segment's tracking API to checked events, items, lists, merges, and what is left over.

A message that cannot be read keeps none of the others back: it is rejected by itself.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from recsys.errors import AccessError, InputError
from recsys.events.fields import Event
from recsys.ingest.ecommerce_events import EventNames, ListView
from recsys.ingest.event_body import check_posted, checked_id
from recsys.ingest.item_body import Item, check_item
from recsys.ingest.raw_rows import Rejection, raw_text
from recsys.ingest.segment_messages import Arrival, Merge, Message, read_message
from recsys.ingest.user_body import UserAttributes, check_user
from recsys.text_rules import MAX_TYPE_LENGTH

MAX_MESSAGES = 2_500  # of one batch
MAX_MESSAGE_BYTES = 32_768
_FIRST = ("type", "event", "messageId", "userId", "anonymousId", "timestamp", "previousId")
ITEM_LEFT_OUT = "item metadata that is none"


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends, and what of it is believed."""

    from_page: bool = False  # with a key that anyone can read
    page_identify: bool = False  # segment.page_identify


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of items that was shown to someone."""

    impression_id: str
    user_id: str | None
    session_id: str | None
    timestamp_us: int
    item_ids: tuple[str, ...]
    scenario: str | None
    recommendation_id: str | None


@dataclass
class TrackedBatch:
    """What the messages of one request mean, checked."""

    messages: list[object]
    from_page: bool
    events: list[tuple[int, Event]] = field(default_factory=list)  # with their messages' index
    items: list[Item] = field(default_factory=list)  # each id once
    lists: list[tuple[int, Listing]] = field(default_factory=list)
    merges: list[tuple[int, Merge]] = field(default_factory=list)
    traits: list[tuple[int, UserAttributes]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # by the name of what maps to nothing
    rejections: list[Rejection] = field(default_factory=list)
    rejected_rows: int = 0  # a message may hold several

    def raw(self, index: int) -> str:
        """A message as the quarantine keeps it."""
        message = self.messages[index]
        if isinstance(message, Mapping):
            return raw_text(message, _FIRST)
        return raw_text(orjson.dumps(message).decode())


def read_batch(
    body: object, received_us: int, names: EventNames, sender: Sender, kind: str = ""
) -> TrackedBatch:
    """What `body` means: one message where `kind` names its type, else those of its `batch`.

    Raises InputError where it is no body of that kind, AccessError where a page tells of several
    sessions.
    """
    if not isinstance(body, Mapping):
        raise InputError("body", body, "expected a JSON object")
    messages: object = [body] if kind else body.get("batch")
    if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_MESSAGES:
        value = len(messages) if isinstance(messages, list) else messages
        raise InputError("batch", value, f"expected a list of 1 to {MAX_MESSAGES:,} messages")
    context = body.get("context")
    around = dict(context) if not kind and isinstance(context, Mapping) else {}
    arrival = Arrival(received_us, body.get("sentAt"), around)
    if sender.from_page:
        _check_page(messages)
    found = TrackedBatch(messages, sender.from_page)
    known: set[str] = set()
    for index, raw in enumerate(messages):
        try:
            _check_size(raw)
            message = _read(raw, arrival, names, sender, kind)
            listing = None if message.shown is None else _listing(message, message.shown, sender)
            traits = None if message.traits is None else check_user(message.user_id, message.traits)
        except InputError as error:
            found.rejections.append(Rejection(index, str(error), found.raw(index)))
            found.rejected_rows += 1
            continue
        problem = None
        for row in message.events:
            try:
                found.events.append((index, check_posted(row, received_us, sender.from_page)))
            except InputError as error:
                problem = problem or str(error)
                found.rejected_rows += 1
        if problem is not None:
            found.rejections.append(Rejection(index, problem, found.raw(index)))
        if listing is not None:
            found.lists.append((index, listing))
        if message.merge is not None:
            found.merges.append((index, message.merge))
        if traits is not None:
            found.traits.append((index, traits))
        if message.left_out is not None:
            found.left_out[message.left_out] += 1
        if not sender.from_page:  # whose catalogue would then be anyone's to write
            _add_items(found, message, known)
    return found


def _read(raw: object, arrival: Arrival, names: EventNames, sender: Sender, kind: str) -> Message:
    """`read_message`; a page is believed nothing but its own session."""
    if not sender.from_page or not isinstance(raw, Mapping):
        return read_message(raw, arrival, names, kind)
    if raw.get("anonymousId") in (None, ""):
        raise InputError("anonymousId", raw.get("anonymousId"), "expected the page's own session")
    given = kind or raw.get("type")
    if given == "identify" and sender.page_identify:
        return read_message({**raw, "traits": None}, arrival, names, kind)
    if given == "alias":
        owned = {**raw, "userId": None}
        return replace(read_message(owned, arrival, names, "identify"), left_out="alias")
    return read_message({**raw, "userId": None}, arrival, names, kind)


def _check_page(messages: Sequence[object]) -> None:
    """Raises AccessError unless a page tells of one session."""
    sessions = {repr(raw.get("anonymousId")) for raw in messages if isinstance(raw, Mapping)}
    if len(sessions) > 1:
        raise AccessError("a page sends messages of one anonymousId")


def _check_size(raw: object) -> None:
    size = len(orjson.dumps(raw))
    if size > MAX_MESSAGE_BYTES:
        raise InputError("message", f"{size:,} bytes", f"expected at most {MAX_MESSAGE_BYTES:,}")


def _listing(message: Message, shown: ListView, sender: Sender) -> Listing:
    """The list that a message shows. Its id comes from the message's, so that a retry counts once."""
    item_ids: dict[str, None] = {}
    for place, given in enumerate(shown.item_ids):
        field_name = f"properties.products[{place}].product_id"
        item_id = checked_id(field_name, given)
        if item_id is None:
            raise InputError(field_name, given, "expected the id of an item")
        item_ids[item_id] = None
    name = message.message_id or secrets.token_urlsafe(16)
    owner = f"{message.user_id}\x1f{message.session_id}\x1f{sender.from_page}\x1f{name}"
    scenario = None
    if not sender.from_page:  # reports are by scenario, and a page could make up any number
        scenario = checked_id("properties.list_id", shown.list_id, MAX_TYPE_LENGTH)
    return Listing(
        impression_id=f"segment-{hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()}",
        user_id=message.user_id,
        session_id=message.session_id,
        timestamp_us=message.timestamp_us,
        item_ids=tuple(item_ids),
        scenario=scenario,
        recommendation_id=checked_id("properties.recommendation_id", shown.recommendation_id),
    )


def _add_items(found: TrackedBatch, message: Message, known: set[str]) -> None:
    for row in message.items:
        try:
            item = check_item(row)
        except InputError:  # the event counts all the same
            found.left_out[ITEM_LEFT_OUT] += 1
            continue
        if item.item_id not in known:
            known.add(item.item_id)
            found.items.append(item)
