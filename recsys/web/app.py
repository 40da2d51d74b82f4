"""create_app(settings): the REST service as a WSGI application."""

from __future__ import annotations

import re
import time
from typing import Any

import orjson
import structlog
from flask import Flask, Response, g, render_template, request
from structlog.contextvars import bind_contextvars
from werkzeug.middleware.proxy_fix import ProxyFix

from recsys import tracing
from recsys.config import Settings
from recsys.errors import RecsysError
from recsys.events.identity import RandomIds
from recsys.events.times import DAY_US
from recsys.serving.answer_log import Impressions
from recsys.serving.recommender import Recommender
from recsys.serving.usage_counts import Activity
from recsys.storage.engine.database import Database
from recsys.storage.engine.group_commit import GroupCommit
from recsys.storage.entities import (
    job_rows,
    lease_rows,
    live_quality_rows,
    schedule_rows,
    stream_rows,
)
from recsys.web import (
    admin,
    front_door,
    gorse,
    help_pages,
    page_client,
    parameters,
    problem_details,
    prometheus_metrics,
)
from recsys.web.api import (
    event_routes,
    experiment_routes,
    health_routes,
    item_routes,
    job_routes,
    model_routes,
    recommendation_routes,
    report_routes,
    scenario_routes,
    segment_routes,
    user_routes,
)
from recsys.web.api_keys import Keys
from recsys.web.openapi import document
from recsys.web.paths import DISGUISED, NOT_UTF8, IdConverter, SlashKeeper
from recsys.web.rate_limits import Limits, open_limits
from recsys.web.services import Services, now_us
from recsys.web.usage import FinishedRequest, Usage

log = structlog.get_logger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
FAILURES_DAYS = 8  # for so long a failed run is told of, unless the job's next one goes well
FOR_PROGRAMS = ("/api/", segment_routes.PREFIX)  # beginnings of paths that pages of others may ask
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


def create_app(settings: Settings, database: Database, limits: Limits | None = None) -> Flask:
    """The application over one database. Connects at the first request, not here.

    `limits`: made before the workers were forked, so that they count together.
    """
    if not structlog.is_configured():  # its default shows local variables: keys, bodies
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        structlog.configure([*structlog.get_config()["processors"][:-1], renderer])
    app = Flask("recsys.web")
    new_id = RandomIds()
    app.url_map.converters["id"] = IdConverter
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    app.config["MAX_CONTENT_LENGTH"] = settings.serving.max_body_bytes
    serving = settings.serving
    activity = Activity(database)
    shared = app.extensions["recsys"] = Services(
        settings=settings,
        database=database,
        writes=GroupCommit(database),
        recommender=Recommender(settings, database, time.monotonic),
        keys=Keys(
            database, settings.auth, limits or open_limits(settings.auth.limits.get_secret_value())
        ),
        impressions=Impressions(database, serving.impression_share, prometheus_metrics.lost.inc),
        activity=activity,
        usage=Usage(activity, lambda: note_sizes()),
    )
    prometheus_metrics.begin(posted=not settings.events.mapped or settings.events.accept_posts)
    if (replica := shared.recommender.source.replica) is not None:
        replica.note = lambda outcome: prometheus_metrics.histories.labels(outcome).inc()
    for module in (
        event_routes,
        recommendation_routes,
        scenario_routes,
        report_routes,
        user_routes,
        item_routes,
        experiment_routes,
        model_routes,
        job_routes,
        health_routes,
        segment_routes,
    ):
        app.register_blueprint(module.blueprint)
    if serving.gorse:
        gorse.register(app)
    admin.register(app)
    front_door.register(app)
    page_client.register(app)
    help_pages.register(app)
    problem_details.register(app)
    wrapped: Any = SlashKeeper(app.wsgi_app)
    if hops := serving.trusted_proxies:
        wrapped = ProxyFix(wrapped, x_for=hops, x_proto=hops, x_host=hops)
    app.wsgi_app = wrapped  # type: ignore[method-assign]

    def known_method() -> str:
        return request.method if request.method in METHODS else "-"

    @app.before_request
    def begin() -> Response | None:
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if REQUEST_ID.fullmatch(given) else new_id()
        bind_contextvars(request_id=g.request_id)  # for every line that is logged from here on
        g.started = time.perf_counter()
        route = request.url_rule.rule if request.url_rule else "-"
        caller = request.headers.get("traceparent", "")
        g.span = tracing.begin_request(known_method(), route, caller, g.request_id)
        if len(request.query_string) > MAX_QUERY:
            return problem_details.problem(414, "the query string is too long")
        if NOT_UTF8 in request.environ:
            return problem_details.problem(400, "the address is not UTF-8")
        if DISGUISED in request.environ:
            return problem_details.problem(404, "there is nothing at this address")
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return Response(status=204)
        return None

    parameters.register(app)  # once a request has its id, and its query a bound

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.get("request_id", "")
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        if "Origin" in request.headers and request.path.startswith(FOR_PROGRAMS):
            allow_page(response)
        spent = time.perf_counter() - g.get("started", time.perf_counter())
        route = request.url_rule.rule if request.url_rule else "-"
        method = known_method()
        tracing.end_request(g.pop("span", None), response.status_code)
        key_id = g.key.key_id if "key" in g else None
        of_api = request.path.startswith(FOR_PROGRAMS)
        shared.usage.finished(
            FinishedRequest(method, route, response.status_code, spent, of_api, key_id)
        )
        return response

    def note_sizes() -> None:
        prometheus_metrics.waiting.set(len(shared.impressions))
        sizes = {**shared.recommender.cached_bytes(), "waiting_answers": shared.impressions.bytes}
        for name, size in sizes.items():
            prometheus_metrics.cached.labels(name).set(size)
        if (live := shared.recommender.live) is not None:
            prometheus_metrics.note_live(live)

    def allow_page(response: Response) -> None:
        """Let a page of an allowed origin read the answer; one of another origin why it is refused."""
        response.headers["Vary"] = "Origin"
        origin = request.headers["Origin"]
        try:
            allowed = shared.keys.allows_origin(origin)
        except RecsysError:
            allowed = False
        if not allowed:
            if response.status_code in (401, 403):
                response.headers["Access-Control-Allow-Origin"] = "*"
            return
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "Retry-After, X-Request-ID"
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = "GET, POST"
            response.headers["Access-Control-Allow-Headers"] = (
                "Authorization, Content-Type, X-API-Key, X-Retry-Count"
            )
            response.headers["Access-Control-Max-Age"] = "600"

    def stored_figures() -> prometheus_metrics.StoredFigures | None:
        try:
            with database.connect() as connection:
                lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
                now = now_us()
                runs = job_rows.state_counts(connection, now - DAY_US)
                ends = job_rows.last_ends(connection, now - FAILURES_DAYS * DAY_US)
                quality = live_quality_rows.of_late(connection, now)
                streams = stream_rows.list_partitions(connection)
                schedules = {
                    r.job: r.created_at_us for r in schedule_rows.list_schedules(connection)
                }
        except RecsysError:
            return None
        backups = bool(settings.schedule.backup)
        since_us = schedules.get("backup")
        return prometheus_metrics.StoredFigures(
            lease.renewed_at_us, runs, ends, backups, since_us, quality, streams
        )

    @app.get("/metrics")
    def prometheus() -> Response:
        note_sizes()
        models = shared.recommender.active.models
        content = prometheus_metrics.exposition(models, stored_figures())
        return Response(content, content_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/openapi.json")
    def openapi() -> Response:
        return Response(orjson.dumps(document()), mimetype="application/json")

    @app.get("/docs")
    def docs() -> Response:
        response = Response(render_template("docs.html"))
        response.headers["Content-Security-Policy"] = DOCS_POLICY
        return response

    return app
