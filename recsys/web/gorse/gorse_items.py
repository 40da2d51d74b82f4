"""Gorse's items over the catalogue: hidden is not available, a comment is a title, the rest are properties."""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, request

from recsys.ingest.gorse_objects import ZERO_US, GorseItem, gorse_item, gorse_time
from recsys.ingest.item_body import check_item
from recsys.storage.engine.database import Connection
from recsys.storage.entities import feedback_rows, item_pages, item_rows
from recsys.storage.entities.gorse_catalogue import put_gorse_items
from recsys.storage.entities.item_rows import StoredItem
from recsys.web.gorse.gorse_protocol import (
    affected,
    body_rows,
    page_size,
    read_position,
    refuse,
    route,
    write_position,
)
from recsys.web.json_body import read_json
from recsys.web.services import now_us, services

MAX_WORDS = 16  # of a search
MAX_QUERY = 200  # characters

blueprint = Blueprint("gorse_items", __name__, url_prefix="/api")


@route(blueprint, "POST", "/item", scope="write")
def insert_item() -> dict[str, int]:
    _put([gorse_item(read_json())])
    return affected(1)


@route(blueprint, "POST", "/items", scope="write")
def insert_items() -> dict[str, int]:
    rows = body_rows()
    given: dict[str, GorseItem] = {}
    for row in rows:
        one = gorse_item(row)
        given.setdefault(one.item.item_id, one)  # of equal ids the first
    _put(list(given.values()))
    return affected(len(rows))


@route(blueprint, "GET", "/items", scope="read")
def list_items() -> dict[str, Any]:
    limit = page_size()
    with services().database.connect() as connection:
        if query := request.args.get("q", "")[:MAX_QUERY]:
            words = list(dict.fromkeys(re.findall(r"\w+", query.casefold())))[:MAX_WORDS]
            found = item_pages.titled(connection, words, limit)
            return {"Cursor": "", "Items": [item_object(one) for one in found]}
        found = item_pages.items_from(connection, read_position(), limit + 1)
    following = found[limit].item_id if len(found) > limit else None
    return {
        "Cursor": write_position(following),
        "Items": [item_object(one) for one in found[:limit]],
    }


@route(blueprint, "GET", "/item/<id:item_id>", scope="read")
def get_item(item_id: str) -> dict[str, Any]:
    with services().database.connect() as connection:
        return item_object(_stored(connection, item_id))


@route(blueprint, "PATCH", "/item/<id:item_id>", scope="write")
def patch_item(item_id: str) -> dict[str, int]:
    given = gorse_item(read_json(), item_id=item_id)
    with services().database.begin() as connection:
        if given.item.given and item_rows.get_items(connection, [item_id]):
            put_gorse_items(connection, [given], now_us())
    return affected(1)


@route(blueprint, "DELETE", "/item/<id:item_id>", scope="write")
def delete_item(item_id: str) -> dict[str, int]:
    """Delete an item and its feedback, a transaction every so many rows."""
    shared = services()
    with shared.database.begin() as connection:
        item_rows.delete_item(connection, item_id)
    if shared.settings.events.mapped:  # events in a table of the user's own are not touched
        return affected(1)
    gone = feedback_rows.MOST
    while gone == feedback_rows.MOST:
        with shared.database.begin() as connection:
            gone = feedback_rows.delete_of_item(connection, item_id, now_us())
    return affected(1)


@route(blueprint, "PUT", "/item/<id:item_id>/category/<id:category>", scope="write")
def insert_category(item_id: str, category: str) -> dict[str, int]:
    _change_categories(item_id, lambda named: [*named, category])
    return affected(1)


@route(blueprint, "DELETE", "/item/<id:item_id>/category/<id:category>", scope="write")
def delete_category(item_id: str, category: str) -> dict[str, int]:
    _change_categories(item_id, lambda named: [name for name in named if name != category])
    return affected(1)


def item_object(item: StoredItem) -> dict[str, Any]:
    """The Item of what is stored."""
    properties = item.properties
    return {
        "ItemId": item.item_id,
        "IsHidden": not item.available,
        "Categories": properties.get("categories", item.categories or None),
        "Timestamp": properties.get("timestamp", gorse_time(ZERO_US)),
        "Labels": properties.get("labels"),
        "Comment": properties.get("comment", item.title or ""),
    }


def _put(given: list[GorseItem]) -> None:
    with services().database.begin() as connection:
        put_gorse_items(connection, given, now_us())


def _stored(connection: Connection, item_id: str) -> StoredItem:
    found = item_rows.get_items(connection, [item_id]).get(item_id)
    if found is None:
        refuse(404, f"item {item_id} not found")
    return found


def _change_categories(item_id: str, changed: Any) -> None:
    with services().database.begin() as connection:
        before = item_object(_stored(connection, item_id))["Categories"] or []
        named = list(dict.fromkeys(changed(before)))
        properties: dict[str, Any] = {"categories": None if named else []}
        raw = {"item_id": item_id, "categories": named, "properties": properties}
        item_rows.put_items(connection, [check_item(raw)], now_us())
