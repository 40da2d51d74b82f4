"""The OpenAPI 3.1 document, from the same declarations that check requests."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from recsys import __version__
from recsys.web.field_meanings import explain
from recsys.web.operations import CATALOGUE, Operation, is_list, parameter_fields
from recsys.web.problem_details import Problem

REF = "#/components/schemas/{model}"
PROBLEM = {"application/problem+json": {"schema": {"$ref": REF.format(model="Problem")}}}
DESCRIPTIONS = {
    200: "The answer",
    202: "Accepted",
    401: "The API key is missing or invalid",
    403: "The key lacks the scope",
    404: "Not found",
    405: "The address does not take this method",
    409: "Conflict with the current state",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "A value is invalid; errors[] says which",
    503: "The database or the model is not ready; try again after Retry-After seconds",
}

# What an answer names and where it leads: (operation, status) -> operations and the parameter each
# takes from the answer or the request.
LINKS: dict[tuple[str, int], dict[str, dict[str, str]]] = {
    ("post_events", 200): {
        "user_recommendations": {"user_id": "$request.body#/user_id"},
        "get_user_events": {"user_id": "$request.body#/user_id"},
        "delete_user": {"user_id": "$request.body#/user_id"},
    },
    ("user_recommendations", 200): {
        "replay": {"recommendation_id": "$response.body#/recommendation_id"},
        "get_item": {"item_id": "$response.body#/items/0/item_id"},
        "similar": {"item_id": "$response.body#/items/0/item_id"},
    },
    ("post_recommendations", 200): {
        "replay": {"recommendation_id": "$response.body#/recommendation_id"},
    },
    ("put_items", 200): {
        "get_item": {"item_id": "$response.body#/results/0/item_id"},
        "patch_item": {"item_id": "$response.body#/results/0/item_id"},
        "delete_item": {"item_id": "$response.body#/results/0/item_id"},
    },
    ("get_item", 200): {"delete_item": {"item_id": "$response.body#/item_id"}},
    ("delete_item", 200): {"get_item": {"item_id": "$response.body#/item_id"}},
    ("list_models", 200): {
        "get_model": {"version": "$response.body#/models/0/version"},
        "promote_model": {"version": "$response.body#/models/0/version"},
    },
    ("run_job", 202): {
        "get_run": {"run_id": "$response.body#/run_id"},
        "cancel_run": {"run_id": "$response.body#/run_id"},
    },
}


# The groups, in the order in which someone who begins needs them.
TAGS = {
    "recommendations": "What to show a user or a session.",
    "events": "What users and sessions did.",
    "items": "The catalogue, and lists of items that need no user.",
    "users": "One user's events and attributes; merging and erasing.",
    "scenarios": "What each place of a site shows.",
    "experiments": "Comparisons of versions and scenarios.",
    "reports": "Clicks and conversions.",
    "models": "The trained versions; promote one, or roll back.",
    "jobs": "Trainings and other runs.",
    "health": "Whether the service can answer.",
}


def document() -> dict[str, Any]:
    """The whole document, JSON-ready."""
    models: list[tuple[type[BaseModel], Any]] = [(Problem, "serialization")]
    models += [(one.answer, "serialization") for one in CATALOGUE if one.answer is not None]
    _, defined = models_json_schema(models, ref_template=REF)
    schemas = dict(defined["$defs"])
    paths: dict[str, dict[str, Any]] = {}
    for one in CATALOGUE:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", one.path)
        paths.setdefault(path, {})[one.method.lower()] = _operation(one, schemas)
    for schema in schemas.values():
        explain(schema.get("properties", {}))
    used = {one.tag for one in CATALOGUE}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "recsys",
            "version": __version__,
            "summary": "Personalised next items from clickstreams.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": name, "description": said} for name, said in TAGS.items() if name in used
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(one: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = [*_path_parameters(one), *_query_parameters(one)]
    for parameter in parameters:
        explain({parameter["name"]: parameter["schema"]})
        if "description" in parameter["schema"]:  # where pages that show the document look for it
            parameter["description"] = parameter["schema"].pop("description")
    described: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "tags": [one.tag],
        "parameters": parameters,
        "responses": _responses(one),
    }
    if one.scope is not None:
        described["security"] = [{"key": []}, {"bearer": []}]
        page = (
            "; a page's key of scope collect will do, within what pages may ask"
            if one.collect
            else ""
        )
        described["description"] = f"Needs a key of scope {one.scope}{page}."
    else:
        described["security"] = []
    if one.body is not None:
        schema = one.body.json_schema(ref_template=REF)
        schemas.update(schema.pop("$defs", {}))
        if "title" in schema and schema.get("type") == "object":
            schemas[schema["title"]] = schema
            schema = {"$ref": REF.format(model=schema["title"])}
        content: dict[str, Any] = {"schema": schema}
        if one.example is not None:
            content["example"] = one.example
        described["requestBody"] = {"required": True, "content": {"application/json": content}}
    return described


def _path_parameters(one: Operation) -> list[dict[str, Any]]:
    text: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 256}
    number: dict[str, Any] = {"type": "integer", "minimum": 0}
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": dict(number if kind == "int" else text),
        }
        for kind, name in re.findall(r"<(?:(\w+):)?(\w+)>", one.path)
    ]


def _query_parameters(one: Operation) -> list[dict[str, Any]]:
    if one.query is None:
        return []
    schema = one.query.model_json_schema(ref_template=REF)
    required = set(schema.get("required", []))
    parameters = []
    for name, described in schema["properties"].items():
        parameter = {"name": name, "in": "query", "required": name in required}
        options = described.get("anyOf")
        if options:  # a parameter is absent or given, never null
            kept = [option for option in options if option.get("type") != "null"]
            described = {**{k: v for k, v in described.items() if k != "anyOf"}, **kept[0]}
            described.pop("default", None)
        parameter["schema"] = described
        if is_list(parameter_fields(one.query)[name].annotation):
            parameter["style"], parameter["explode"] = "form", True
        parameters.append(parameter)
    return parameters


def _responses(one: Operation) -> dict[str, Any]:
    good = {code for code in one.statuses if code < 300}
    bad = {code for code in one.statuses if code >= 300} | {400, 414, 422, 503}
    if one.scope is not None:
        bad |= {401, 403, 429}
    if one.body is not None:
        bad |= {413, 415}
    responses: dict[str, Any] = {}
    for code in sorted(good | bad):
        response: dict[str, Any] = {
            "description": DESCRIPTIONS.get(code, HTTPStatus(code).phrase),
            "content": PROBLEM,
        }
        answered = {"application/json": {"schema": {"$ref": REF.format(model=_name(one))}}}
        if code in good:
            response["content"] = answered
        elif code in one.also_answers:
            response["content"] = {**PROBLEM, **answered}
        leads = LINKS.get((one.name, code), {})
        if leads:
            response["links"] = {
                name: {"operationId": name, "parameters": given} for name, given in leads.items()
            }
        responses[str(code)] = response
    return responses


def _name(one: Operation) -> str:
    assert one.answer is not None
    return one.answer.__name__
