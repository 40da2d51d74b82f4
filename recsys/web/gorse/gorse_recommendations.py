"""Gorse's recommendations: answers of this service's own ranking, and its lists of items.

Scores fall along a list, as Gorse's do: where a list goes on with items of another source, whose scores
cannot be compared, each is at most the one before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from flask import Blueprint, Response, request

from recsys.errors import InputError, NotFoundError
from recsys.events.fields import Event
from recsys.events.identity import Owner
from recsys.events.times import SECOND_US
from recsys.ingest.gorse_objects import feedback_event
from recsys.ingest.row_conditions import Condition
from recsys.serving import answering
from recsys.serving.answers import Answer, RankedItem, Request
from recsys.storage.entities import feedback_rows, item_pages
from recsys.text_rules import MAX_TYPE_LENGTH, text_problem
from recsys.web.gorse.gorse_feedback import count
from recsys.web.gorse.gorse_protocol import (
    MOST,
    answer,
    body_rows,
    categories,
    refuse,
    require_own_log,
    route,
    span,
)
from recsys.web.paths import check_ids
from recsys.web.services import now_us, services, stamps

CONTEXT = 100  # newest events of a session that count
MAX_DELAY_DAYS = 366
ANYONE = "anyone"  # stands in for the user of a session's feedback
FALLBACK = ("popular", "latest")  # sources that know nothing of whoever asks
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0}
_DURATION = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|ms|s|m|h))+", re.ASCII)
_PART = re.compile(r"([0-9.]+)(ns|us|µs|ms|s|m|h)", re.ASCII)

Scores = list[dict[str, Any]]

blueprint = Blueprint("gorse_recommendations", __name__, url_prefix="/api")


@route(
    blueprint,
    "GET",
    "/recommend/<id:user_id>",
    "/recommend/<id:user_id>/<id:category>",
    scope="read",
)
def recommend(user_id: str, category: str | None = None) -> list[str] | Scores:
    """Ids; with X-API-Version: 2 their scores too. What comes back by write-back is left out next time."""
    write_back, now, rows = _write_back(), now_us(), span()
    if write_back is not None:
        services().keys.require("write")
        require_own_log()
    _enter_due(user_id, now)
    found = _ranked(Request(user_id=user_id, k=rows.stop), category, now)
    shown = replace(found, items=found.items[rows])
    services().impressions.record(shown)
    services().usage.answered(shown)
    if write_back is not None:
        _store_write_back(user_id, shown.items, write_back, now)
    if request.headers.get("X-API-Version") == "2":
        return _scores(found.items)[rows]
    return [one.item_id for one in shown.items]


@route(
    blueprint,
    "POST",
    "/session/recommend",
    "/session/recommend/<id:category>",
    scope="read",
)
def session_recommend(category: str | None = None) -> Scores:
    """What comes next after the feedback of the body, in the order of its times."""
    now, rows = now_us(), span()
    given = [
        feedback_event({**row, "UserId": ANYONE} if isinstance(row, dict) else row, now)
        for row in body_rows()
    ]
    newest = sorted(given, key=lambda event: event.timestamp_us)[-CONTEXT:]
    if not newest:
        return []
    barred = frozenset(event.item_id for event in given)
    asked = Request(events=tuple(newest), k=rows.stop, exclude_items=barred)
    return _scores(_ranked(asked, category, now).items)[rows]


@route(
    blueprint,
    "GET",
    "/collaborative-filtering/<id:user_id>",
    "/collaborative-filtering/<id:user_id>/<id:category>",
    scope="read",
)
def collaborative_filtering(user_id: str, category: str | None = None) -> Response:
    """The ranking for a user without what is popular or new for everybody."""
    now, rows = now_us(), span()
    found = _ranked(Request(user_id=user_id, k=rows.stop), category, now)
    own = [one for one in found.items if one.source not in FALLBACK]
    return _dated(_scores(own)[rows], now)


@route(blueprint, "GET", "/latest", "/latest/<id:category>", scope="read")
def latest(category: str | None = None) -> Scores:
    """The items added last; a score is when, in seconds since 1970."""
    rows, barred = span(), _seen_by_asker()
    named = [*categories(), *([category] if category else [])]
    with services().database.connect() as connection:
        found = item_pages.latest_in(connection, named, min(rows.stop + len(barred), 2 * MOST))
    kept = [one for one in found if one.item_id not in barred][rows]
    return [{"Id": one.item_id, "Score": one.created_at_us // SECOND_US} for one in kept]


@route(blueprint, "GET", "/popular", "/popular/<id:category>", scope="read")
def popular(category: str | None = None) -> Response:
    return non_personalized("popular", category)


@route(blueprint, "GET", "/non-personalized/<id:name>", scope="read")
def non_personalized(name: str, category: str | None = None) -> Response:
    """Popular items, which is the only list there is; a score is how many users an item had."""
    now, rows, barred = now_us(), span(), _seen_by_asker()
    named = [*categories(), *([category] if category else [])]
    if name != "popular":
        return _dated([], now)
    lists = services().recommender.item_lists
    try:
        within = named[0] if named else None
        found = lists.popular(lists.popular_days, within, MOST, now)
    except InputError:  # no item is in the category
        found = []
    return _dated(_scores(_kept(found, named[1:], barred))[rows], now)


@route(
    blueprint,
    "GET",
    "/item/<id:item_id>/neighbors",
    "/item/<id:item_id>/neighbors/<id:category>",
    scope="read",
)
def neighbors(item_id: str, category: str | None = None) -> Scores:
    return item_to_item("neighbors", item_id, category)


@route(blueprint, "GET", "/item-to-item/<id:name>/<id:item_id>", scope="read")
def item_to_item(name: str, item_id: str, category: str | None = None) -> Scores:
    """`neighbors`: similar items. `next`: what most often came right after."""
    now, rows, barred = now_us(), span(), _seen_by_asker()
    named = [*categories(), *([category] if category else [])]
    lists = services().recommender.item_lists
    chosen = {"neighbors": lists.similar, "next": lists.following}.get(name)
    if chosen is None:
        return []
    try:
        found = chosen(item_id, MOST if named or barred else rows.stop, now)
    except NotFoundError:
        return []
    return _scores(_kept(found, named, barred))[rows]


@route(blueprint, "GET", "/user/<id:user_id>/neighbors", scope="read")
def user_neighbors(user_id: str) -> Response:
    refuse(404, "no user-to-user recommender is configured")


@route(blueprint, "GET", "/user-to-user/<id:name>/<id:user_id>", scope="read")
def user_to_user(name: str, user_id: str) -> Response:
    refuse(404, "no user-to-user recommender is configured")


def _ranked(asked: Request, category: str | None, now: int) -> Answer:
    """The answer without items that the user has any feedback of; of all categories that are named."""
    named = [*categories(), *([category] if category else [])]
    further = tuple(Condition("category", "=", name, "category") for name in named[1:])
    within = frozenset(named[:1])
    whole = replace(asked, exclude_seen="all", categories=within, conditions=further)
    try:
        return answering.recommend(services().recommender, whole, now, stamps())
    except InputError as error:
        if error.field != "categories":
            raise
        new_id = services().recommender.new_id()  # no item is in the category
        return Answer(new_id, asked.user_id, None, None, now, 0, None, None)


def _scores(items: Iterable[RankedItem]) -> Scores:
    """Ids and scores, which never rise."""
    lowest = float("inf")
    found = []
    for one in items:
        lowest = min(lowest, one.score)
        found.append({"Id": one.item_id, "Score": lowest})
    return found


def _kept(found: list[RankedItem], named: list[str], barred: set[str]) -> list[RankedItem]:
    """Those in all of the categories `named` and not `barred`."""
    return [
        one
        for one in found
        if one.item_id not in barred
        and set(named) <= set(one.item.categories if one.item is not None else ())
    ]


def _seen_by_asker() -> set[str]:
    """Items that the user of `user-id` has any event of."""
    user_id = request.args.get("user-id")
    if not user_id:
        return set()
    check_ids({"user-id": user_id})
    with services().database.connect() as connection:
        return services().recommender.source.seen_items(connection, Owner(user_id, None), None)


def _dated(scores: Scores, now: int) -> Response:
    response = answer(scores)
    response.headers["Last-Modified"] = formatdate(now / SECOND_US, usegmt=True)
    return response


def _write_back() -> tuple[str, int] | None:
    """The type of the feedback that is to be written back, and in how many µs; None: none is."""
    feedback_type = request.args.get("write-back-type")
    delay = _delay_us(request.args.get("write-back-delay", ""))
    if not feedback_type:
        return None
    if problem := text_problem(feedback_type, MAX_TYPE_LENGTH):
        raise InputError("write-back-type", feedback_type, problem)
    return feedback_type, delay


def _delay_us(text: str) -> int:
    """The µs of a duration of Go's, such as 1h30m.

    >>> _delay_us("1h30m"), _delay_us("1.5s"), _delay_us("")
    (5400000000, 1500000, 0)
    """
    if text in ("", "0"):
        return 0
    if not _DURATION.fullmatch(text) or len(text) > 40:
        refuse(400, f'time: invalid duration "{text[:40]}"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if text.startswith("-") or seconds > MAX_DELAY_DAYS * 86_400:
        raise InputError("write-back-delay", text, f"expected 0 to {MAX_DELAY_DAYS} days")
    return round(seconds * 1e6)


def _enter_due(user_id: str, now: int) -> None:
    """Let feedback of the user count whose time has come."""
    database = services().database
    with database.read() as connection:
        if not feedback_rows.is_due(connection, now, user_id):
            return
    with database.begin() as connection:
        feedback_rows.enter_due(connection, now, user_id)


def _store_write_back(
    user_id: str, items: list[RankedItem], write_back: tuple[str, int], now: int
) -> None:
    """Feedback of what was answered, of a user who is known; no user and no item is made by it."""
    feedback_type, delay_us = write_back
    given = [
        Event(user_id, None, one.item_id, feedback_type, now + delay_us, value=0.0) for one in items
    ]
    with services().database.begin() as connection:
        if not given or not feedback_rows.is_known(connection, user_id):
            return
        written = feedback_rows.write_feedback(connection, given, False, now)
    count(written, now)
