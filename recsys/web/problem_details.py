"""Errors -> one JSON shape: RFC 9457 problem details.

No traceback, SQL, path or secret ever leaves: a message is passed on only from errors this project
raises on purpose, and of those a model file's is replaced, since it may name a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import orjson
import structlog
from flask import Flask, Response, g
from pydantic import BaseModel, Field
from werkzeug.exceptions import HTTPException

from recsys.errors import (
    AccessError,
    AuthenticationError,
    ConflictError,
    InputError,
    ModelFileError,
    NotEnoughDataError,
    NotFoundError,
    RateLimitError,
    RecsysError,
    StorageUnavailableError,
    within,
)

log = structlog.get_logger(__name__)

MAX_ERRORS = 100


class FieldError(BaseModel):
    field: str = Field(description="The field with the invalid value, such as events[3].timestamp")
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(description="about:blank, or a name for the kind of problem")
    title: str
    status: int
    detail: str
    errors: list[FieldError]
    request_id: str


class InvalidRequestError(RecsysError):
    """Several fields of one request are not acceptable."""

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = errors[:MAX_ERRORS]
        super().__init__(f"{errors[0].field}: {errors[0].message}" if errors else "invalid request")


@contextmanager
def within_body(path: str) -> Iterator[None]:
    """Name the fields of an InputError or InvalidRequestError as parts of what stands at `path` of a body."""
    try:
        with within(path):
            yield
    except InvalidRequestError as error:
        named = [FieldError(field=f"{path}.{e.field}", message=e.message) for e in error.errors]
        raise InvalidRequestError(named) from None


STATUS: list[tuple[type[RecsysError], int]] = [
    (InvalidRequestError, 422),
    (InputError, 422),
    (AuthenticationError, 401),
    (AccessError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (RateLimitError, 429),
    (StorageUnavailableError, 503),
    (NotEnoughDataError, 409),
]


def problem(
    status: int,
    detail: str,
    errors: list[FieldError] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem+json response; of the dashboard, a page that says the same."""
    if "problem_page" in g:
        page: Response | None = g.problem_page(status, HTTPStatus(status).phrase, detail)
        if page is not None:
            page.headers.update(headers or {})
            return page
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "errors": [error.model_dump() for error in errors or []],
        "request_id": g.get("request_id", ""),
    }
    response = Response(orjson.dumps(body), status, mimetype="application/problem+json")
    response.headers.update(headers or {})
    return response


def register(app: Flask) -> None:
    """Translate every error of `app`."""

    @app.errorhandler(RecsysError)
    def known(error: RecsysError) -> Response:
        status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
        headers, errors = {}, []
        if isinstance(error, InvalidRequestError):
            errors = error.errors
        elif isinstance(error, InputError):
            errors = [FieldError(field=error.field, message=error.expected)]
        elif isinstance(error, StorageUnavailableError | RateLimitError):
            headers["Retry-After"] = str(error.retry_after_seconds)
        elif isinstance(error, AuthenticationError):
            headers["WWW-Authenticate"] = 'Bearer realm="recsys"'
        if status == 500:
            log.error("request failed", reason=str(error))
        hidden = status == 500 or isinstance(error, ModelFileError)
        detail = "the service could not answer" if hidden else str(error)
        return problem(status, detail, errors, headers)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        status = error.code or 500
        details = {
            400: "the request could not be read",
            404: "there is nothing at this address",
            405: "this address does not take that method",
            413: f"the body is larger than {app.config['MAX_CONTENT_LENGTH']} bytes",
            415: "expected a JSON body (Content-Type: application/json), as it is or as gzip",
        }
        headers = {}
        allowed = getattr(error, "valid_methods", None)
        if status == 405 and allowed:
            headers["Allow"] = ", ".join(sorted(allowed))
        return problem(status, details.get(status, HTTPStatus(status).phrase), headers=headers)

    @app.errorhandler(Exception)
    def unknown(error: Exception) -> Response:
        log.exception("request failed", kind=type(error).__name__)
        return problem(500, "the service could not answer")
