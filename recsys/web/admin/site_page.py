"""Add to your site: the markup of a page filled in, a key for it, and whether it works."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, render_template, request

from recsys.commands import credentials
from recsys.errors import ConflictError, InputError
from recsys.storage.dashboard.page_signals import page_signals
from recsys.storage.entities import item_rows, key_rows
from recsys.storage.entities.key_rows import KeyRow
from recsys.web.admin.access import PREFIX, view
from recsys.web.admin.queries import words
from recsys.web.api_keys import COLLECT
from recsys.web.page_client import ADDRESS
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_site", __name__, url_prefix=f"{PREFIX}/site")

UNKNOWN_KEY = "YOUR_KEY"  # where the key itself is not known: only its hash is stored
EXAMPLES = 3  # items of the catalogue that the complete page links to


@view(blueprint, "", role="viewer", query=("key",))
def index() -> Response:
    """The markup for a page of the newest key, or of the one that is asked for."""
    keys = _page_keys()
    wanted = words("key")
    chosen = next((one for one in keys if wanted in (None, one.key_id)), None)
    return _page(keys, chosen)


@view(blueprint, "/key", role="admin", methods=("POST",))
def create() -> Response:
    """Create a key for a page's origin and show the markup with it, this once."""
    origin = request.form.get("origin", "").strip().rstrip("/")[:300]
    try:
        key = credentials.create_key(
            services().database,
            actor(),
            f"page {origin}"[:100],
            [COLLECT],
            [origin],
            now_us(),
            new_name=True,
        )
    except InputError as error:
        return _page(_page_keys(), None, problem=f"{origin[:100]}: {error.expected}.", status=422)
    except ConflictError as error:
        return _page(_page_keys(), None, problem=f"{error}.", status=409)
    keys = _page_keys()
    chosen = next(one for one in keys if one.key_id == key_rows.key_id_of(key))
    return _page(keys, chosen, key=key, status=201)


@view(blueprint, "/signals", role="viewer", live=True, query=("since",))
def signals() -> str:
    """What has come from pages since a moment, for the page to keep up to date."""
    given = request.args.get("since", "")
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise InputError("since", given, "expected µs since 1970")
    with services().database.connect() as connection:
        found = page_signals(connection, int(given))
    return render_template("admin/site_signals.html", found=found, since_us=int(given))


def _page_keys() -> list[KeyRow]:
    """The active keys of pages, newest first."""
    with services().database.connect() as connection:
        every = key_rows.list_keys(connection)
    return [one for one in reversed(every) if COLLECT in one.scopes and one.revoked_at_us is None]


def _page(
    keys: list[KeyRow],
    chosen: KeyRow | None,
    key: str | None = None,
    problem: str | None = None,
    status: int = 200,
) -> Response:
    events = services().settings.events
    since_us = now_us() if chosen is None else chosen.created_at_us
    with services().database.connect() as connection:
        found = page_signals(connection, since_us)
        items = item_rows.list_items(connection, None, None, EXAMPLES, None)
    page = render_template(
        "admin/site.html",
        keys=keys,
        chosen=chosen,
        key=key,
        shown_key=key or UNKNOWN_KEY,
        problem=problem,
        origin=request.form.get("origin", "")[:300],
        client=request.host_url.rstrip("/") + ADDRESS,
        found=found,
        since_us=since_us,
        examples=items,
        posts=not events.mapped or events.accept_posts,
    )
    return make_response(page, status)
