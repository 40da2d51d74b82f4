"""Gorse's users over users' attributes, and its health checks."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from recsys.commands import user_data
from recsys.errors import RecsysError
from recsys.ingest.gorse_objects import gorse_user
from recsys.ingest.user_body import UserAttributes, check_user
from recsys.storage.engine.database import Connection
from recsys.storage.entities import attribute_rows, tombstone_rows, version_rows
from recsys.web.gorse.gorse_protocol import (
    affected,
    answer,
    body_rows,
    page_size,
    read_position,
    refuse,
    route,
    write_position,
)
from recsys.web.json_body import read_json
from recsys.web.services import actor, now_us, services

NOTHING = "{}"

blueprint = Blueprint("gorse_users", __name__, url_prefix="/api")


@route(blueprint, "POST", "/user", scope="write")
def insert_user() -> dict[str, int]:
    _put([check_user(*gorse_user(read_json()))])
    return affected(1)


@route(blueprint, "POST", "/users", scope="write")
def insert_users() -> dict[str, int]:
    rows = body_rows()
    given: dict[str, UserAttributes] = {}
    for row in rows:
        one = check_user(*gorse_user(row))
        given.setdefault(one.user_id, one)  # of equal ids the first
    _put(list(given.values()))
    return affected(len(rows))


@route(blueprint, "GET", "/users", scope="read")
def list_users() -> dict[str, Any]:
    limit = page_size()
    with services().database.connect() as connection:
        found = attribute_rows.list_attributes(connection, limit + 1, read_position())
    last = found[limit - 1].user_id if len(found) > limit else None
    shown = [user_object(one.user_id, one.attributes) for one in found[:limit]]
    return {"Cursor": write_position(last), "Users": shown}


@route(blueprint, "GET", "/user/<id:user_id>", scope="read")
def get_user(user_id: str) -> dict[str, Any]:
    with services().database.connect() as connection:
        found = attribute_rows.get_attributes(connection, user_id)
    if found is None:
        refuse(404, f"user {user_id} not found")
    return user_object(user_id, found.attributes)


@route(blueprint, "PATCH", "/user/<id:user_id>", scope="write")
def patch_user(user_id: str) -> dict[str, int]:
    given = check_user(*gorse_user(read_json(), user_id=user_id))
    with services().database.begin() as connection:
        if attribute_rows.get_attributes(connection, user_id) is not None:
            attribute_rows.put_attributes(connection, [given], "update", now_us())
    return affected(1)


@route(blueprint, "DELETE", "/user/<id:user_id>", scope="write")
def delete_user(user_id: str) -> dict[str, int]:
    """Erase the user everywhere; what is stored of such a user later starts over.

    Who was erased before by other means stays so.
    """
    shared = services()
    with shared.database.connect() as connection:
        if tombstone_rows.is_erased(connection, [f"u:{user_id}"]):
            return affected(1)
    user_data.erase(shared.settings, shared.database, actor(), user_id, now_us())
    user_data.allow_again(shared.database, actor(), user_id, now_us())
    return affected(1)


@route(blueprint, "GET", "/health/live", scope=None)
def live() -> Response:
    return answer(_health())


@route(blueprint, "GET", "/health/ready", scope=None)
def ready() -> Response:
    found = _health()
    return answer(found, 200 if found["Ready"] else 503)


def user_object(user_id: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """The User of what is stored."""
    comment = attributes.get("comment")
    return {
        "UserId": user_id,
        "Labels": attributes.get("labels"),
        "Comment": comment if isinstance(comment, str) else "",
    }


def insert_unknown(connection: Connection, user_ids: set[str], now: int) -> None:
    """Users that feedback alone speaks of are users without attributes. To be called first."""
    given = [UserAttributes(user_id, NOTHING) for user_id in sorted(user_ids)]
    if attribute_rows.changes_nothing(connection, given, "update") is None:
        attribute_rows.put_attributes(connection, given, "update", now)


def _put(given: list[UserAttributes]) -> None:
    with services().database.begin() as connection:
        attribute_rows.put_attributes(connection, given, "update", now_us())


def _health() -> dict[str, Any]:
    problem = None
    try:
        with services().database.connect() as connection:
            version_rows.champion_name(connection)
    except RecsysError as error:
        problem = str(error)
    good = problem is None
    return {
        "Ready": good,
        "DataStoreError": problem,
        "CacheStoreError": None,
        "DataStoreConnected": good,
        "CacheStoreConnected": True,
    }
