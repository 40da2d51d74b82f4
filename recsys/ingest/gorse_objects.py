"""Gorse's users, items and feedback, as its clients and exports write them -> what is stored here.

Names of fields are matched without regard to case, and those that are not known are left aside, as
Gorse does. What a field of ours cannot say exactly is kept as a property of Gorse's name, so that an
object comes back as it was given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from recsys.errors import InputError
from recsys.events.fields import EARLIEST_US, Event
from recsys.events.times import EPOCH, SECOND_US, from_us, to_us
from recsys.ingest.date_texts import date_text_us
from recsys.ingest.event_body import check_properties, rfc3339_us
from recsys.ingest.item_body import MAX_TITLE_LENGTH, Item, check_item
from recsys.text_rules import MAX_ID_LENGTH, MAX_TYPE_LENGTH, text_problem

ZERO_US = to_us(EPOCH.replace(year=1))  # 0001-01-01, which stands for no time
ADDED, PUT = "gorse:add:", "gorse:put:"  # event ids of feedback: counted on, and anew
Fields = Mapping[str, Any]
_FIELDS = {"title": "Comment", "categories": "Categories", "properties": "Labels"}  # by ours


@dataclass(frozen=True)
class GorseItem:
    """An item as it was given, as far as it was."""

    item: Item
    added_us: int | None  # its Timestamp; None: it has none, or says nothing of it


def fields_of(raw: object, name: str) -> Fields:
    """The fields of a JSON object by their names in lower case; of those that are written twice the last.

    Raises InputError, of `name`, where `raw` is no object.
    """
    if not isinstance(raw, Mapping):
        raise InputError(name, raw, "expected a JSON object")
    return {str(key).lower(): value for key, value in raw.items()}


def feedback_event(raw: object, now_us: int) -> Event:
    """The event of a Feedback; where it has no Timestamp, of `now_us`. Its id is still to be given.

    Raises InputError naming the field.

    >>> event = feedback_event({"FeedbackType": "read", "UserId": "u", "ItemId": "i"}, 7)
    >>> event.event_type, event.timestamp_us, event.value, event.properties
    ('read', 7, None, None)
    """
    given = fields_of(raw, "Feedback")
    time_us = _time("Timestamp", given.get("timestamp"))
    if time_us is not None and time_us < EARLIEST_US:
        raise InputError("Timestamp", given["timestamp"], "expected a time since 1970")
    details = {"labels": _labels(given), "comment": _text("Comment", given.get("comment")) or None}
    kept = {name: value for name, value in details.items() if value is not None}
    return Event(
        user_id=_id("UserId", given.get("userid")),
        session_id=None,
        item_id=_id("ItemId", given.get("itemid")),
        event_type=_id("FeedbackType", given.get("feedbacktype"), MAX_TYPE_LENGTH),
        timestamp_us=now_us if time_us is None else time_us,
        value=_number(given.get("value")),
        properties=_checked(kept) if kept else None,
    )


def put_id(event: Event, after: str | None) -> str:
    """The id of feedback that is put: the same for the same content, `after` being the id of the newest
    event of its key, so that a retry is known.

    >>> event = feedback_event({"FeedbackType": "read", "UserId": "u", "ItemId": "i"}, 7)
    >>> one = put_id(event, None)
    >>> put_id(event, one) == one, put_id(replace(event, value=2.0), one) == one
    (True, False)
    """
    content = (event.event_type, event.user_id, event.item_id, event.timestamp_us)
    text = orjson.dumps([*content, event.value, event.properties])
    same = f"{PUT}{hashlib.sha256(text).hexdigest()[:24]}"
    if after is None or after.partition("~")[0] == same:
        return after or same
    return f"{same}~{hashlib.sha256(after.encode()).hexdigest()[:12]}"


def gorse_item(raw: object, *, item_id: str | None = None) -> GorseItem:
    """An Item, every field of which replaces what is stored; `item_id`: of an ItemPatch, which says
    something of those fields alone that are not null.

    Raises InputError naming the field.
    """
    given = fields_of(raw, "Item")
    patch = item_id is not None
    if patch:
        given = {name: value for name, value in given.items() if value is not None}
    known_id = _id("ItemId", given.get("itemid")) if item_id is None else item_id
    fields: dict[str, object] = {}
    properties: dict[str, object] = {}
    if not patch or "ishidden" in given:
        fields["available"] = not _flag(given.get("ishidden"))
    if not patch or "categories" in given:
        categories = _texts("Categories", given.get("categories"))
        fields["categories"] = categories or []
        properties["categories"] = categories
    if not patch or "comment" in given:
        comment = _text("Comment", given.get("comment"))
        fields["title"] = comment[:MAX_TITLE_LENGTH]
        properties["comment"] = comment
    if not patch or "labels" in given:
        properties["labels"] = _labels(given)
    added_us = None
    if not patch or "timestamp" in given:
        added_us = (_rfc3339 if patch else _time)("Timestamp", given.get("timestamp"))
        properties["timestamp"] = None if added_us is None else gorse_time(added_us)
    try:
        item = check_item({"item_id": "item", "properties": {}, **fields})
    except InputError as error:
        raise InputError(
            _FIELDS.get(error.field, error.field), error.value, error.expected
        ) from None
    if properties.get("comment") == (item.title or ""):
        properties["comment"] = None
    if properties.get("categories") == (list(item.categories) or None):
        properties["categories"] = None
    named = item.given if properties else item.given - {"properties"}
    told = _checked(properties)
    return GorseItem(replace(item, item_id=known_id, properties=told, given=named), added_us)


def gorse_user(raw: object, *, user_id: str | None = None) -> tuple[str, dict[str, object]]:
    """The id and the attributes of a User, null taking one away; `user_id`: of a UserPatch, as
    `gorse_item`. Raises InputError naming the field.
    """
    given = fields_of(raw, "User")
    attributes: dict[str, object] = {}
    if user_id is None or given.get("labels") is not None:
        attributes["labels"] = _labels(given)
    if user_id is None or given.get("comment") is not None:
        attributes["comment"] = _text("Comment", given.get("comment")) or None
    known_id = _id("UserId", given.get("userid")) if user_id is None else user_id
    _checked({name: value for name, value in attributes.items() if value is not None})
    return known_id, attributes


def gorse_time(time_us: int) -> str:
    """A moment as Gorse writes it: UTC, with a fraction where there is one.

    >>> gorse_time(1_500_000), gorse_time(ZERO_US)
    ('1970-01-01T00:00:01.5Z', '0001-01-01T00:00:00Z')
    """
    moment = from_us(time_us).replace(tzinfo=None)
    whole = moment.isoformat(timespec="seconds")
    fraction = f".{time_us % SECOND_US:06d}".rstrip("0").rstrip(".")
    return f"{whole}{fraction}Z"


def _id(field: str, value: object, limit: int = MAX_ID_LENGTH) -> str:
    problem = text_problem(value, limit)
    if problem is None and isinstance(value, str) and "/" in value:
        problem = "holds a slash, with which no path could name it"
    if problem:
        raise InputError(field, value, problem)
    return str(value)


def _text(field: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(field, value, "expected text")
    return value


def _texts(field: str, value: object) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError(field, value, "expected a list of texts")
    return value


def _flag(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InputError("IsHidden", value, "expected true or false")


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    raise InputError("Value", value, "expected a number")


def _time(field: str, value: object) -> int | None:
    """The µs of a date as text; None where there is none, or the year 1."""
    text = _text(field, value)
    time_us = date_text_us(text) if text else ZERO_US
    if time_us is None:
        raise InputError(field, value, "expected a date or moment, such as 2022-02-24T10:00:00Z")
    return None if time_us == ZERO_US else time_us


def _rfc3339(field: str, value: object) -> int | None:
    if not isinstance(value, str) or rfc3339_us(value) is None:
        raise InputError(field, value, "expected RFC 3339, such as 2022-02-24T10:00:00Z")
    return _time(field, value)


def _labels(given: Fields) -> Any:
    labels = given.get("labels")
    if not _are_labels(labels):
        expected = (
            "expected text, a number, a list of only texts or only numbers, or an object of those"
        )
        raise InputError("Labels", labels, expected)
    return labels


def _are_labels(value: object, depth: int = 7) -> bool:
    if value is None or isinstance(value, str) or _is_number(value):
        return True
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value) or all(map(_is_number, value))
    if isinstance(value, Mapping) and depth:
        return all(_are_labels(one, depth - 1) for one in value.values())
    return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked(properties: Mapping[str, object]) -> str | None:
    """Properties as JSON text; where they are too large or too deep, labels are what is."""
    try:
        return check_properties(properties)
    except InputError as error:
        raise InputError("Labels", error.value, error.expected) from None
