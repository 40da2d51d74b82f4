"""Gorse's protocol: routes, parameters, bodies, answers and errors, whatever they are about.

Errors are plain text. Every write answers how many rows it was about. Pages are asked for by a cursor,
which is the key of the next page's first row. Query parameters that Gorse has are taken at every route
and mean nothing at most of them, as there; any other is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, NoReturn

import orjson
from flask import Blueprint, Flask, Response, abort, g, request

from recsys.errors import ConflictError, InputError
from recsys.text_rules import stored_text_problem
from recsys.web.fields import MAX_ROWS
from recsys.web.json_body import read_json
from recsys.web.operations import JSON
from recsys.web.parameters import takes
from recsys.web.paths import check_ids
from recsys.web.services import services

MOST = 1_000  # rows of an answer
DEFAULT_N = 10
# gorsejs writes Cursor, which Gorse does not read.
PARAMETERS = ("n", "offset", "cursor", "Cursor", "q", "user-id", "write-back-type")
TEXT = "text/plain; charset=utf-8"
STATUS = {422: 400}  # by that of the same refusal under /api/v1
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)

View = Callable[..., Any]


def register(app: Flask) -> None:
    """Answer in Gorse's way whatever is asked below /api, /api/v1 aside."""

    @app.before_request
    def speak_plainly() -> None:
        if is_gorse_path(request.path):
            g.problem_page = _refusal

    @app.after_request
    def allow_pages(response: Response) -> Response:
        if is_gorse_path(request.path):
            response.headers["Access-Control-Allow-Origin"] = "*"
            if request.method == "OPTIONS":
                response.headers["Access-Control-Allow-Methods"] = "GET, POST, PUT, PATCH, DELETE"
                allowed = "Content-Type, Accept, X-API-Key, X-API-Version"
                response.headers["Access-Control-Allow-Headers"] = allowed
        return response


def is_gorse_path(path: str) -> bool:
    """
    >>> is_gorse_path("/api/items"), is_gorse_path("/api/v1/items"), is_gorse_path("/metrics")
    (True, False, False)
    """
    return path.startswith("/api/") and not f"{path}/".startswith("/api/v1/")


def route(
    blueprint: Blueprint, method: str, *paths: str, scope: str | None
) -> Callable[[View], View]:
    """Register a view under one or more paths, a slash at their end or not. It returns what is answered
    as JSON, or a Response. `scope`: of the key that it takes; None: it takes none.
    """

    def declare(view: View) -> View:
        def check_key() -> None:
            if scope is not None:
                services().keys.require(scope)

        @wraps(view)
        def answered(**path_values: str) -> Response:
            check_key()
            check_ids(path_values)
            found = view(**path_values)
            return found if isinstance(found, Response) else answer(found)

        takes(*PARAMETERS, "write-back-delay", repeated=("category",))(answered)
        answered.__dict__["require_key"] = check_key
        for number, path in enumerate(paths):
            name = f"{view.__name__}_{number}" if number else view.__name__
            blueprint.add_url_rule(path, name, answered, methods=[method], strict_slashes=False)
        return view

    return declare


def answer(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content, option=orjson.OPT_INDENT_2), status, mimetype=JSON)


def affected(rows: int) -> dict[str, int]:
    """What every write answers."""
    return {"RowAffected": rows}


def refuse(status: int, words: str) -> NoReturn:
    """End the request with an error of Gorse's."""
    abort(Response(words, status, content_type=TEXT))


def _refusal(status: int, _phrase: str, detail: str) -> Response:
    """An error that this project knows by a status and words of its own."""
    words = "unauthorized" if status == HTTPStatus.UNAUTHORIZED else detail
    return Response(words, STATUS.get(status, status), content_type=TEXT)


def require_own_log() -> None:
    """Raise ConflictError where events are not in this service's own table, which alone has feedback."""
    if services().settings.events.mapped:
        raise ConflictError(
            "events are read from a table of your own ([events]): keep feedback there"
        )


def body_rows() -> list[Any]:
    """The list in the body; null is an empty one."""
    rows = read_json()
    if rows is None:
        return []
    if not isinstance(rows, list):
        raise InputError("body", rows, "expected a list")
    if len(rows) > MAX_ROWS:
        raise InputError("body", f"{len(rows):,} rows", f"expected at most {MAX_ROWS:,}")
    return rows


def page_size() -> int:
    """Rows of a page: `n`, at most MOST; as many where it is 0 or less."""
    asked = _integer("n", DEFAULT_N)
    return MOST if asked <= 0 else min(asked, MOST)


def span() -> slice:
    """Which rows of a list are asked for, by `n` and `offset`; of the first MOST."""
    first = min(max(0, _integer("offset", 0)), MOST)
    return slice(first, min(first + page_size(), MOST))


def _integer(name: str, default: int) -> int:
    text = request.args.get(name, "")
    if text == "":
        return default
    if not _INTEGER.fullmatch(text):
        quoted = orjson.dumps(text[:80]).decode()
        refuse(400, f"strconv.Atoi: parsing {quoted}: invalid syntax")
    return int(text)


def read_position() -> str | None:
    """Where the page begins; None: at the start."""
    cursor = request.args.get("cursor") or request.args.get("Cursor")
    if not cursor:
        return None
    try:
        text = base64.b64decode(cursor.replace(" ", "+"), validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    if stored_text_problem(text, 2_000):
        raise InputError("cursor", cursor, "expected the Cursor of an earlier page")
    return text


def write_position(key: str | None) -> str:
    """The cursor of the page that begins with `key`; "" where there is none.

    >>> write_position("100"), write_position(None)
    ('MTAw', '')
    """
    return "" if key is None else base64.b64encode(key.encode()).decode()


def categories() -> list[str]:
    """The categories that are asked for, each once; empty values say nothing."""
    named = list(dict.fromkeys(one for one in request.args.getlist("category") if one))
    if len(named) > 16:
        raise InputError("category", len(named), "expected at most 16")
    for name in named:
        check_ids({"category": name})
    return named
