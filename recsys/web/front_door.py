"""What answers at the addresses that people try first: /, /api/v1 and /favicon.ico."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Flask, Response, render_template, request
from flask import current_app as app
from werkzeug.wrappers import Response as AnyResponse

from recsys import __version__
from recsys.web.admin import pages

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'"
)
REST = "/api/v1"
# Address -> its name and what is there, for people. The shop is there where its routes are.
PLACES = {
    "/shop": (
        "Shop",
        "A simulated shop: click a few products and watch the recommendations follow.",
    ),
    "/admin/": ("Dashboard", "Models, jobs, data quality, users and items. Asks for a log-in."),
    "/help/": ("Help", "A tutorial, how-to guides and the reference, with a search."),
    "/docs": ("API", "Every address of the REST API, to read and to try."),
    "/health/ready": ("Health", "Whether the service can answer."),
}


def register(application: Flask) -> None:
    """Add the front door to the application."""
    application.add_url_rule("/", "front_door", front_door)
    application.add_url_rule(REST, "api_index", api_index)
    application.add_url_rule("/favicon.ico", "favicon", favicon)


def front_door() -> AnyResponse:
    """A page with the ways in; the same as JSON for programs."""
    places = _places()
    if not wants_html():
        links = {name.lower(): address for address, (name, _) in places.items()}
        return _json({"service": "recsys", "version": __version__, "rest": REST, **links})
    page = render_template("front_door.html", places=places, asset=pages.address)
    response = Response(page)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Vary"] = "Accept"
    return response


def api_index() -> AnyResponse:
    """Where to read of the REST API; a browser is led to its page."""
    if wants_html():
        return Response(status=302, headers={"Location": "/docs", "Vary": "Accept"})
    return _json({"version": __version__, "docs": "/docs", "openapi": "/openapi.json"})


def favicon() -> AnyResponse:
    """The icon, for browsers that ask for it unasked."""
    return app.send_static_file("admin/icon.svg")


def _places() -> dict[str, tuple[str, str]]:
    """Those of PLACES that this service has."""
    there = {rule.rule for rule in app.url_map.iter_rules()}
    return {address: place for address, place in PLACES.items() if address in there}


def wants_html() -> bool:
    """Whether a browser asks: it names HTML, and no program does so by itself."""
    return "text/html" in request.headers.get("Accept", "")


def _json(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), mimetype="application/json", headers={"Vary": "Accept"})
