"""The catalogue, and what is like, follows, or beats the rest of it."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint
from pydantic import BaseModel, Field

from recsys.errors import InputError, NotFoundError
from recsys.ingest.item_body import Item, check_item
from recsys.serving.answers import RankedItem
from recsys.serving.bought_together import MAX_BASKET
from recsys.storage.entities import item_rows
from recsys.web.api.answer_schemas import ItemOut, RankedItemOut, item_out, ranked_out
from recsys.web.api_keys import from_page
from recsys.web.cursors import read_cursor, write_cursor
from recsys.web.fields import MAX_ROWS, Cursor, Id, K, Limit, Search, Strict
from recsys.web.operations import QueryForm, operation
from recsys.web.problem_details import FieldError, InvalidRequestError
from recsys.web.services import now_us, services

blueprint = Blueprint("items", __name__, url_prefix="/api/v1")


class ItemIn(Strict):
    item_id: Id
    title: str | None = None
    categories: list[Id] | None = None
    price: float | None = None
    image: str | None = None
    available: bool | None = None
    properties: dict[str, Any] | None = None


class ItemPatch(Strict):
    title: str | None = None
    categories: list[Id] | None = None
    price: float | None = None
    image: str | None = None
    available: bool | None = None
    properties: dict[str, Any] | None = None


class ItemByIdQuery(Strict):
    item_id: Id


class ItemQuery(Strict):
    q: Search | None = None
    category: Id | None = None
    item_id: Id | None = Field(None, description="Return only this item")
    limit: Limit = 100
    cursor: Cursor | None = None


class KQuery(Strict):
    k: K = 20


class KByIdQuery(KQuery):
    item_id: Id


class PopularQuery(KQuery):
    window: Annotated[int, Field(ge=1, le=3_650, description="Days")] = 7
    category: Id | None = None


class TrendingQuery(KQuery):
    hours: Annotated[int, Field(ge=1, le=720, description="How many hours back")] = 24


class BasketBody(Strict):
    """Items whose companions are asked for."""

    items: Annotated[
        list[Id],
        Field(
            min_length=1,
            max_length=MAX_BASKET,
            description="What stands in the basket, or one item",
        ),
    ]
    k: K = 20


class ItemResult(BaseModel):
    index: int
    status: str = Field(description="stored or rejected")
    item_id: str | None
    error: str | None


class ItemsAnswer(BaseModel):
    stored: int
    rejected: int
    results: list[ItemResult]


class ItemPage(BaseModel):
    items: list[ItemOut]
    next_cursor: str | None


class ItemListAnswer(BaseModel):
    items: list[RankedItemOut]


@operation(
    blueprint,
    "PUT",
    "/items",
    scope="write",
    body=ItemIn | list[ItemIn],
    lenient=True,
    answer=ItemsAnswer,
    example=[{"item_id": "i1", "title": "Teapot", "categories": ["kitchen"], "price": 19.5}],
)
def put_items(body: Any) -> tuple[dict[str, Any], int]:
    """Create or update one item, or up to 10,000; each row gets its own result.

    Fields not given keep their stored value; null removes a value, properties one by one.
    """
    rows = body if isinstance(body, list) else [body]
    if not 1 <= len(rows) <= MAX_ROWS:
        message = f"expected 1 to {MAX_ROWS} items, not {len(rows)}"
        raise InvalidRequestError([FieldError(field="body", message=message)])
    good: list[Item] = []
    results = []
    for index, row in enumerate(rows):
        result = {"index": index, "status": "rejected", "item_id": None, "error": None}
        try:
            item = check_item(row)
            good.append(item)
            result.update(status="stored", item_id=item.item_id)
        except InputError as error:
            result["error"] = str(error)
        results.append(result)
    if good:
        with services().database.begin() as connection:
            item_rows.put_items(connection, good, now_us())
    answer = {"stored": len(good), "rejected": len(rows) - len(good), "results": results}
    return answer, 200 if good else 422


@operation(blueprint, "GET", "/items", scope="read", query=ItemQuery, answer=ItemPage)
def list_items(query: ItemQuery) -> dict[str, Any]:
    """Search the catalogue by title, id and category, page by page."""
    with services().database.connect() as connection:
        if query.item_id is not None:
            if others := query.model_fields_set - {"item_id"}:
                raise InputError(
                    min(others), getattr(query, min(others)), "expected none beside item_id"
                )
            found = item_rows.get_items(connection, [query.item_id])
            return {"items": [item_out(item) for item in found.values()], "next_cursor": None}
        after = read_cursor(query.cursor)
        if query.category is not None:
            item_rows.check_category(connection, query.category)
        page = item_rows.list_items(connection, query.q, query.category, query.limit, after)
    more = len(page) == query.limit
    return {
        "items": [item_out(item) for item in page],
        "next_cursor": write_cursor(page[-1].item_id) if more else None,
    }


@operation(
    blueprint,
    "GET",
    "/items/popular",
    scope="read",
    query=PopularQuery,
    answer=ItemListAnswer,
    collect=True,
)
def popular(query: PopularQuery) -> dict[str, Any]:
    """Items with the most events in the last `window` days."""
    lists = services().recommender.item_lists
    return _list(lists.popular(query.window, query.category, query.k, now_us()))


@operation(
    blueprint,
    "GET",
    "/items/trending",
    scope="read",
    query=TrendingQuery,
    answer=ItemListAnswer,
    collect=True,
)
def trending(query: TrendingQuery) -> dict[str, Any]:
    """Items with the most events in the last `hours`."""
    lists = services().recommender.item_lists
    return _list(lists.trending(query.hours, query.k, now_us()))


@operation(
    blueprint,
    "POST",
    "/items/bought-together",
    scope="read",
    body=BasketBody,
    answer=ItemListAnswer,
    statuses=(200, 404),
    collect=True,
    example={"items": ["i1", "i2"], "k": 10},
)
def bought_together(body: BasketBody) -> dict[str, Any]:
    """Items that were carted or bought together with these, in one session or on one day."""
    for item_id in body.items if from_page() else ():
        _check_page(item_id)
    lists = services().recommender.item_lists
    return _list(lists.bought_together(body.items, body.k, now_us()))


@operation(
    blueprint,
    "GET",
    "/items/<id:item_id>/similar",
    scope="read",
    query=KQuery,
    answer=ItemListAnswer,
    statuses=(200, 404),
    collect=True,
    by_query=QueryForm("/items/similar", KByIdQuery),
)
def similar(item_id: str, query: KQuery) -> dict[str, Any]:
    """Similar items, according to the model."""
    _check_page(item_id)
    return _list(services().recommender.item_lists.similar(item_id, query.k, now_us()))


@operation(
    blueprint,
    "GET",
    "/items/<id:item_id>/next",
    scope="read",
    query=KQuery,
    answer=ItemListAnswer,
    statuses=(200, 404),
    collect=True,
    by_query=QueryForm("/items/next", KByIdQuery),
)
def following(item_id: str, query: KQuery) -> dict[str, Any]:
    """Items that most often come right after an item."""
    _check_page(item_id)
    return _list(services().recommender.item_lists.following(item_id, query.k, now_us()))


@operation(
    blueprint, "GET", "/items/<id:item_id>", scope="read", answer=ItemOut, statuses=(200, 404)
)
def get_item(item_id: str) -> dict[str, Any]:
    """One item's metadata."""
    return _item(item_id)


@operation(
    blueprint,
    "PATCH",
    "/items/<id:item_id>",
    scope="write",
    body=ItemPatch,
    answer=ItemOut,
    statuses=(200, 404),
    example={"available": False},
    by_query=QueryForm("/items", ItemByIdQuery),
)
def patch_item(item_id: str, body: ItemPatch) -> dict[str, Any]:
    """Update an item's metadata; fields not given keep their value, null removes one.

    `available: false` takes the item out of every answer at once.
    """
    given = check_item({"item_id": item_id, **body.model_dump(exclude_unset=True)})
    with services().database.begin() as connection:
        if not item_rows.get_items(connection, [item_id]):
            raise NotFoundError("item", item_id)
        item_rows.put_items(connection, [given], now_us())
    return _item(item_id)


@operation(
    blueprint,
    "DELETE",
    "/items/<id:item_id>",
    scope="write",
    answer=ItemOut,
    statuses=(200, 404),
    by_query=QueryForm("/items", ItemByIdQuery),
)
def delete_item(item_id: str) -> dict[str, Any]:
    """Delete an item's metadata and return it; its events are kept.

    The item is in no answer until it is stored again (PUT, an import).
    """
    item = _item(item_id)
    with services().database.begin() as connection:
        item_rows.delete_item(connection, item_id)
    return item


def _check_page(item_id: str) -> None:
    """Raises NotFoundError where a page asks for an item that is not in the catalogue."""
    if from_page():
        _item(item_id)


def _list(found: list[RankedItem]) -> dict[str, Any]:
    """A list as it goes out; of what the catalogue does not hold, a page is told nothing."""
    if from_page():
        known = [one for one in found if one.item is not None]
        found = [one._replace(rank=rank) for rank, one in enumerate(known, 1)]
    return {"items": [ranked_out(ranked) for ranked in found]}


def _item(item_id: str) -> dict[str, Any]:
    with services().database.connect() as connection:
        found = item_rows.get_items(connection, [item_id])
    if item_id not in found:
        raise NotFoundError("item", item_id)
    return item_out(found[item_id])
