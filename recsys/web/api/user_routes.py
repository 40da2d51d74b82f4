"""One user: what is stored, attributes, whose events count as theirs, and erasing them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from flask import Blueprint
from pydantic import BaseModel, Field

from recsys.commands import user_data
from recsys.errors import NotFoundError
from recsys.events.identity import users_and_sessions
from recsys.events.times import rfc3339
from recsys.ingest.user_body import MAX_ATTRIBUTES, MAX_NAME_LENGTH, check_user
from recsys.storage.entities import attribute_rows
from recsys.storage.entities.attribute_rows import StoredAttributes
from recsys.web.api.event_schemas import StoredEvent, stored_event
from recsys.web.cursors import read_number, write_cursor
from recsys.web.fields import Id, PageQuery, Strict
from recsys.web.operations import QueryForm, operation
from recsys.web.problem_details import FieldError, InvalidRequestError
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("users", __name__, url_prefix="/api/v1")


AttributeName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
Attributes = Annotated[
    dict[AttributeName, Any],
    Field(
        max_length=MAX_ATTRIBUTES,
        description="Any JSON value by name; 8,192 bytes and 8 levels at most",
    ),
]


class UserByIdQuery(Strict):
    user_id: Id


class UserAnswer(BaseModel):
    user_id: str
    events: int
    first_event_at: str | None
    last_event_at: str | None
    merged_users: list[str]
    merged_sessions: list[str]


class EventPage(BaseModel):
    events: list[StoredEvent]
    next_cursor: str | None


class MergeBody(Strict):
    """The user or the anonymous session to merge into this user."""

    from_: Id | None = Field(None, alias="from", description="A user_id")
    session_id: Id | None = None


class MergeAnswer(BaseModel):
    user_id: str
    merged: str


class ErasureAnswer(BaseModel):
    """The receipt of an erasure."""

    user_id: str
    erased_at: str
    merged_users: list[str] = Field(description="User IDs merged with the user and erased too")
    merged_sessions: list[str] = Field(
        description="Session IDs merged with the user and erased too"
    )
    removed: dict[str, int] = Field(description="Number of rows removed, by kind")
    notes: dict[str, str] = Field(description="What else there is, and what happens to it")


class AttributesAnswer(BaseModel):
    """A user's attributes."""

    user_id: str = Field(description="Of a merged user's ID: the user it was merged into")
    attributes: dict[str, Any]
    created_at: str
    updated_at: str


class UserEventsQuery(PageQuery, UserByIdQuery):
    pass


@operation(
    blueprint,
    "GET",
    "/users/<id:user_id>",
    scope="read",
    answer=UserAnswer,
    statuses=(200, 404),
    by_query=QueryForm("/users", UserByIdQuery),
)
def get_user(user_id: str) -> UserAnswer:
    """Get how much is stored of a user, and what was merged into it."""
    with services().database.connect() as connection:
        found = services().recommender.source.summary(connection, user_id)
        attributes = attribute_rows.get_attributes(connection, user_id)
    if found.events == 0 and not found.merged and attributes is None:
        raise NotFoundError("user", user_id)
    merged, sessions = users_and_sessions(found.merged)
    return UserAnswer(
        user_id=user_id,
        events=found.events,
        first_event_at=rfc3339(found.first_event_us),
        last_event_at=rfc3339(found.last_event_us),
        merged_users=merged,
        merged_sessions=sessions,
    )


@operation(
    blueprint,
    "GET",
    "/users/<id:user_id>/events",
    scope="read",
    query=PageQuery,
    answer=EventPage,
    by_query=QueryForm("/users/events", UserEventsQuery),
)
def get_user_events(user_id: str, query: PageQuery) -> dict[str, Any]:
    """List a user's events, the latest received first."""
    before = read_number(query.cursor)
    with services().database.connect() as connection:
        source = services().recommender.source
        page = source.user_events(connection, user_id, query.limit, before)
    return {
        "events": [stored_event(event) for event in page.events],
        "next_cursor": None if page.next_before is None else write_cursor(str(page.next_before)),
    }


@operation(
    blueprint,
    "GET",
    "/users/<id:user_id>/attributes",
    scope="read",
    answer=AttributesAnswer,
    statuses=(200, 404),
    by_query=QueryForm("/users/attributes", UserByIdQuery),
)
def get_attributes(user_id: str) -> AttributesAnswer:
    """Get a user's attributes."""
    with services().database.connect() as connection:
        found = attribute_rows.get_attributes(connection, user_id)
    if found is None:
        raise NotFoundError("attributes of user", user_id)
    return _attributes(found)


@operation(
    blueprint,
    "PUT",
    "/users/<id:user_id>/attributes",
    scope="write",
    body=Attributes,
    answer=AttributesAnswer,
    statuses=(200, 409),
    example={"plan": "pro", "language": "de", "newsletter": True},
    by_query=QueryForm("/users/attributes", UserByIdQuery),
)
def put_attributes(user_id: str, body: Any) -> AttributesAnswer:
    """Replace a user's attributes by those of the body; any JSON value will do for one."""
    given = check_user(user_id, body)
    return _attributes(user_data.set_attributes(services().database, actor(), given, now_us()))


@operation(
    blueprint,
    "DELETE",
    "/users/<id:user_id>/attributes",
    scope="write",
    answer=AttributesAnswer,
    statuses=(200, 404),
    by_query=QueryForm("/users/attributes", UserByIdQuery),
)
def delete_attributes(user_id: str) -> AttributesAnswer:
    """Delete a user's attributes and return them; the user's events are kept."""
    return _attributes(user_data.delete_attributes(services().database, actor(), user_id, now_us()))


@operation(
    blueprint,
    "POST",
    "/users/<id:user_id>/merge",
    scope="write",
    body=MergeBody,
    answer=MergeAnswer,
    statuses=(200, 409),
    example={"from": "anonymous-42"},
    by_query=QueryForm("/users/merge", UserByIdQuery),
)
def merge_user(user_id: str, body: MergeBody) -> MergeAnswer:
    """Merge another user or an anonymous session: its events count as this user's from now on.

    Of another user's attributes this user gets those that it has none of by their names.
    """
    if (body.from_ is None) == (body.session_id is None):
        message = "expected one of from and session_id"
        raise InvalidRequestError([FieldError(field="from", message=message)])
    other = f"u:{body.from_}" if body.from_ is not None else f"s:{body.session_id}"
    target = user_data.merge(services().database, actor(), user_id, other, now_us())
    return MergeAnswer(user_id=target, merged=other[2:])


@operation(
    blueprint,
    "DELETE",
    "/users/<id:user_id>",
    scope="admin",
    answer=ErasureAnswer,
    by_query=QueryForm("/users", UserByIdQuery),
)
def delete_user(user_id: str) -> ErasureAnswer:
    """Erase a user everywhere; the receipt says what was removed where."""
    shared = services()
    receipt = user_data.erase(shared.settings, shared.database, actor(), user_id, now_us())
    return ErasureAnswer(**asdict(receipt))


def _attributes(stored: StoredAttributes) -> AttributesAnswer:
    return AttributesAnswer(
        user_id=stored.user_id,
        attributes=stored.attributes,
        created_at=rfc3339(stored.created_at_us),
        updated_at=rfc3339(stored.updated_at_us),
    )
