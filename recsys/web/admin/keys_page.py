"""Keys: API keys and their scopes; create one, revoke one."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, g, make_response, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from recsys.commands import credentials
from recsys.errors import ConflictError, InputError
from recsys.events.times import DAY_US
from recsys.storage.dashboard.activity_rows import uses_by_name
from recsys.storage.entities import key_rows
from recsys.storage.entities.key_rows import SCOPES
from recsys.web.admin.access import PREFIX, done, view
from recsys.web.admin.queries import choice, pages, words
from recsys.web.admin.sorting import Columns, SortedList, sort_of
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_keys", __name__, url_prefix=f"{PREFIX}/keys")

STATES = ("active", "revoked", "all")
NARROWED_BY = ("state", "q")
USED_DAYS = 30  # over which requests are added up
MAX_NAME, MAX_ORIGINS = 100, 20
MEANING = {
    "read": "Reads recommendations, items, users, models and jobs. For your servers.",
    "write": "Sends events and items, merges users. For your servers.",
    "admin": "Does everything read and write can, and promotes models, runs jobs and erases users. For "
    "people and scripts you trust.",
    "collect": "Safe to publish in a web page: sends events of one session, reads that session's "
    "recommendations, reports which were seen, and lists similar, next and popular items, only from the "
    "origins you name and with a limit per minute.",
}


@view(blueprint, "", role="viewer", query=(*NARROWED_BY, "sort", "cursor"))
def index() -> str:
    """The keys, without their secrets."""
    state, text = choice("state", STATES, "active"), words("q")
    with services().database.connect() as connection:
        every = key_rows.list_keys(connection)
        now = now_us()
        since = now - USED_DAYS * DAY_US
        uses = uses_by_name(connection, "key", since, now)
    rows = [
        row for row in every if state == "all" or (row.revoked_at_us is None) == (state == "active")
    ]
    if text is not None:
        rows = [row for row in rows if text.lower() in f"{row.name} {row.key_id}".lower()]
    columns: Columns = {
        "name": lambda row: row.name.casefold(),
        "created": lambda row: row.created_at_us,
        "used": lambda row: uses[row.key_id].last_us if row.key_id in uses else None,
        "requests": lambda row: uses[row.key_id].number if row.key_id in uses else 0,
    }
    sort = sort_of(columns, "-created")
    page, more = SortedList(columns, sort, lambda row: row.key_id).page(rows)
    return render_template(
        "admin/keys.html",
        rows=page,
        sort=sort,
        query={k: v for k, v in request.args.items() if k in NARROWED_BY},
        state=state,
        uses=uses,
        since_us=since,
        counts={
            "active": sum(row.revoked_at_us is None for row in every),
            "revoked": sum(row.revoked_at_us is not None for row in every),
            "all": len(every),
        },
        auth=services().settings.auth,
        days=USED_DAYS,
        **pages(more),
    )


@view(blueprint, "/new", role="admin")
def new() -> Response:
    """The form for a key."""
    return _form()


@view(blueprint, "/new", role="admin", methods=("POST",))
def create() -> Response:
    """Make a key and show it, this once: nothing but its hash is stored."""
    name = request.form.get("name", "").strip()
    scopes = [scope for scope in SCOPES if scope in request.form.getlist("scope")]
    origins = [one.rstrip("/") for one in request.form.get("origins", "").split()]
    try:
        if len(origins) > MAX_ORIGINS:
            raise InputError("origins", len(origins), f"expected {MAX_ORIGINS} at most")
        database = services().database
        key = credentials.create_key(
            database, actor(), name, scopes, origins, now_us(), new_name=True
        )
    except InputError as error:
        return _form(error.field, _say(error), 422)
    except ConflictError as error:
        return _form("name", f"{error}.", 409)
    page = render_template("admin/key_made.html", key=key, name=name, scopes=scopes)
    return make_response(page, 201)


@view(blueprint, "/<key_id>/revoke", role="admin", methods=("POST",))
def revoke(key_id: str) -> AnyResponse:
    """Refuse a key from the next request on."""
    name = credentials.revoke_key(services().database, actor(), key_id, now_us())
    return done(f"Key {name} revoked.", "admin_keys.index")


def _say(error: InputError) -> str:
    """What is wrong with a field, for the person at the form."""
    texts = {
        "scopes": "Choose at least one scope.",
        "name": f"Enter a name of 1 to {MAX_NAME} characters.",
        "allowed_origins": "A key of scope collect needs the origins of its pages.",
    }
    if error.field == "allowed_origins" and isinstance(error.value, str):
        return f"{error.value[:100]}: {error.expected}."
    if error.field == "scopes" and "public" in error.expected:
        return "A key of scope collect is public and cannot have another scope."
    if error.field == "allowed_origins" and error.value:
        return "Only keys of scope collect have origins."
    return texts.get(error.field, f"{error.expected}.")


def _form(field: str | None = None, problem: str | None = None, status: int = 200) -> Response:
    given: dict[str, Any] = {
        "name": request.form.get("name", "")[:MAX_NAME],
        "scopes": request.form.getlist("scope") if request.form else ["read"],
        "origins": request.form.get("origins", "")[:2_000],
    }
    page = render_template(
        "admin/key_new.html",
        meaning=MEANING,
        given=given,
        field={"allowed_origins": "origins"}.get(field or "", field),
        problem=problem,
        per_minute=services().settings.auth.collect_per_minute,
        account=g.account,
    )
    return make_response(page, status)
