"""POST /events: what is answered as accepted is committed."""

from __future__ import annotations

from typing import Any

from flask import Blueprint
from pydantic import BaseModel, Field

from recsys.commands import intake
from recsys.errors import AccessError, InputError
from recsys.events.fields import Event
from recsys.events.identity import as_page_knows
from recsys.ingest.event_body import check_posted, id_text
from recsys.text_rules import MAX_ID_LENGTH
from recsys.web.api.event_schemas import EventIn
from recsys.web.api_keys import from_page
from recsys.web.fields import MAX_ROWS
from recsys.web.operations import operation
from recsys.web.problem_details import FieldError, InvalidRequestError
from recsys.web.services import now_us, services
from recsys.web.usage import PostedOutcome

blueprint = Blueprint("events", __name__, url_prefix="/api/v1")


class EventResult(BaseModel):
    index: int
    status: str = Field(description="accepted, duplicate or rejected")
    event_id: str | None
    error: str | None


class EventsAnswer(BaseModel):
    accepted: int
    duplicates: int
    rejected: int
    results: list[EventResult]


@operation(
    blueprint,
    "POST",
    "/events",
    scope="write",
    body=EventIn | list[EventIn],
    lenient=True,
    collect=True,
    answer=EventsAnswer,
    statuses=(200, 409),
    example={"user_id": "u1", "item_id": "i1", "event_type": "view"},
)
def post_events(body: Any) -> tuple[dict[str, Any], int]:
    """Store one event, or up to 10,000; each row gets its own result."""
    services().recommender.source.check_writable()
    rows = body if isinstance(body, list) else [body]
    if not 1 <= len(rows) <= MAX_ROWS:
        message = f"expected 1 to {MAX_ROWS} events, not {len(rows)}"
        raise InvalidRequestError([FieldError(field="body", message=message)])
    page = from_page()
    if page:
        _check_page(rows)
        services().keys.spend_events(len(rows))
    now = now_us()
    results: list[dict[str, Any]] = []
    good: list[tuple[int, Event]] = []
    for index, row in enumerate(rows):
        result = {"index": index, "status": "rejected", "event_id": None, "error": None}
        try:
            good.append((index, check_posted(row, now, page)))
        except InputError as error:
            result["error"] = str(error)
            event_id = id_text(row.get("event_id")) if isinstance(row, dict) else None
            if isinstance(event_id, str):
                result["event_id"] = event_id[:MAX_ID_LENGTH]
        results.append(result)
    outcome = PostedOutcome(now)
    if good:
        beyond = services().recommender.event_types.beyond if page else None
        problems, stored = services().writes.write(
            lambda connection: intake.store_events(connection, good, now, beyond)
        )
        for index, event in good:
            if problem := problems.get(index):
                results[index].update(event_id=_told(event.event_id, page), error=problem)
        good = [(index, event) for index, event in good if index not in problems]
        for (index, event), one in zip(good, stored, strict=True):
            status = "accepted" if one.accepted else "duplicate"
            results[index].update(status=status, event_id=_told(one.event_id, page))
            outcome.note(event, one)
    outcome.rejected = len(rows) - len(good)
    services().usage.posted(outcome)
    answer = {
        "accepted": outcome.accepted,
        "duplicates": outcome.duplicates,
        "rejected": outcome.rejected,
        "results": results,
    }
    return answer, 200 if good else 422


def _told(event_id: str | None, page: bool) -> str | None:
    """An event's id as who posted it knows it."""
    return as_page_knows(event_id) if page and event_id else event_id


def _check_page(rows: list[Any]) -> None:
    """Raises AccessError where a page posts for a user, or for more than one session.

    What is neither text nor absent is no session: `check_posted` rejects that row by name.
    """
    given = [id_text(row.get("session_id")) for row in rows if isinstance(row, dict)]
    sessions = {one for one in given if one is None or isinstance(one, str)}
    users = any(isinstance(row, dict) and row.get("user_id") is not None for row in rows)
    if users or len(sessions) > 1:
        raise AccessError("a page posts events of one session_id, without user_id")
