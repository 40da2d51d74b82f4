"""Users: who was here, one of them beside what would be recommended now, and any answer replayed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from recsys.commands import user_data
from recsys.config.exclude_seen import check_exclude_seen, chosen
from recsys.errors import ConflictError, InputError, NotFoundError
from recsys.events.identity import Owner
from recsys.serving import answering
from recsys.serving.answers import Request
from recsys.serving.top_k import filtered_items
from recsys.storage.dashboard import visitor_views
from recsys.storage.dashboard.visitor_views import EventPosition, VisitorQuery
from recsys.storage.engine.database import Connection
from recsys.storage.entities import (
    attribute_rows,
    click_rows,
    history_rows,
    impression_rows,
    item_rows,
    tombstone_rows,
)
from recsys.text_rules import stored_text_problem
from recsys.web.admin import time_line
from recsys.web.admin.access import PREFIX, done, flash, view
from recsys.web.admin.queries import PAGE_ROWS, choice, pages, words
from recsys.web.admin.sorting import Columns, SortedList, sort_of
from recsys.web.cursors import read_cursor, read_number, write_cursor
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_users", __name__, url_prefix=f"{PREFIX}/users")
blueprint.add_app_template_filter(time_line.badge, "event_mark")

KINDS = ("registered", "anonymous")
RECENT = 100  # visitors among whom a list is sorted
ARRIVED = "-arrived"  # the sort without one
COLUMNS: Columns = {
    "name": lambda one: one.name,
    "events": lambda one: one.events,
    "last": lambda one: one.last_event_us,
}
ASKED = ("user_id", "session_id", "exclude_seen", "k")
MOMENTS = 60  # events on one page of a time line
COUNTED = 100_000  # events of one user that are counted
ANSWERS = 10
LENGTHS = ("10", "20", "50")


@view(blueprint, "", role="viewer", query=("kind", "q", "sort", "cursor"))
def index() -> str:
    """Who was here last, or whose id begins with what is searched for.

    Without `sort` by the arrival of their newest event, however long ago that happened; with it, the
    RECENT who arrived last are sorted.
    """
    sort = sort_of(COLUMNS, ARRIVED)
    kind = choice("kind", KINDS)
    asked = words("q")
    if asked is not None:
        _check("q", asked)
    more, views = None, services().event_views
    with services().database.connect() as connection:
        if asked is not None:
            found = views.visitors_like(connection, asked, 50, now_us=now_us())
            scanned = 0
        elif sort == ARRIVED:
            before = read_number(request.args.get("cursor"))
            query = VisitorQuery(PAGE_ROWS, now_us(), before, kind)
            page = views.recent_visitors(connection, query)
            found, scanned = page.visitors, page.scanned
            more = None if page.next_id is None else write_cursor(str(page.next_id))
        else:
            page = views.recent_visitors(connection, VisitorQuery(RECENT, now_us(), None, kind))
            scanned = page.scanned
            found, more = SortedList(COLUMNS, sort, lambda one: one.key).page(page.visitors)
        items = item_rows.get_items(connection, [one.last_item_id for one in found])
    return render_template(
        "admin/users.html",
        visitors=found,
        sort=sort,
        arrived=ARRIVED,
        recent=RECENT,
        query={} if kind is None else {"kind": kind},
        items=items,
        asked=asked,
        scanned=scanned,
        counted=visitor_views.COUNTED,
        **pages(more),
    )


@view(blueprint, "/one", role="viewer", query=(*ASKED, "cursor"))
def show() -> Any:
    """One user (`user_id`) or session (`session_id`): their time line."""
    owner = _who(request.args)
    user_id, key = owner.user_id, owner.key
    before = _place(request.args.get("cursor"))
    _list_asked_for()  # the part of the page that shows it is loaded by itself
    shared = services()
    bundle = shared.recommender.bundle()
    gap_seconds = (
        bundle.session_gap_seconds
        if bundle is not None
        else shared.settings.sequences.session_gap_minutes * 60
    )
    with shared.database.connect() as connection:
        count = shared.event_views.count_events(connection, owner, COUNTED)
        merged = () if user_id is None else history_rows.merged_into(connection, user_id)
        target = visitor_views.merged_to(connection, key)
        attributes = None if user_id is None else attribute_rows.get_attributes(connection, user_id)
        if not count and not merged and target is None and attributes is None:
            if tombstone_rows.is_erased(connection, [key]):
                return render_template("admin/user_erased.html", name=key[2:]), 410
            raise NotFoundError("user" if user_id is not None else "session", key[2:])
        rows = shared.event_views.time_line(connection, owner, MOMENTS + 1, before)
        answers = visitor_views.answers_to(connection, owner, ANSWERS)
        shown = rows[:MOMENTS]
        items = item_rows.get_items(connection, {row.item_id for row in shown})
    found = time_line.visits(shown[::-1], gap_seconds)
    shape_of = time_line.shapes(sorted({row.event_type for row in shown}))
    titles = {item_id: item.title or item_id for item_id, item in items.items()}
    more = None
    if len(rows) > MOMENTS:
        more = write_cursor(f"{shown[-1].timestamp_us},{shown[-1].id}")
    return render_template(
        "admin/user.html",
        user_id=user_id,
        session_id=owner.session_id,
        name=key[2:],
        who={"session_id" if user_id is None else "user_id": key[2:]},
        count=count,
        counted=COUNTED,
        merged=merged,
        attributes=attributes,
        target=target,
        visits=found[::-1],
        moments=len(shown),
        newest_us=shown[0].timestamp_us if shown else None,
        strip=time_line.strip(found, shape_of, titles),
        shapes=shape_of,
        items=items,
        answers=answers,
        types=sorted(bundle.event_types) if bundle is not None else [],
        read=set(bundle.input_event_types) if bundle is not None else set(),
        lengths=LENGTHS,
        gap_seconds=gap_seconds,
        **pages(more),
    )


@view(blueprint, "/one/next", role="viewer", query=ASKED)
def recommended() -> str:
    """A part of a user's page: what would be recommended now, and why."""
    owner, shared = _who(request.args), services()
    k, exclude = _list_asked_for()
    ids = (owner.user_id, owner.session_id)
    asked = Request(*ids, k=k, exclude_seen=exclude, explain=True)
    now = now_us()
    answer = answering.recommend(shared.recommender, asked, now)
    filtered = [] if answer.degraded else filtered_items(shared.recommender, asked, now)
    reasons = {why.item_id for one in answer.items for why in one.reason or ()}
    with shared.database.connect() as connection:
        items = item_rows.get_items(connection, reasons)
    return render_template("admin/user_next.html", answer=answer, filtered=filtered, items=items)


@view(blueprint, "/answer", role="viewer", query=("recommendation_id",))
def answer() -> str:
    """An answer as it was given: what it showed, why, and what was clicked of it."""
    given = words("recommendation_id")
    if given is None:
        raise InputError("recommendation_id", given, "expected the id of an answer")
    _check("recommendation_id", given)
    shared = services()
    shared.impressions.shown_up_to(given, wait=False)  # writes what waits in this process
    with shared.database.connect() as connection:
        found = impression_rows.get_impression(connection, given)
        if found is None:
            raise NotFoundError("stored answer", given)
        clicks: dict[str, list[dict[str, Any]]] = {}
        for click in click_rows.clicks_of(connection, given):
            clicks.setdefault(click["item_id"], []).append(click)
        ids = {one.item_id for one in found.items}
        ids.update(why["item_id"] for each in (found.reasons or {}).values() for why in each)
        items = item_rows.get_items(connection, ids)
    return render_template("admin/answer.html", answer=found, clicks=clicks, items=items)


@view(blueprint, "/merge", role="operator", methods=("POST",))
def merge() -> Response:
    """Count an anonymous session's events, or another user's, as a user's."""
    user_id = _form("user_id")
    session_id, other = request.form.get("session_id", ""), request.form.get("other_id", "")
    if bool(session_id) == bool(other):
        raise InputError("session_id", session_id, "expected one of a session and a user")
    key = f"s:{_form('session_id')}" if session_id else f"u:{_form('other_id')}"
    try:
        with services().database.connect() as connection:
            _check_known(connection, key)
        target = user_data.merge(services().database, actor(), user_id, key, now_us())
    except (ConflictError, NotFoundError) as error:
        flash("bad", f"Not merged: {error}.")
        if request.form.get("from") == "session":
            return redirect(url_for(".show", session_id=key[2:]), 303)
        return redirect(url_for(".show", user_id=user_id), 303)
    return done(f"Events of {key[2:]} now count as {target}'s.", ".show", user_id=target)


@view(blueprint, "/erase", role="admin", methods=("POST",))
def erase_user() -> str:
    """Erase a user everywhere, for good, and show the receipt."""
    user_id = _form("user_id")
    shared = services()
    receipt = user_data.erase(shared.settings, shared.database, actor(), user_id, now_us())
    return render_template(
        "admin/receipt.html",
        receipt=receipt,
        text=json.dumps(asdict(receipt), indent=2, ensure_ascii=False),
    )


def _check_known(connection: Connection, key: str) -> None:
    """Raises NotFoundError where 'u:<user_id>' or 's:<session_id>' has no event."""
    if not services().event_views.count_events(connection, Owner.of(key), 1):
        raise NotFoundError("user" if key.startswith("u:") else "session", key[2:])


def _list_asked_for() -> tuple[int, str]:
    """How many items, and the event types whose items are left out. Raises InputError."""
    configured = services().settings.serving.exclude_seen
    exclude = chosen(request.args.get("exclude_seen"), configured)
    try:
        check_exclude_seen(exclude)
    except ValueError as error:
        raise InputError("exclude_seen", exclude, str(error)) from None
    return int(choice("k", LENGTHS, "10") or 10), exclude


def _who(given: Any) -> Owner:
    """The user or session, of which one is given. Raises InputError."""
    user_id, session_id = given.get("user_id"), given.get("session_id")
    if (user_id is None) == (session_id is None):
        raise InputError("user_id", user_id, "expected one of user_id and session_id")
    _check("user_id" if session_id is None else "session_id", user_id or session_id)
    return Owner(user_id, session_id)


def _form(name: str) -> str:
    value = request.form.get(name, "")
    _check(name, value)
    return value


def _check(name: str, value: str | None) -> None:
    if problem := stored_text_problem(value):
        raise InputError(name, value, problem)


def _place(cursor: str | None) -> EventPosition | None:
    """Where a page of a time line goes on. Raises InputError."""
    text = read_cursor(cursor)
    if text is None:
        return None
    time_us, _, row_id = text.partition(",")
    for part in (time_us, row_id):
        if not (part.isascii() and part.isdigit() and len(part) < 19):
            raise InputError("cursor", cursor, "expected the next_cursor of an earlier page")
    return EventPosition(int(time_us), int(row_id))
