"""POST /events: what is answered as accepted is committed."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from recsys.data.event_check import Event, check_event
from recsys.errors import InputError
from recsys.storage import event_rows
from recsys.web.errors import FieldError, InvalidRequestError
from recsys.web.operations import operation
from recsys.web.schemas import MAX_EVENTS, EventIn, EventsAnswer
from recsys.web.services import now_us, services

blueprint = Blueprint("events", __name__, url_prefix="/api/v1")


@operation(
    blueprint,
    "POST",
    "/events",
    scope="write",
    body=EventIn | list[EventIn],
    lenient=True,
    answer=EventsAnswer,
    example={"user_id": "u1", "item_id": "i1", "event_type": "view"},
)
def post_events(body: Any) -> tuple[dict[str, Any], int]:
    """Store one event, or up to 10,000; each row is answered for itself."""
    rows = body if isinstance(body, list) else [body]
    if not 1 <= len(rows) <= MAX_EVENTS:
        message = f"expected 1 to {MAX_EVENTS} events, not {len(rows)}"
        raise InvalidRequestError([FieldError(field="body", message=message)])
    now = now_us()
    results: list[dict[str, Any]] = []
    good: list[tuple[int, Event]] = []
    for index, row in enumerate(rows):
        result = {"index": index, "status": "rejected", "event_id": None, "error": None}
        try:
            good.append((index, check_event(row, now)))
        except InputError as error:
            result["error"] = str(error)
            if isinstance(row, dict) and isinstance(row.get("event_id"), str):
                result["event_id"] = row["event_id"][:256]
        results.append(result)
    duplicates = 0
    if good:
        with services().database.begin() as connection:
            stored = event_rows.insert_events(connection, [event for _, event in good], now)
        for (index, _), one in zip(good, stored, strict=True):
            duplicates += not one.accepted
            status = "accepted" if one.accepted else "duplicate"
            results[index].update(status=status, event_id=one.event_id)
    answer = {
        "accepted": len(good) - duplicates,
        "duplicates": duplicates,
        "rejected": len(rows) - len(good),
        "results": results,
    }
    return answer, 200 if good else 422
