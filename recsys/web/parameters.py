"""Parameters of the query: each route declares those it takes, and a request with any other is refused.

One check for all routes, REST, dashboard and the rest alike. A route that declares none takes none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from flask import Flask, request

from recsys.errors import unknown
from recsys.web.problem_details import FieldError, InvalidRequestError

View = TypeVar("View", bound=Callable[..., Any])

STATIC = {"v": False}  # a file's address holds its digest


def takes(*names: str, repeated: Collection[str] = ()) -> Callable[[View], View]:
    """Declare the parameters of a view: `names` may be given once, `repeated` any number of times."""

    def declare(view: View) -> View:
        view.__dict__["parameters"] = {
            **dict.fromkeys(names, False),
            **dict.fromkeys(repeated, True),
        }
        return view

    return declare


def taken_by(app: Flask, endpoint: str) -> dict[str, bool]:
    """The parameters of a route: name -> whether it may be repeated."""
    if endpoint.rpartition(".")[2] == "static":
        return STATIC
    found: dict[str, bool] = getattr(app.view_functions[endpoint], "parameters", {})
    return found


def register(app: Flask) -> None:
    """Check the query of every request to `app`, after the checks that were registered before."""

    @app.before_request
    def check() -> None:
        endpoint = request.endpoint
        if endpoint is None or not request.query_string:
            return
        known = taken_by(app, endpoint)
        errors = []
        for name, values in request.args.lists():
            if name not in known:
                said = unknown(name, name, "a parameter of this address", list(known)).expected
                errors.append(FieldError(field=name[:80], message=f"unknown parameter: {said}"))
            elif len(values) > 1 and not known[name]:
                errors.append(FieldError(field=name, message="given more than once"))
        if not errors:
            return
        # Who may not ask at all is told that first.
        require_key = getattr(app.view_functions[endpoint], "require_key", None)
        if require_key is not None:
            require_key()
        raise InvalidRequestError(errors)
