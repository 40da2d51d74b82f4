"""/shop: what a shop's own backend would give its page: tiles, categories, pictures, explanations.

Clicks and recommendations go from the page through REST, with a key of scope `collect`. These routes
are added to an app only where `serving.storefront_key` is set, as the demo does.
"""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint, Flask, Response, render_template
from pydantic import Field

from recsys.config import NETWORKS
from recsys.demo.launches import VISITOR
from recsys.demo.storefront.pictures import picture
from recsys.events.fields import Event
from recsys.models.blend import BLEND, COPY, TRENDING, TRENDING_DAY
from recsys.models.rankers import RANKERS
from recsys.serving import answering
from recsys.serving.answers import Request
from recsys.storage.entities import item_rows
from recsys.web.api.answer_schemas import item_out, ranked_out
from recsys.web.cursors import read_cursor, write_cursor
from recsys.web.fields import Cursor, Id, Search, Strict
from recsys.web.operations import dumps, read_query
from recsys.web.parameters import takes
from recsys.web.services import now_us, services

blueprint = Blueprint(
    "shop",
    __name__,
    static_folder="static",
    static_url_path="/static/shop",
    template_folder="templates",
)

BETWEEN_CLICKS_US = 10_000_000
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
SOURCES = {  # what gave an item -> what a shopper reads
    **dict.fromkeys((*NETWORKS, BLEND), "for you"),
    **{name: kind.visitor_label for name, kind in RANKERS.items()},
    COPY: "seen before",
    TRENDING: "trending now",
    TRENDING_DAY: "trending today",
    "latest": "new",
}


class TilesQuery(Strict):
    """Which tiles."""

    q: Annotated[Search, Field(max_length=100)] = ""
    category: Id | None = None
    limit: Annotated[int, Field(ge=1, le=60)] = 24
    cursor: Cursor | None = None


class VisitorQuery(Strict):
    """Whose recommendations are explained."""

    session_id: Annotated[Id, Field(pattern=f"^{VISITOR}")]
    k: Annotated[int, Field(ge=1, le=24)] = 12


class SequenceQuery(Strict):
    """Products in the order in which they are looked at."""

    item_id: Annotated[list[Id], Field(min_length=1, max_length=12)]
    k: Annotated[int, Field(ge=1, le=24)] = 12


class PopularTilesQuery(Strict):
    k: Annotated[int, Field(ge=1, le=24)] = 12


def add_storefront(app: Flask) -> Flask:
    """`app` with the storefront's pages, as `recsys.web.server.serve` takes it for `wrap`."""
    app.register_blueprint(blueprint)
    return app


@blueprint.get("/shop", strict_slashes=False)
def page() -> Response:
    """The storefront."""
    key = services().settings.serving.storefront_key
    answer = Response(render_template("shop.html", key=key, visitor=VISITOR, sources=SOURCES))
    answer.headers["Content-Security-Policy"] = PAGE_POLICY
    return answer


@blueprint.get("/shop/items")
@takes(*TilesQuery.model_fields)
def tiles() -> Response:
    """A page of the catalogue."""
    query = read_query(TilesQuery)
    assert isinstance(query, TilesQuery)
    after = read_cursor(query.cursor)
    with services().database.connect() as connection:
        if query.category is not None:
            item_rows.check_category(connection, query.category)
        found = item_rows.list_items(
            connection, query.q or None, query.category, query.limit, after
        )
    last = found[-1].item_id if len(found) == query.limit else None
    return _json(
        {
            "items": [item_out(item) for item in found if item.available],
            "next_cursor": write_cursor(last) if last is not None else None,
        }
    )


@blueprint.get("/shop/categories")
def categories() -> Response:
    """The departments: what items name first."""
    with services().database.connect() as connection:
        return _json({"categories": item_rows.departments(connection, 1_000)[:40]})


@blueprint.get("/shop/popular")
@takes(*PopularTilesQuery.model_fields)
def popular() -> Response:
    """What everyone gets."""
    query = read_query(PopularTilesQuery)
    assert isinstance(query, PopularTilesQuery)
    found = services().recommender.item_lists.popular(7, None, query.k, now_us())
    return _json({"items": [ranked_out(one) for one in found]})


@blueprint.get("/shop/why")
@takes(*VisitorQuery.model_fields)
def why() -> Response:
    """A visitor's recommendations with the past events behind each."""
    query = read_query(VisitorQuery)
    assert isinstance(query, VisitorQuery)
    asked = Request(
        session_id=query.session_id, k=query.k, exclude_seen="all", explain=True, from_page=True
    )
    answer = answering.recommend(services().recommender, asked, now_us())
    return _json({"items": [ranked_out(one) for one in answer.items]})


@blueprint.get("/shop/sequence")
@takes("k", repeated=("item_id",))
def sequence() -> Response:
    """What a visitor who looked at these products, in this order, would be recommended."""
    query, now = read_query(SequenceQuery), now_us()
    assert isinstance(query, SequenceQuery)
    first = now - len(query.item_id) * BETWEEN_CLICKS_US
    events = tuple(
        Event(None, VISITOR, item_id, "view", first + place * BETWEEN_CLICKS_US)
        for place, item_id in enumerate(query.item_id)
    )
    asked = Request(events=events, k=query.k, exclude_seen="all", from_page=True)
    answer = answering.recommend(services().recommender, asked, now)
    return _json({"items": [ranked_out(one) for one in answer.items]})


@blueprint.get("/shop/pictures/<kind>/<style>/<pattern>.svg")
def product_picture(kind: str, style: str, pattern: str) -> Response:
    """A product's picture, drawn from what it is."""
    answer = Response(picture(kind, style, pattern), mimetype="image/svg+xml")
    answer.headers["Content-Security-Policy"] = PICTURE_POLICY
    answer.headers["Cache-Control"] = "public, max-age=86400"
    return answer


def _json(content: dict[str, Any]) -> Response:
    return Response(dumps(content), mimetype="application/json")
