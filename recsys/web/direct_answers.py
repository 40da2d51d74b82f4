"""Answer the commonest requests, recommendations for a user or for a body, without the framework around it.

A request that is anything out of the ordinary is left to the application: another method, address or
key, an id or a query that is percent-encoded, a page's origin, an error of any kind. What is answered here
is what the application would have answered, headers included, counted and logged alike; a test holds the
two together.
"""

from __future__ import annotations

import re
import time

import orjson
from flask import Flask
from pydantic import TypeAdapter, ValidationError
from structlog.contextvars import bind_contextvars
from werkzeug.datastructures import MultiDict

from recsys import tracing
from recsys.errors import RecsysError
from recsys.events.identity import RandomIds
from recsys.ingest.json_keys import repeats_a_key
from recsys.serving.answers import Request
from recsys.text_rules import stored_text_problem
from recsys.web.api.recommendation_routes import asked_in, given_answer
from recsys.web.api.recommendation_schemas import RecommendationBody, RecommendationQuery
from recsys.web.app import REQUEST_ID, SECURITY_HEADERS
from recsys.web.asgi_messages import Answer, Message
from recsys.web.operations import parameters_of, query_of
from recsys.web.services import Services
from recsys.web.usage import FinishedRequest

USER_ROUTE = "/api/v1/users/<id:user_id>/recommendations"
BODY_ROUTE = "/api/v1/recommendations"
OF_BODY = BODY_ROUTE.encode()
OF_USER = re.compile(rb"/api/v1/users/([A-Za-z0-9_~:@-][A-Za-z0-9._~:@-]*)/recommendations")
QUERY = re.compile(rb"[A-Za-z0-9._~,:=&-]*")  # as written, nothing is encoded
LONGEST_BODY = 65_536  # bytes; ordinary ones have hundreds
HEAVY_BODY = 16_384  # bytes, some hundred candidates or events
HEAVY_QUERY = re.compile(rb"(^|&)(explain|filter|boost|max_per_category)=|(^|&)k=\d{3}")
HEAVY_FIELDS = re.compile(rb'"(explain|filter|boost|max_per_category)"|"k"\s*:\s*\d{3}')
QUERIES, LONGEST_QUERY = 1_000, 1_000  # that are kept as they were understood; bytes of one
BODY = TypeAdapter(RecommendationBody)
KNOWN = frozenset(RecommendationQuery.model_fields)
ONCE, _ = parameters_of(RecommendationQuery)
FIXED_HEADERS = [
    (b"content-type", b"application/json"),
    *((name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()),
    (b"cache-control", b"no-store"),
]


def is_heavy(scope: Message, body: bytes) -> bool:
    """Whether an answer takes many times as long as others: one that is explained, filtered or boosted, of
    hundreds of items or candidates, or a batch of them.

    >>> asked = {"method": "GET", "raw_path": b"/api/v1/users/u/recommendations"}
    >>> [is_heavy({**asked, "query_string": query}, b"") for query in (b"k=20", b"k=500", b"explain=true")]
    [False, True, True]
    """
    path: bytes = scope["raw_path"]
    if b"/recommendations" not in path:
        return False
    if scope["method"] == "POST":
        batch = path.endswith((b"/batch", b"/page"))
        return batch or len(body) > HEAVY_BODY or HEAVY_FIELDS.search(body) is not None
    return HEAVY_QUERY.search(scope["query_string"]) is not None


class DirectAnswers:
    """Answers of one application; safe to share between threads."""

    def __init__(self, app: Flask) -> None:
        self._shared: Services = app.extensions["recsys"]
        self._new_id = RandomIds()
        self._queries: dict[bytes, Request | None] = {}  # None: left to the application

    def __call__(self, scope: Message, body: bytes) -> Answer | None:
        """The response, or None where the application is to give it."""
        method: str = scope["method"]
        path: bytes = scope["raw_path"]
        if method == "GET":
            matched = OF_USER.fullmatch(path)
            user_id = "" if matched is None else matched[1].decode()
            if matched is None or stored_text_problem(user_id):
                return None
        elif method != "POST" or path != OF_BODY or scope["query_string"]:
            return None
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if len(headers) != len(scope["headers"]) or b"origin" in headers or tracing.is_on():
            return None
        template = self._template(scope["query_string"]) if method == "GET" else None
        if method == "GET" and template is None:
            return None
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else self._new_id()
        bind_contextvars(request_id=request_id)
        try:
            found = self._shared.keys.uncounted(_key_in(headers), "read")
            if found is None:
                return None
            key, stamps = found
            # A body is read for those alone who may ask.
            request = template and template.having(user_id=user_id)
            request = request or self._asked_in(headers, body)
            if request is None:
                return None
            told = given_answer(self._shared, request, stamps)
        except RecsysError:
            return None
        content = orjson.dumps(told)
        key_id = None if key is None else key.key_id
        route = USER_ROUTE if method == "GET" else BODY_ROUTE
        spent = time.perf_counter() - started
        self._shared.usage.finished(FinishedRequest(method, route, 200, spent, True, key_id))
        own = [(b"x-request-id", request_id.encode()), (b"content-length", b"%d" % len(content))]
        return Answer(200, [*FIXED_HEADERS, *own], content)

    def _asked_in(self, headers: dict[bytes, bytes], body: bytes) -> Request | None:
        """What a body asks for; None where the application is to say what is wrong. Raises RecsysError."""
        if headers.get(b"content-type") != b"application/json" or b"content-encoding" in headers:
            return None
        if len(body) > LONGEST_BODY:
            return None
        try:
            parsed = orjson.loads(body)
            if repeats_a_key(body, [parsed]):
                return None
            asked: RecommendationBody = BODY.validate_python(parsed)
        except (orjson.JSONDecodeError, ValidationError):
            return None
        if asked.page_of is not None:
            return None
        request = asked.request(self._shared.settings.serving)
        return request.having(**asked_in(asked, page=False))

    def _template(self, query: bytes) -> Request | None:
        """What `query` asks for, whoever asks; None where the application is to say what is wrong."""
        if len(query) > LONGEST_QUERY:
            return None
        try:
            return self._queries[query]
        except KeyError:
            made = self._understood(query)
        if len(self._queries) >= QUERIES:
            self._queries = {}
        self._queries[query] = made
        return made

    def _understood(self, query: bytes) -> Request | None:
        if QUERY.fullmatch(query) is None:
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
