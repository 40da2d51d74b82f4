"""Events as REST takes and answers them: models made from the table of event fields."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, create_model

from recsys.events.fields import DEFAULT_EVENT_TYPE, EVENT_FIELDS, POSTED_FIELDS, Event, EventField
from recsys.events.times import rfc3339
from recsys.web.fields import Strict, Text

# As `recsys.ingest.event_body` checks them; these say it to who reads the API's document.
_POSTED: dict[str, Any] = {
    "time": str | int | None,
    "number": float | None,
    "object": dict[str, Any] | None,
}
_STORED: dict[str, Any] = {"text": str, "time": str, "number": float, "object": dict[str, Any]}
_STORED_ORDER = sorted(EVENT_FIELDS, key=lambda one: one.name != "event_id")  # the id first


def _posted(field: EventField) -> Any:
    """Type and default of a field that is posted."""
    text: Any = Annotated[str, Field(min_length=1, max_length=field.max_length), Text]
    if field.name == "event_type":
        return text, DEFAULT_EVENT_TYPE
    text = text | int
    if field.name == "item_id":
        return text, ...
    kind = text | None if field.kind == "text" else _POSTED[field.kind]
    return kind, Field(None, description=field.description)


def _stored(field: EventField) -> Any:
    """Type and default of a field that is answered: every event has an id by then."""
    required = not field.nullable or field.name == "event_id"
    return _STORED[field.kind] if required else _STORED[field.kind] | None, ...


_POSTED_MODEL: dict[str, Any] = {one.rest_name: _posted(one) for one in POSTED_FIELDS}
_STORED_MODEL: dict[str, Any] = {one.rest_name: _stored(one) for one in _STORED_ORDER}


# mypy does not follow a base class that is made when the module is loaded.
class EventIn(create_model("EventIn", __base__=Strict, **_POSTED_MODEL)):  # type: ignore[misc]
    """One event; `user_id` or `session_id` is needed."""


class StoredEvent(create_model("StoredEvent", **_STORED_MODEL)):  # type: ignore[misc]
    pass


def stored_event(event: Event) -> dict[str, Any]:
    """An event as a StoredEvent has it."""
    return {one.rest_name: _answered(one, getattr(event, one.name)) for one in _STORED_ORDER}


def _answered(field: EventField, value: Any) -> Any:
    if field.kind == "time":
        return rfc3339(value)
    if field.kind == "object":
        return json.loads(value) if value else None
    return value
