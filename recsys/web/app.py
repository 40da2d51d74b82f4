"""create_app(settings): the REST service as a WSGI application."""

from __future__ import annotations

import re
import secrets
import time

import orjson
import structlog
from flask import Flask, Response, g, render_template, request

from recsys.config import Settings
from recsys.serving.recommender import Recommender
from recsys.storage.database import Database
from recsys.web import errors
from recsys.web.api import events, health, items, jobs, models, recommendations
from recsys.web.keys import Keys
from recsys.web.openapi import document
from recsys.web.paths import NOT_UTF8, IdConverter, SlashKeeper
from recsys.web.services import Services

log = structlog.get_logger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_QUERY = 65_536  # bytes of a query string
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def create_app(settings: Settings, database: Database) -> Flask:
    """The application over one database. Connects at the first request, not here."""
    app = Flask("recsys.web")
    app.url_map.converters["id"] = IdConverter
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    app.config["MAX_CONTENT_LENGTH"] = settings.serving.max_body_bytes
    app.extensions["recsys"] = Services(
        settings=settings,
        database=database,
        recommender=Recommender(settings, database, time.monotonic),
        keys=Keys(database, settings.auth.enabled),
    )
    for module in (events, recommendations, items, models, jobs, health):
        app.register_blueprint(module.blueprint)
    errors.register(app)
    app.wsgi_app = SlashKeeper(app.wsgi_app)  # type: ignore[method-assign]

    @app.before_request
    def begin() -> Response | None:
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        g.started = time.perf_counter()
        if len(request.query_string) > MAX_QUERY:
            return errors.problem(414, "the query string is too long")
        if NOT_UTF8 in request.environ:
            return errors.problem(400, "the address is not UTF-8")
        return None

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.get("request_id", "")
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        spent_ms = (time.perf_counter() - g.get("started", time.perf_counter())) * 1e3
        log.debug(
            "request",
            request_id=g.get("request_id", ""),
            method=request.method,
            route=str(request.url_rule or "-"),
            status=response.status_code,
            ms=round(spent_ms, 2),
        )
        return response

    @app.get("/openapi.json")
    def openapi() -> Response:
        return Response(orjson.dumps(document()), mimetype="application/json")

    @app.get("/docs")
    def docs() -> Response:
        response = Response(render_template("docs.html"))
        response.headers["Content-Security-Policy"] = DOCS_POLICY
        return response

    return app
