"""Logging in and out, and the account's own password."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from flask import Blueprint, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from recsys.commands import credentials
from recsys.errors import ConflictError, InputError, RateLimitError
from recsys.storage.entities import account_rows
from recsys.storage.entities.audit_rows import Actor
from recsys.storage.entities.passwords import MAX_LENGTH, is_password, place_to_hash
from recsys.web.admin import access
from recsys.web.admin.access import OPEN, PREFIX, view
from recsys.web.admin.queries import choice
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_login", __name__, url_prefix=PREFIX)

HASHING_PATHS = (f"{PREFIX}/login", f"{PREFIX}/account/password")  # POST takes long there
REFUSED = "Incorrect name or password."


@view(blueprint, "/login", role=OPEN, query=("next", "changed"))
def login() -> Any:
    """The log-in page."""
    if g.account is not None:
        return redirect(_next(), 303)
    return _form()


@view(blueprint, "/login", role=OPEN, methods=("POST",), query=("next", "changed"))
def log_in() -> Any:
    """Check name and password. Both unknown names and wrong passwords get the same answer."""
    access.check_login_token()
    name = request.form.get("name", "")[:MAX_LENGTH].strip()
    password = request.form.get("password", "")[: MAX_LENGTH + 1]
    address = request.remote_addr or "-"
    database = services().database
    try:
        with place_to_hash():  # before the attempt is counted: who has no place has not tried
            access.count_attempt(name, address)
            with database.connect() as connection:
                stored = account_rows.password_hash(connection, name)
            right = is_password(password, stored)
    except RateLimitError as error:
        seconds = error.retry_after_seconds
        soon = f"{seconds} seconds" if seconds < 60 else f"{-(-seconds // 60)} minutes"
        response: Response = _form(f"Too many attempts. Try again in {soon}.", name, 429)
        response.headers["Retry-After"] = str(seconds)
        return response
    visitor = Actor(name, "-", g.get("request_id"), address)
    token = None
    if right and stored is not None:
        with suppress(ConflictError):  # the password was changed while it was looked at
            token = credentials.log_in(database, visitor, stored, now_us())
    if token is None:
        credentials.refuse_log_in(database, visitor, now_us())
        return _form(REFUSED, name, 403)
    answer = redirect(_next(), 303)
    life = round(services().settings.auth.session_hours * 3_600)
    access.set_cookie(answer, "recsys_admin", token, life)
    access.delete_cookie(answer, "recsys_login")
    return answer


@view(blueprint, "/logout", role="viewer", methods=("POST",))
def log_out() -> Response:
    """End this session."""
    token = access.session_token()
    credentials.log_out(services().database, actor(), token or "", now_us())
    answer = redirect(url_for("admin_login.login"), 303)
    access.delete_cookie(answer, "recsys_admin")
    return answer


@view(blueprint, "/account", role="viewer")
def account() -> str:
    """The account's own page."""
    return render_template("admin/account.html", error=None)


@view(blueprint, "/account/password", role="viewer", methods=("POST",))
def change_password() -> Any:
    """Change the password; every session of the account ends, this one too."""
    given = {name: request.form.get(name, "")[: MAX_LENGTH + 1] for name in ("old", "new", "again")}
    name, database = g.account.name, services().database
    with place_to_hash():
        access.count_attempt(name, request.remote_addr or "-")
        with database.connect() as connection:
            stored = account_rows.password_hash(connection, name)
        right = is_password(given["old"], stored)
    problem = None
    if not right:
        problem = "The current password is incorrect."
    elif given["new"] != given["again"]:
        problem = "The new passwords do not match."
    else:
        try:
            credentials.set_password(database, actor(), name, given["new"], now_us())
        except InputError as error:
            problem = f"The new password: {error.expected}."
    if problem is not None:
        return render_template("admin/account.html", error=problem), 422
    answer = redirect(url_for("admin_login.login", changed="1"), 303)
    access.delete_cookie(answer, "recsys_admin")
    return answer


def _form(error: str | None = None, name: str = "", status: int = 200) -> Any:
    changed = choice("changed", ("1",)) is not None
    page = render_template("admin/login.html", error=error, name=name, changed=changed)
    answer = Response(page, status, mimetype="text/html")
    access.set_cookie(answer, "recsys_login", access.login_secret())
    return answer


def _next() -> str:
    """Where to go after logging in: a page of the dashboard, never another host."""
    asked = request.args.get("next", "")
    # As a browser reads it: a backslash is a slash, and a dot may be encoded.
    segments = unquote(re.split("[?#]", asked)[0]).replace("\\", "/").split("/")
    inside = segments[:2] == ["", PREFIX[1:]] and len(segments) > 2
    safe = inside and not {".", ".."} & set(segments) and "//" not in asked and asked.isprintable()
    return asked if safe and segments[2] != "login" and "\\" not in asked else url_for("admin.home")
