"""Who may see and do what in the dashboard: sessions, CSRF tokens, roles.

`view` declares a route with its role. One check before each request, for all routes under /admin:
a route that declares nothing is refused, one that changes something needs the session's CSRF token.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from flask import Blueprint, Response, current_app, g, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from recsys.errors import AccessError, InputError, RateLimitError
from recsys.storage.entities import account_rows
from recsys.storage.entities.account_rows import ROLES, SEEN_EVERY_US, SessionRow
from recsys.web.parameters import takes
from recsys.web.services import now_us, services

PREFIX = "/admin"
CSRF_FIELD, CSRF_HEADER = "csrf_token", "X-CSRF-Token"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MAX_TOKEN = 100
OPEN = "open"  # in place of a role: needs no session

View = Callable[..., Any]


def view(
    blueprint: Blueprint,
    rule: str,
    *,
    role: str,
    methods: tuple[str, ...] = ("GET",),
    live: bool = False,
    query: tuple[str, ...] = (),
    repeated: tuple[str, ...] = (),
) -> Callable[[View], View]:
    """Register a view for accounts of `role` and above ('viewer', 'operator', 'admin').

    `live`: pages ask for it by themselves, so it does not keep a session from growing idle. `query`
    and `repeated`: the parameters it takes, once or any number of times.
    """
    assert role in (*ROLES, OPEN), role

    def register(function: View) -> View:
        function.__dict__.update(admin_role=role, admin_live=live)
        takes(*query, repeated=repeated)(function)
        blueprint.add_url_rule(rule, function.__name__, function, methods=list(methods))
        return function

    return register


def role_of(endpoint: str | None) -> str | None:
    """The role that a route declares, OPEN, or None where it declares none."""
    function = current_app.view_functions.get(endpoint or "")
    return getattr(function, "admin_role", None)


def may(role: str) -> bool:
    """Whether the account at hand has `role` or one above it."""
    session: SessionRow | None = g.get("account")
    return session is not None and ROLES.index(session.role) >= ROLES.index(role)


def check_request() -> AnyResponse | None:
    """Runs before every request under /admin; an answer where there is none to be had."""
    role = role_of(request.endpoint)
    if request.endpoint is not None and role is None:
        raise AccessError("this address is not open to anyone")
    unsafe = request.method not in SAFE_METHODS
    if unsafe and request.headers.get("Sec-Fetch-Site", "same-origin") == "cross-site":
        raise AccessError("the request came from another site")
    g.account = current_session()
    if role == OPEN:
        _check_texts()
        return None
    if g.account is None:
        return _to_login()
    if unsafe and not _has_token():
        raise AccessError("the form has grown old: load the page again")
    if role is not None and not may(role):
        raise AccessError(f"this needs the role {role}; you are {g.account.role}")
    _check_texts()  # what is wrong with a request is told to those alone who may send it
    return None


def _check_texts() -> None:
    """Raises InputError for a text of path, query or form that a database cannot hold."""
    given = [
        *(request.view_args or {}).items(),
        *request.args.items(True),
        *request.form.items(True),
    ]
    for name, value in given:
        if isinstance(value, str) and "\0" in value:
            raise InputError(name, value, "holds a control character")


def current_session() -> SessionRow | None:
    """The session of the request's cookie, marked as in use."""
    token = session_token()
    if token is None:
        return None
    auth, now = services().settings.auth, now_us()
    idle_us = round(auth.session_idle_minutes * 60e6)
    life_us = round(auth.session_hours * 3_600e6)
    with services().database.connect() as connection:
        found = account_rows.find_session(connection, token, now, idle_us, life_us)
    if found is not None and not _is_live() and now - found.seen_at_us > SEEN_EVERY_US:
        with services().database.begin() as connection:
            account_rows.touch_session(connection, token, now)
    return found


def session_token() -> str | None:
    """The cookie's value."""
    token = request.cookies.get(cookie_name("recsys_admin"), "")
    return token if 0 < len(token) <= MAX_TOKEN else None


def csrf_token() -> str:
    """The token that the session's forms carry; for a form before the session, its cookie's."""
    secret = session_token() if g.get("account") is not None else login_secret()
    return hmac.new((secret or "").encode(), b"csrf", hashlib.sha256).hexdigest()


def login_secret() -> str:
    """A random value for the log-in form, in a cookie of its own."""
    given = request.cookies.get(cookie_name("recsys_login"), "")
    if not 20 <= len(given) <= MAX_TOKEN:
        given = g.setdefault("new_login_secret", secrets.token_urlsafe(32))
    return given


def check_login_token() -> None:
    """Raises AccessError unless the log-in form was made for this browser."""
    if "new_login_secret" in g or not request.cookies.get(cookie_name("recsys_login")):
        raise AccessError("the form has grown old: load the page again")
    if not _equal(csrf_token()):
        raise AccessError("the form has grown old: load the page again")


def set_cookie(response: AnyResponse, name: str, value: str, max_age: int | None = None) -> None:
    response.set_cookie(
        cookie_name(name),
        value,
        max_age=max_age,
        path="/",
        secure=request.is_secure,
        httponly=True,
        samesite="Lax",
    )


def delete_cookie(response: AnyResponse, name: str) -> None:
    set_cookie(response, name, "", 0)


def cookie_name(name: str) -> str:
    """Over https with the prefix that keeps other hosts of the domain from setting it."""
    return f"__Host-{name}" if request.is_secure else name


def flash(kind: str, message: str) -> None:
    """Leave a message for the next page of this session; `kind`: 'good' or 'bad'."""
    token = session_token()
    if token is not None:
        with services().database.begin() as connection:
            account_rows.set_flash(connection, token, kind, message)


def take_flash() -> tuple[str, str] | None:
    """The message left for this page, once: (kind, message)."""
    session: SessionRow | None = g.get("account")
    token = session_token()
    if session is None or session.flash is None or token is None:
        return None
    with services().database.begin() as connection:
        account_rows.clear_flash(connection, token)
    return session.flash


def done(message: str, endpoint: str, **values: Any) -> AnyResponse:
    """The answer to a form that did its work: a message, and the page to go on with."""
    flash("good", message)
    return redirect(url_for(endpoint, **values), 303)


def count_attempt(name: str, address: str) -> None:
    """Raises RateLimitError where an account or address has failed too often."""
    with services().database.begin() as connection:
        wait = account_rows.begin_attempt(connection, name, address, now_us())
    if wait:
        raise RateLimitError(wait)


def _to_login() -> AnyResponse:
    """To the log-in page and back; parts of a page are told to load it whole."""
    part = bool(request.headers.get("HX-Request")) or _is_live()
    if part or request.method not in SAFE_METHODS:
        # Back to the page that asked, or that the form stands on; what was sent is not sent again.
        asked = _path_of(request.headers.get("HX-Current-URL") or request.referrer or "")
    else:
        asked = request.full_path.rstrip("?")
    login = url_for("admin_login.login")
    if asked not in ("", PREFIX + "/"):
        login = f"{login}?next={quote(asked, safe='/')}"
    if request.method in SAFE_METHODS and not part:
        return redirect(login)
    if not part and request.headers.get("Sec-Fetch-Mode") == "navigate":
        return redirect(login, 303)
    return Response(status=401, headers={"HX-Redirect": login})


def _path_of(url: str) -> str:
    """Path and query of an address of this host; '' for any other."""
    parts = urlsplit(url)
    if parts.netloc != request.host:
        return ""
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _is_live() -> bool:
    function = current_app.view_functions.get(request.endpoint or "")
    return bool(getattr(function, "admin_live", False))


def _has_token() -> bool:
    return _equal(csrf_token())


def _equal(expected: str) -> bool:
    given = request.headers.get(CSRF_HEADER) or request.form.get(CSRF_FIELD, "")
    return hmac.compare_digest(given.encode(), expected.encode())
