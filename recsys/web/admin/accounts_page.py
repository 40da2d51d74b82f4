"""Accounts of the dashboard: make one, change its role, disable it, give it a new password."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, make_response, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from recsys.commands import credentials
from recsys.errors import ConflictError, InputError
from recsys.storage.entities import account_rows
from recsys.storage.entities.account_rows import ROLES
from recsys.storage.entities.passwords import MAX_LENGTH, MIN_LENGTH, new_password
from recsys.web.admin.access import PREFIX, done, view
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_accounts", __name__, url_prefix=f"{PREFIX}/accounts")

MAX_NAME = 64
MEANING = {
    "viewer": "Can view every page but change nothing.",
    "operator": "Can also run jobs, promote and roll back models, hide items and read the audit log.",
    "admin": "Can do everything, including managing keys and accounts and erasing users.",
}


@view(blueprint, "", role="admin")
def index() -> str:
    """The accounts, and who is logged in."""
    auth, now = services().settings.auth, now_us()
    idle_us, life_us = round(auth.session_idle_minutes * 60e6), round(auth.session_hours * 3_600e6)
    with services().database.connect() as connection:
        rows = account_rows.list_accounts(connection)
        seen = account_rows.sessions_by_account(connection, now, idle_us, life_us)
    admins = [row.name for row in rows if row.role == "admin" and row.disabled_at_us is None]
    return render_template(
        "admin/accounts.html",
        rows=rows,
        seen=seen,
        roles=ROLES,
        meaning=MEANING,
        only_admin=admins[0] if len(admins) == 1 else None,
    )


@view(blueprint, "/new", role="admin")
def new() -> Response:
    """The form for an account."""
    return _form()


@view(blueprint, "/new", role="admin", methods=("POST",))
def create() -> Response:
    """Make an account; a password that is made here is shown this once."""
    name, role = request.form.get("name", "").strip(), request.form.get("role", "")
    typed = request.form.get("password", "")[: MAX_LENGTH + 1]
    password = typed or new_password()
    try:
        database = services().database
        credentials.create_account(database, actor(), name, password, role, now_us())
    except InputError as error:
        return _form(error.field, f"The {error.field}: {error.expected}.", 422)
    except ConflictError as error:
        return _form("name", f"{error}.".capitalize(), 409)
    return _made(name, role, None if typed else password, "Account created", 201)


@view(blueprint, "/<id:name>/password", role="admin", methods=("POST",))
def give_password(name: str) -> Response:
    """Give an account a new password, shown this once; its sessions end."""
    password = new_password()
    account = credentials.set_password(services().database, actor(), name, password, now_us())
    return _made(name, account.role, password, "Password changed", 200)


@view(blueprint, "/<id:name>/role", role="admin", methods=("POST",))
def set_role(name: str) -> AnyResponse:
    """Change what an account may do; its sessions end."""
    role = request.form.get("role", "")
    credentials.set_role(services().database, actor(), name, role, now_us())
    return done(f"{name} is now {role}.", "admin_accounts.index")


@view(blueprint, "/<id:name>/disable", role="admin", methods=("POST",))
def disable(name: str) -> AnyResponse:
    """Log an account out everywhere and refuse it."""
    return _set_disabled(name, True)


@view(blueprint, "/<id:name>/enable", role="admin", methods=("POST",))
def enable(name: str) -> AnyResponse:
    """Let a disabled account log in again."""
    return _set_disabled(name, False)


def _set_disabled(name: str, disabled: bool) -> AnyResponse:
    credentials.set_disabled(services().database, actor(), name, disabled, now_us())
    text = "is disabled and logged out everywhere" if disabled else "can log in again"
    return done(f"{name} {text}.", "admin_accounts.index")


def _made(name: str, role: str, password: str | None, title: str, status: int) -> Response:
    page = render_template(
        "admin/account_made.html", name=name, role=role, password=password, title=title
    )
    return make_response(page, status)


def _form(field: str | None = None, problem: str | None = None, status: int = 200) -> Response:
    given: dict[str, Any] = {
        "name": request.form.get("name", "")[:MAX_NAME],
        "role": request.form.get("role", "viewer"),
    }
    page = render_template(
        "admin/account_new.html",
        meaning=MEANING,
        given=given,
        field=field,
        problem=problem,
        min_length=MIN_LENGTH,
        max_length=MAX_LENGTH,
    )
    return make_response(page, status)
