"""Answer the commonest request, a user's recommendations, without the framework around it.

A request that is anything out of the ordinary is left to the application: another method, address or
key, an id or a query that is percent-encoded, a page's origin, an error of any kind. What is answered here
is what the application would have answered, headers included, counted and logged alike; a test holds the
two together.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace

import orjson
from flask import Flask
from structlog.contextvars import bind_contextvars
from werkzeug.datastructures import MultiDict

from recsys import tracing
from recsys.errors import RecsysError
from recsys.events.identity import RandomIds
from recsys.serving.answers import Request
from recsys.text_rules import stored_text_problem
from recsys.web.api.recommendation_routes import given_answer
from recsys.web.api.recommendation_schemas import RecommendationQuery
from recsys.web.app import REQUEST_ID, SECURITY_HEADERS
from recsys.web.asgi_bridge import Answer, Message
from recsys.web.operations import parameters_of, query_of
from recsys.web.services import Services
from recsys.web.usage import FinishedRequest

ROUTE = "/api/v1/users/<id:user_id>/recommendations"
PATH = re.compile(rb"/api/v1/users/([A-Za-z0-9_~:@-][A-Za-z0-9._~:@-]*)/recommendations")
QUERY = re.compile(rb"[A-Za-z0-9._~,:=&-]*")  # as written, nothing is encoded
QUERIES = 1_000  # that are kept as they were understood
KNOWN = frozenset(RecommendationQuery.model_fields)
ONCE, _ = parameters_of(RecommendationQuery)
FIXED_HEADERS = [
    (b"content-type", b"application/json"),
    *((name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()),
    (b"cache-control", b"no-store"),
]


class DirectAnswers:
    """Answers of one application; safe to share between threads."""

    def __init__(self, app: Flask) -> None:
        self._shared: Services = app.extensions["recsys"]
        self._new_id = RandomIds()
        self._queries: dict[bytes, Request | None] = {}  # None: left to the application

    def __call__(self, scope: Message) -> Answer | None:
        """The response, or None where the application is to give it."""
        path = PATH.fullmatch(scope["raw_path"])
        if path is None or scope["method"] != "GET" or tracing.is_on():
            return None
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if len(headers) != len(scope["headers"]) or b"origin" in headers:
            return None
        template = self._template(scope["query_string"])
        user_id = path[1].decode()
        if template is None or stored_text_problem(user_id):
            return None
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else self._new_id()
        bind_contextvars(request_id=request_id)
        shared = self._shared
        try:
            found = shared.keys.uncounted(_key_in(headers), "read")
            if found is None:
                return None
            key, stamps = found
            told = given_answer(shared, replace(template, user_id=user_id), stamps)
        except RecsysError:
            return None
        content = orjson.dumps(told)
        key_id = None if key is None else key.key_id
        spent = time.perf_counter() - started
        shared.usage.finished(FinishedRequest("GET", ROUTE, 200, spent, True, key_id))
        own = [(b"x-request-id", request_id.encode()), (b"content-length", b"%d" % len(content))]
        return Answer(200, [*FIXED_HEADERS, *own], content)

    def _template(self, query: bytes) -> Request | None:
        """What `query` asks for, whoever asks; None where the application is to say what is wrong."""
        try:
            return self._queries[query]
        except KeyError:
            pass
        made = self._understood(query)
        if len(self._queries) >= QUERIES:
            self._queries = {}
        self._queries[query] = made
        return made

    def _understood(self, query: bytes) -> Request | None:
        if len(query) > 1_000 or QUERY.fullmatch(query) is None:
            return None
        pairs = [part.partition("=")[::2] for part in query.decode().split("&") if part]
        args = MultiDict(pairs)
        if not set(args) <= KNOWN or any(len(args.getlist(name)) > 1 for name in ONCE):
            return None
        try:
            asked = query_of(RecommendationQuery, args)
            return asked.request(self._shared.settings.serving) if asked.page_of is None else None
        except RecsysError:
            return None


def _key_in(headers: dict[bytes, bytes]) -> str:
    """The API key, as `recsys.web.api_keys` finds it; empty where there is none."""
    header = headers.get(b"x-api-key")
    if header:
        return header.decode("latin-1").strip()
    scheme, _, credentials = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else ""
