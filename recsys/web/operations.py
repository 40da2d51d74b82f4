"""Register REST routes: who may call each, what it takes, what it answers.

What is declared here is what is checked and what `recsys.web.openapi` describes, so the two cannot
differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from typing import Any, TypeVar, get_origin

import orjson
from flask import Blueprint, Response, current_app, request
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from werkzeug.datastructures import MultiDict

from recsys.web.api_keys import KEY_PARAMETER, from_page
from recsys.web.json_body import read_json
from recsys.web.parameters import takes
from recsys.web.paths import check_ids
from recsys.web.problem_details import FieldError, InvalidRequestError

JSON = "application/json"
Query = TypeVar("Query", bound=BaseModel)
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


@dataclass(frozen=True)
class QueryForm:
    """An operation's alias with the id as a query parameter, for ids that a path cannot carry."""

    path: str
    query: type[BaseModel]  # the operation's own query, if any, and the id
    note: str = ""  # what the summary says beyond that


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
    by_query: QueryForm | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Response]]:
    """Register a view. It is called with the path's values, with `query=` and `body=` where those are
    declared, and returns a JSON-ready value, or (value, status).

    `collect`: keys that stand in pages may call it too; the view then sees to what they may ask. Of
    them text/plain is taken for JSON, and `?api_key=` for a header: `sendBeacon` can send no other.
    `lenient`: `body` is what is documented, but the view gets the bare JSON and answers row by row.
    `by_query`: a second address of the same view, whose operation id ends in `_by_query`.
    """
    adapter: TypeAdapter[Any] | None = TypeAdapter(body) if body is not None else None
    prefix = blueprint.url_prefix or ""

    def register(view: Callable[..., Any]) -> Callable[..., Response]:
        documented = (view.__doc__ or "").strip().splitlines()
        declared = Operation(
            method=method,
            path=f"{prefix}{path}",
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

        def answered(path_values: dict[str, str], given: BaseModel | None) -> Response:
            values: dict[str, Any] = dict(path_values)
            if query is not None:
                values["query"] = given
            if adapter is not None:
                plain = collect and from_page()
                values["body"] = read_json(plain) if lenient else read_body(adapter, plain)
            found = view(**values)
            content, status = found if isinstance(found, tuple) else (found, 200)
            return Response(dumps(content), status, mimetype=JSON)

        def check_key() -> None:
            if scope is not None:
                current_app.extensions["recsys"].keys.require(scope, collect=collect)

        def declare(route: Callable[..., Response], model: type[BaseModel] | None) -> None:
            once, repeated = parameters_of(model)
            takes(*once, *((KEY_PARAMETER,) if collect else ()), repeated=repeated)(route)
            route.__dict__["require_key"] = check_key

        @wraps(view)
        def by_path(**path_values: str) -> Response:
            check_key()
            check_ids(path_values)
            return answered(path_values, None if query is None else read_query(query))

        CATALOGUE.append(declared)
        declare(by_path, query)
        blueprint.add_url_rule(path, declared.name, by_path, methods=[method])
        if by_query is None:
            return by_path

        form, id_name = by_query, re.findall(r"<id:(\w+)>", path)[0]
        alias = replace(
            declared,
            path=f"{prefix}{form.path}",
            summary=f"The same, with the {id_name.removesuffix('_id')}'s ID as a query parameter"
            f"{form.note}.",
            query=form.query,
            name=f"{declared.name}_by_query",
        )

        def by_parameter() -> Response:
            check_key()
            given = read_query(form.query)
            return answered({id_name: getattr(given, id_name)}, given)

        CATALOGUE.append(alias)
        declare(by_parameter, form.query)
        blueprint.add_url_rule(form.path, alias.name, by_parameter, methods=[method])
        return by_path

    return register


def dumps(content: Any) -> bytes:
    if isinstance(content, BaseModel):
        return content.model_dump_json().encode()
    return orjson.dumps(content)


def read_query(model: type[Query]) -> Query:
    """The query string as `model`. Raises InvalidRequestError."""
    return query_of(model, request.args)


def query_of(model: type[Query], args: MultiDict[str, str]) -> Query:
    """Parameters as `model`. Lists may repeat a parameter or separate values by commas, but for those of
    NOT_SPLIT. Raises InvalidRequestError.
    """
    given: dict[str, Any] = {}
    fields = parameter_fields(model)
    for name in args:
        if name == KEY_PARAMETER:  # where a route takes it, it is looked at already
            continue
        known = fields.get(name)
        values = args.getlist(name)
        if known is not None and is_list(known.annotation):
            whole = name in NOT_SPLIT
            given[name] = [
                part
                for value in values
                for part in ([value] if whole else value.split(","))
                if part != ""
            ]
        else:
            given[name] = values[0]
    return validated(lambda: model.model_validate(given))


def parameters_of(model: type[BaseModel] | None) -> tuple[list[str], list[str]]:
    """The names of a query's parameters: those given once, and lists, which may be repeated."""
    fields = {} if model is None else parameter_fields(model)
    repeated = [name for name, field in fields.items() if is_list(field.annotation)]
    return [name for name in fields if name not in repeated], repeated


@lru_cache
def parameter_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A query's fields by the names of their parameters."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (list, tuple)


def read_body(adapter: TypeAdapter[Any], plain: bool) -> Any:
    """The JSON body, checked."""
    parsed = read_json(plain)
    return validated(lambda: adapter.validate_python(parsed))


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
