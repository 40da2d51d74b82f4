"""One decorator for every REST route: who may call it, what it takes, what it answers.

What is declared here is what is checked and what `recsys.web.openapi` describes, so the two cannot
differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, get_origin

import orjson
from flask import Blueprint, Response, current_app, request
from pydantic import BaseModel, TypeAdapter, ValidationError
from werkzeug.exceptions import UnsupportedMediaType

from recsys.web.paths import check_ids
from recsys.web.problem_details import FieldError, InvalidRequestError

JSON = "application/json"
NOT_SPLIT = ("filter", "boost")  # lists whose values may hold commas


@dataclass(frozen=True)
class Operation:
    """A route as it is checked and documented."""

    method: str
    path: str  # Flask rule without the prefix
    summary: str
    scope: str | None  # 'read', 'write', 'admin'; None = open
    collect: bool  # whether a page's key may call it too
    query: type[BaseModel] | None
    body: TypeAdapter[Any] | None
    answer: type[BaseModel] | None
    statuses: tuple[int, ...]
    tag: str
    name: str
    example: Any = None
    also_answers: tuple[int, ...] = ()  # failures whose body may be the answer's shape


CATALOGUE: list[Operation] = []  # every operation, in the order the blueprints are imported


def operation(
    blueprint: Blueprint,
    method: str,
    path: str,
    *,
    scope: str | None,
    answer: type[BaseModel] | None,
    query: type[BaseModel] | None = None,
    body: Any = None,
    statuses: tuple[int, ...] = (200,),
    lenient: bool = False,
    collect: bool = False,
    example: Any = None,
) -> Callable[[Callable[..., Any]], Callable[..., Response]]:
    """Register a view. It is called with `query=` and `body=` where those are declared, and returns
    a JSON-ready value, or (value, status).

    `collect`: keys that stand in pages may call it too; the view then sees to what they may ask.
    `lenient`: `body` is what is documented, but the view gets the bare JSON and answers row by row.
    """
    adapter: TypeAdapter[Any] | None = TypeAdapter(body) if body is not None else None

    def register(view: Callable[..., Any]) -> Callable[..., Response]:
        documented = (view.__doc__ or "").strip().splitlines()
        CATALOGUE.append(
            Operation(
                method=method,
                path=f"{blueprint.url_prefix or ''}{path}",
                summary=documented[0] if documented else view.__name__,
                scope=scope,
                collect=collect,
                query=query,
                body=adapter,
                answer=answer,
                statuses=statuses,
                tag=blueprint.name,
                name=view.__name__,
                example=example,
                also_answers=(422,) if lenient else (503,) if 503 in statuses else (),
            )
        )

        @wraps(view)
        def wrapped(**path_values: str) -> Response:
            if scope is not None:
                current_app.extensions["recsys"].keys.require(scope, collect=collect)
            check_ids(path_values)
            values: dict[str, Any] = dict(path_values)
            if query is not None:
                values["query"] = read_query(query)
            else:
                refuse_query()
            if adapter is not None:
                values["body"] = read_json() if lenient else read_body(adapter)
            found = view(**values)
            content, status = found if isinstance(found, tuple) else (found, 200)
            return Response(dumps(content), status, mimetype=JSON)

        blueprint.add_url_rule(path, view.__name__, wrapped, methods=[method])
        return wrapped

    return register


def dumps(content: Any) -> bytes:
    if isinstance(content, BaseModel):
        return content.model_dump_json().encode()
    return orjson.dumps(content)


def read_query(model: type[BaseModel]) -> BaseModel:
    """The query string as `model`. Lists may repeat a parameter or separate values by commas, but
    for those of NOT_SPLIT.
    """
    given: dict[str, Any] = {}
    for name in request.args:
        known = model.model_fields.get(name)
        values = request.args.getlist(name)
        if known is not None and is_list(known.annotation):
            whole = name in NOT_SPLIT
            given[name] = [
                part
                for value in values
                for part in ([value] if whole else value.split(","))
                if part != ""
            ]
        elif len(values) > 1:
            raise InvalidRequestError([FieldError(field=name, message="given more than once")])
        else:
            given[name] = values[0]
    return validated(lambda: model.model_validate(given))


def refuse_query() -> None:
    if request.args:
        name = next(iter(request.args))
        raise InvalidRequestError([FieldError(field=name[:80], message="unknown parameter")])


def is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (list, tuple)


def read_body(adapter: TypeAdapter[Any]) -> Any:
    """The JSON body, checked."""
    parsed = read_json()
    return validated(lambda: adapter.validate_python(parsed))


def read_json() -> Any:
    """The JSON body. Its size is bounded by Flask, its depth (1,024) by orjson."""
    if not request.is_json:
        raise UnsupportedMediaType
    try:
        return orjson.loads(request.get_data(cache=False))
    except orjson.JSONDecodeError as error:
        message = f"not JSON: line {error.lineno}, column {error.colno}"
        raise InvalidRequestError([FieldError(field="body", message=message)]) from None


def validated(build: Callable[[], Any]) -> Any:
    try:
        return build()
    except ValidationError as error:
        errors = [
            FieldError(field=location(found["loc"]), message=str(found["msg"])[:200])
            for found in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise InvalidRequestError(errors) from None


def location(parts: tuple[int | str, ...]) -> str:
    """
    >>> location(("events", 3, "timestamp"))
    'events[3].timestamp'
    >>> location(())
    'body'
    """
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{str(part)[:80]}"
    return text.lstrip(".") or "body"
