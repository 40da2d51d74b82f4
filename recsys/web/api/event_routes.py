"""POST /events: what is answered as accepted is committed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from flask import Blueprint
from pydantic import BaseModel, Field

from recsys.errors import AccessError, InputError, shown
from recsys.events.fields import Event
from recsys.events.identity import as_page_knows, sequence_key
from recsys.events.times import DAY_US
from recsys.ingest.event_body import check_posted, id_text
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Connection
from recsys.storage.entities import event_rows, tombstone_rows
from recsys.text_rules import MAX_ID_LENGTH
from recsys.web.api.event_schemas import EventIn
from recsys.web.api_keys import from_page
from recsys.web.fields import MAX_ROWS
from recsys.web.operations import operation
from recsys.web.problem_details import FieldError, InvalidRequestError
from recsys.web.services import now_us, services

PAGE_DAYS = 7  # how old an event from a page may be: it tells of what happens

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
    oldest_us = now - PAGE_DAYS * DAY_US if page else 0
    for index, row in enumerate(rows):
        result = {"index": index, "status": "rejected", "event_id": None, "error": None}
        try:
            event = check_posted(row, now, page)
            if event.timestamp_us < oldest_us:
                expected = f"a page posts events of the last {PAGE_DAYS} days"
                raise InputError("timestamp", row["timestamp"], expected)
            good.append((index, event))
        except InputError as error:
            result["error"] = str(error)
            event_id = id_text(row.get("event_id")) if isinstance(row, dict) else None
            if isinstance(event_id, str):
                result["event_id"] = event_id[:MAX_ID_LENGTH]
        results.append(result)
    lags: defaultdict[str, list[float]] = defaultdict(list)
    duplicates = 0
    if good:
        problems, stored = services().writes.write(
            lambda connection: _store(connection, good, page, now)
        )
        for index, event in good:
            if problem := problems.get(index):
                results[index].update(event_id=_told(event.event_id, page), error=problem)
        good = [(index, event) for index, event in good if index not in problems]
        for (index, event), one in zip(good, stored, strict=True):
            status = "accepted" if one.accepted else "duplicate"
            results[index].update(status=status, event_id=_told(one.event_id, page))
            if one.accepted:
                lags[event.event_type].append(max(0.0, (now - event.timestamp_us) / 1e6))
            else:
                duplicates += 1
    services().usage.posted(lags, duplicates, len(rows) - len(good))
    answer = {
        "accepted": len(good) - duplicates,
        "duplicates": duplicates,
        "rejected": len(rows) - len(good),
        "results": results,
    }
    return answer, 200 if good else 422


def _store(
    connection: Connection, checked: Sequence[tuple[int, Event]], page: bool, now_us: int
) -> tuple[dict[int, str], list[event_rows.PostedEvent]]:
    """Why some of the events are rejected, by their index; what became of the others."""
    advisory_lock.lock_shared(connection)
    problems = _problems(connection, checked, page)
    kept = [event for index, event in checked if index not in problems]
    return problems, event_rows.insert_events(connection, kept, now_us)


def _problems(
    connection: Connection, checked: Sequence[tuple[int, Event]], page: bool
) -> dict[int, str]:
    """Why an event is rejected by what the database knows, by its index."""
    found: dict[int, str] = {}
    if page:
        types = services().recommender.event_types
        beyond = types.beyond(connection, {event.event_type for _, event in checked})
        found = {
            index: f"event_type = {shown(event.event_type)}: a page brings no more types"
            for index, event in checked
            if event.event_type in beyond
        }
    owners = {index: sequence_key(one.user_id, one.session_id) for index, one in checked}
    erased = tombstone_rows.is_erased(connection, set(owners.values()))
    gone = {index: "the user was erased" for index, owner in owners.items() if owner in erased}
    return found | gone


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
