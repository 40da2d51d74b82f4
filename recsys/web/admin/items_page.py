"""Items: the catalogue, one item, and how unevenly items are shown."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, render_template, request
from werkzeug.wrappers import Response

from recsys.commands import catalogue
from recsys.config import NETWORKS
from recsys.errors import InputError, NotFoundError
from recsys.events.times import DAY_US, HOUR_US
from recsys.serving.answers import RankedItem
from recsys.storage.dashboard import catalogue_views
from recsys.storage.dashboard.catalogue_views import ItemEvents, ItemQuery, Position
from recsys.storage.dashboard.revenue import item_revenue
from recsys.storage.entities import item_rows
from recsys.text_rules import stored_text_problem
from recsys.web.admin import exposures, figures, tiles
from recsys.web.admin.access import PREFIX, done, view
from recsys.web.admin.queries import PAGE_ROWS, TimeRange, choice, pages, words
from recsys.web.admin.svg import Chart
from recsys.web.cursors import read_cursor, write_cursor
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_items", __name__, url_prefix=f"{PREFIX}/items")
for _name, _function in tiles.FILTERS.items():
    blueprint.add_app_template_filter(_function, _name)
blueprint.add_app_template_global(tiles.initials, "initials")

NARROWED_BY = ("q", "category", "availability")
AVAILABILITY = {"shown": True, "hidden": False}
CATEGORIES = 300  # offered in the filter
NEIGHBOURS = 8
UNLISTED = 8  # ids found that only the model knows
SOLD_DAYS = 30  # of what was sold of an item


@view(blueprint, "", role="viewer", query=(*NARROWED_BY, "sort", "cursor"))
def index() -> str:
    """The catalogue: searched, filtered, sorted, page by page."""
    sorts = [turn + name for name in catalogue_views.SORTS for turn in ("", "-")]
    sort = choice("sort", sorts, "-added") or "-added"
    available = choice("availability", AVAILABILITY)
    asked, category = words("q"), words("category")
    for name, given in (("q", asked), ("category", category)):
        if given is not None and (problem := stored_text_problem(given)):
            raise InputError(name, given, problem)
    query = ItemQuery(asked, category, None if available is None else AVAILABILITY[available])
    with services().database.connect() as connection:
        if category is not None:
            item_rows.check_category(connection, category)
        page, position = catalogue_views.list_items(
            connection, query, sort, PAGE_ROWS, _position(request.args.get("cursor"))
        )
        exposure = exposures.exposure(connection)
        return render_template(
            "admin/items.html",
            page=page,
            sort=sort,
            asked=asked,
            query={k: v for k, v in request.args.items() if k in NARROWED_BY},
            categories=catalogue_views.categories(connection, CATEGORIES),
            size=catalogue_views.catalogue_size(connection),
            exposure=exposure,
            unlisted=_only_in_the_model(asked, {item.item_id for item in page}),
            **pages(None if position is None else write_cursor(orjson.dumps(position).decode())),
        )


@view(blueprint, "/exposure", role="viewer", query=("cursor",))
def exposed() -> str:
    """How the places in answers are shared, and the items that were never shown."""
    after = read_cursor(request.args.get("cursor"))
    with services().database.connect() as connection:
        found = exposures.exposure(connection)
        size = catalogue_views.catalogue_size(connection)
        shared = exposures.concentration(list(found.shown.values()), size["items"])
        unseen, position = catalogue_views.never_shown(connection, found.shown, PAGE_ROWS, after)
        top = found.shown.most_common(10)
        items = item_rows.get_items(connection, [item_id for item_id, _ in top])
    return render_template(
        "admin/exposure.html",
        exposure=found,
        shared=shared,
        chart=None if shared is None else exposures.curve_chart(shared),
        top=top,
        places=found.shown.total(),
        items=items,
        unseen=unseen,
        size=size,
        **pages(None if position is None else write_cursor(position)),
    )


@view(blueprint, "/one", role="viewer", query=("item_id",))
def show() -> str:
    """One item."""
    item_id = request.args.get("item_id", "")
    _check(item_id)
    shared, now = services(), now_us()
    bundle = shared.recommender.bundle()
    known = bundle is not None and item_id in bundle.vocabulary
    with shared.database.connect() as connection:
        item = item_rows.get_items(connection, [item_id]).get(item_id)
        exposure = exposures.exposure(connection)
        counted = shared.event_views.item_events(connection, item_id, HOUR_US, now_us=now)
        currency = shared.settings.attribution.currency
        sold = item_revenue(connection, item_id, now - SOLD_DAYS * DAY_US, now, currency)
    if item is None and not known and not counted.steps:
        raise NotFoundError("item", item_id)
    places, clicks = exposure.shown.total(), exposure.clicked.total()
    return render_template(
        "admin/item.html",
        item_id=item_id,
        item=item,
        known=known,
        version=bundle.version if bundle is not None else None,
        chart=_chart(counted, now),
        counted=counted,
        sold=sold,
        events=sum(number for _, _, number in counted.steps),
        exposure=exposure,
        shown_share=exposure.shown[item_id] / places if places else None,
        click_share=exposure.clicked[item_id] / clicks if clicks else None,
        similar=_neighbours(shared.recommender.item_lists.similar, item_id, now),
        following=_neighbours(shared.recommender.item_lists.following, item_id, now),
    )


@view(blueprint, "/availability", role="operator", methods=("POST",))
def set_availability() -> Response:
    """Let an item into answers, or keep it out of them, from the next request on."""
    item_id, given = request.form.get("item_id", ""), request.form.get("available", "")
    _check(item_id)
    if given not in ("true", "false"):
        raise InputError("available", given, "expected true or false")
    shared = services()
    bundle = shared.recommender.bundle()
    with shared.database.connect() as connection:
        listed = item_id in item_rows.get_items(connection, [item_id])
    if not listed and (bundle is None or item_id not in bundle.vocabulary):
        raise NotFoundError("item", item_id)
    catalogue.set_availability(shared.database, actor(), item_id, given == "true", now_us())
    text = "can be recommended again" if given == "true" else "is hidden from all answers"
    return done(f"{item_id} {text}.", ".show", item_id=item_id)


def _neighbours(find: Any, item_id: str, now: int) -> list[RankedItem]:
    try:
        found: list[RankedItem] = find(item_id, NEIGHBOURS, now)
    except NotFoundError:
        return []
    return [one for one in found if one.score > 0 or one.source in NETWORKS]


def _only_in_the_model(text: str | None, listed: set[str]) -> list[str]:
    """Ids with `text` in them that the model knows and the catalogue's page does not show."""
    bundle = services().recommender.bundle()
    if text is None or bundle is None:
        return []
    found = model_ids(bundle.vocabulary.item_ids, text, UNLISTED + len(listed))
    missing = [item_id for item_id in found if item_id not in listed]
    with services().database.connect() as connection:
        metadata = item_rows.get_items(connection, missing)
    return [item_id for item_id in missing if item_id not in metadata][:UNLISTED]


def model_ids(item_ids: list[str], text: str, limit: int) -> list[str]:
    """At most `limit` of `item_ids` that hold `text`, without regard to case; an equal one first."""
    wanted, found = text.casefold(), []
    for item_id in item_ids:
        if wanted in item_id.casefold():
            found.append(item_id)
            if len(found) == limit:
                break
    if text in item_ids and text not in found:
        found.insert(0, text)
    return sorted(found, key=lambda item_id: item_id != text)


def _chart(counted: ItemEvents, now: int) -> Chart:
    """Events by type over the stretch that was looked at; in hours, or days where it is long."""
    since = max(0, counted.since_us if counted.since_us is not None else now)
    first = min([since, *(step for step, _, _ in counted.steps)])
    last = max([now, *(step + HOUR_US for step, _, _ in counted.steps)])
    if not counted.steps:
        return Chart("popularity", "Events over time", [], [], "No events of this item.")
    # A log from long ago is shown where it ends, not up to today.
    last = min(last, max(step for step, _, _ in counted.steps) + DAY_US)
    length = last - first
    step = HOUR_US if length <= 4 * DAY_US else DAY_US
    while length / step > 400:
        step *= 7 if step == DAY_US else 2
    chosen = TimeRange("custom", first, last)
    found = figures.by_name(((at, kind, n) for at, kind, n in counted.steps), chosen, step)
    return Chart(
        "popularity", "Events over time", found.x, found.series(),
        f"{found.total:,} events of this item.", "stacked", whole=True,
    )  # fmt: skip


def _position(cursor: str | None) -> Position | None:
    """Where a page of the catalogue begins. Raises InputError."""
    text = read_cursor(cursor)
    if text is None:
        return None
    try:
        value, item_id = orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError, ValueError):
        value, item_id = None, None
    if not _fits(value) or stored_text_problem(item_id):
        raise InputError("cursor", cursor, "expected the next_cursor of an earlier page")
    return value, item_id


def _fits(value: Any) -> bool:
    """Whether a database can hold it: a text without NUL, or a number within 64 bits."""
    if isinstance(value, str):
        return "\0" not in value
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63


def _check(item_id: str) -> None:
    if problem := stored_text_problem(item_id):
        raise InputError("item_id", item_id, problem)
