"""Gorse's feedback: each is an event of the log, and the lists show one row a (type, user, item)."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
from flask import Blueprint, Response

from recsys.errors import InputError
from recsys.events.fields import Event
from recsys.ingest.gorse_objects import feedback_event, gorse_time
from recsys.ingest.item_body import check_item
from recsys.storage.engine.database import Connection
from recsys.storage.entities import feedback_rows, feedback_views, item_rows
from recsys.storage.entities.event_rows import PostedEvent
from recsys.storage.entities.feedback_rows import Written
from recsys.storage.entities.feedback_views import Feedback, Key
from recsys.web.gorse.gorse_protocol import (
    TEXT,
    affected,
    body_rows,
    page_size,
    read_position,
    require_own_log,
    route,
    write_position,
)
from recsys.web.gorse.gorse_users import insert_unknown
from recsys.web.services import now_us, services
from recsys.web.usage import PostedOutcome

_EXPRESSION = re.compile(r"([A-Za-z][A-Za-z0-9_]*)\s*(<=|>=|<|>)\s*([+-]?[0-9]+(?:\.[0-9]+)?)")
_COMPARED: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

blueprint = Blueprint("gorse_feedback", __name__, url_prefix="/api")


@route(blueprint, "POST", "/feedback", scope="write")
def insert_feedback() -> dict[str, int]:
    return affected(_write(overwrite=False))


@route(blueprint, "PUT", "/feedback", scope="write")
def put_feedback() -> dict[str, int]:
    return affected(_write(overwrite=True))


@route(blueprint, "GET", "/feedback", scope="read")
def list_feedback() -> dict[str, Any]:
    return _page(None)


@route(blueprint, "GET", "/feedback/<id:feedback_type>", scope="read")
def list_feedback_of_type(feedback_type: str) -> dict[str, Any]:
    return _page(feedback_type)


@route(blueprint, "GET", "/feedback/<id:user_id>/<id:item_id>", scope="read")
def get_feedback(user_id: str, item_id: str) -> list[dict[str, Any]]:
    with services().database.connect() as connection:
        return _shown(feedback_views.of_pair(connection, user_id, item_id))


@route(blueprint, "GET", "/feedback/<id:feedback_type>/<id:user_id>/<id:item_id>", scope="read")
def get_typed_feedback(feedback_type: str, user_id: str, item_id: str) -> dict[str, Any] | Response:
    with services().database.connect() as connection:
        found = _shown(feedback_views.of_pair(connection, user_id, item_id, feedback_type))
    return found[0] if found else Response("{}", content_type=TEXT)


@route(blueprint, "DELETE", "/feedback/<id:user_id>/<id:item_id>", scope="write")
def delete_feedback(user_id: str, item_id: str) -> dict[str, int]:
    return affected(_delete(user_id, item_id, None))


@route(blueprint, "DELETE", "/feedback/<id:feedback_type>/<id:user_id>/<id:item_id>", scope="write")
def delete_typed_feedback(feedback_type: str, user_id: str, item_id: str) -> dict[str, int]:
    return affected(_delete(user_id, item_id, feedback_type))


@route(blueprint, "GET", "/user/<id:user_id>/feedback", scope="read")
def user_feedback(user_id: str) -> list[dict[str, Any]]:
    with services().database.connect() as connection:
        return _shown(feedback_views.of_user(connection, user_id))


@route(blueprint, "GET", "/user/<id:user_id>/feedback/<id:feedback_type>", scope="read")
def user_feedback_of_type(user_id: str, feedback_type: str) -> list[dict[str, Any]]:
    """A user's feedback of a type, or by an expression such as read>=3 that its value meets."""
    name, meets = _parsed(feedback_type)
    with services().database.connect() as connection:
        found = feedback_views.of_user(connection, user_id, name)
    return _shown([one for one in found if meets(one.value)])


@route(blueprint, "GET", "/item/<id:item_id>/feedback", scope="read")
def item_feedback(item_id: str) -> list[dict[str, Any]]:
    with services().database.connect() as connection:
        return _shown(feedback_views.of_item(connection, item_id))


@route(blueprint, "GET", "/item/<id:item_id>/feedback/<id:feedback_type>", scope="read")
def item_feedback_of_type(item_id: str, feedback_type: str) -> list[dict[str, Any]]:
    with services().database.connect() as connection:
        return _shown(feedback_views.of_item(connection, item_id, feedback_type))


def _write(overwrite: bool) -> int:
    require_own_log()
    rows, now = body_rows(), now_us()
    given = []
    for number, row in enumerate(rows):
        try:
            given.append(feedback_event(row, now))
        except InputError as error:
            raise InputError(f"[{number}].{error.field}", error.value, error.expected) from None
    if given:
        _store(given, overwrite, now)
    return len(rows)


def _store(given: Sequence[Event], overwrite: bool, now: int) -> None:
    """Store feedback, and the users and items of it that are not known yet."""

    def work(connection: Connection) -> Written:
        insert_unknown(connection, {one.user_id for one in given if one.user_id}, now)
        written = feedback_rows.write_feedback(connection, given, overwrite, now)
        _insert_items(connection, {one.item_id for one in written.accepted}, now)
        return written

    count(services().writes.write(work), now)


def count(written: Written, now: int) -> None:
    """Tell Prometheus and the dashboard."""
    outcome = PostedOutcome(now, rejected=written.rejected, duplicates=written.duplicates)
    for event in written.accepted:
        outcome.note(event, PostedEvent(event.event_id or "", True))
    services().usage.posted(outcome)


def _insert_items(connection: Connection, item_ids: set[str], now: int) -> None:
    """Items that feedback alone speaks of come into the catalogue with nothing but their ids."""
    missing = item_ids - item_rows.get_items(connection, sorted(item_ids)).keys()
    bare = check_item({"item_id": "item"})
    item_rows.put_items(connection, [replace(bare, item_id=one) for one in sorted(missing)], now)


def _delete(user_id: str, item_id: str, feedback_type: str | None) -> int:
    require_own_log()
    with services().database.begin() as connection:
        return feedback_rows.delete_pair(connection, user_id, item_id, feedback_type, now_us())


def _page(feedback_type: str | None) -> dict[str, Any]:
    limit, start = page_size(), _key(read_position())
    with services().database.connect() as connection:
        found, following = feedback_views.page(connection, limit, start, feedback_type)
    cursor = None if following is None else orjson.dumps(list(following)).decode()
    return {"Cursor": write_position(cursor), "Feedback": _shown(found)}


def _key(position: str | None) -> Key | None:
    if position is None:
        return None
    try:
        parts = orjson.loads(position)
    except orjson.JSONDecodeError:
        parts = None
    if not isinstance(parts, list) or len(parts) != 3 or not all(isinstance(p, str) for p in parts):
        raise InputError("cursor", position, "expected the Cursor of an earlier page")
    return Key(*parts)


def _parsed(text: str) -> tuple[str, Callable[[float], bool]]:
    """The type that an expression is of, and whether a value meets it."""
    found = _EXPRESSION.fullmatch(text.strip())
    if found is None:
        if any(mark in text for mark in "<>="):
            raise InputError("feedback-type", text, "expected a type, or one as in read>=3")
        return text, lambda value: True
    name, sign, number = found.groups()
    bound, compared = float(number), _COMPARED[sign]
    return name, lambda value: compared(value, bound)


def _shown(rows: Sequence[Feedback]) -> list[dict[str, Any]]:
    return [
        {
            "FeedbackType": row.key.feedback_type,
            "UserId": row.key.user_id,
            "ItemId": row.key.item_id,
            "Value": row.value,
            "Timestamp": gorse_time(row.timestamp_us),
            "Updated": gorse_time(row.updated_us),
            "Labels": row.details.get("labels"),
            "Comment": row.details.get("comment", ""),
        }
        for row in rows
    ]
