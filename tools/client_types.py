"""Types of the clients, written from the API's document: `python tools/client_types.py`.

Writes clients/python/recsys_client/api_types.py and clients/js/src/api_types.ts; a test holds that both
are what this writes.
"""

from __future__ import annotations

import keyword
import tempfile
from pathlib import Path
from typing import Any

from recsys.config import Settings
from recsys.storage.engine.database import Database
from recsys.web.app import create_app
from recsys.web.openapi import document

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / "clients/python/recsys_client/api_types.py"
TYPESCRIPT = ROOT / "clients/js/src/api_types.ts"
# What the clients send and get; whatever these hold comes along.
SENT = ("EventIn", "EventDetails", "RecommendationBody", "ImpressionIn", "ItemIn", "MergeBody")
GOT = (
    *("EventsAnswer", "RecommendationAnswer", "BatchAnswer", "ItemListAnswer", "ImpressionAnswer"),
    *("ItemsAnswer", "MergeAnswer", "AttributesAnswer", "Problem"),
)
NULL_REMOVES = ("ItemIn",)
HEADER = "Written by tools/client_types.py from the API's document; not to be edited."
PYTHON_NAMES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
SCRIPT_NAMES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean"}


# An event without what `track` takes by its place.
DETAILS, PLACED = "EventDetails", ("item_id", "event_type")


def schemas() -> dict[str, Any]:
    """The document's schemas."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/x.db")
        create_app(Settings(), database)
        database.close()
    found: dict[str, Any] = document()["components"]["schemas"]
    fields = found["EventIn"]["properties"]
    kept = {name: kind for name, kind in fields.items() if name not in PLACED}
    return {**found, DETAILS: {"properties": kept}}


def needed(known: dict[str, Any]) -> list[str]:
    """The names of SENT and GOT and of all that they hold, what is held first."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        for held in _references(known[name]):
            visit(held)
        order.append(name)

    for name in (*SENT, *GOT):
        visit(name)
    return order


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for one in schema for name in _references(one)]
    if not isinstance(schema, dict):
        return []
    here = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
    return here + [name for one in schema.values() for name in _references(one)]


def options(schema: dict[str, Any], sent: bool) -> list[dict[str, Any]]:
    """What a value may be; what is sent is left out rather than null."""
    found = schema.get("anyOf", [schema])
    return [one for one in found if not (sent and one.get("type") == "null")]


def python_type(schema: dict[str, Any], sent: bool) -> str:
    names = []
    for one in options(schema, sent):
        if "$ref" in one:
            names.append(one["$ref"].rpartition("/")[2])
        elif one.get("type") == "array":
            names.append(f"list[{python_type(one['items'], sent)}]")
        elif one.get("type") == "object":
            value = one.get("additionalProperties")
            kind = python_type(value, sent) if isinstance(value, dict) else "Any"
            names.append(f"dict[str, {kind}]")
        else:
            names.append("None" if one.get("type") == "null" else PYTHON_NAMES[one["type"]])
    return " | ".join(dict.fromkeys(names))


def script_type(schema: dict[str, Any], sent: bool) -> str:
    names = []
    for one in options(schema, sent):
        if "$ref" in one:
            names.append(one["$ref"].rpartition("/")[2])
        elif one.get("type") == "array":
            item = script_type(one["items"], sent)
            names.append(f"({item})[]" if "|" in item else f"{item}[]")
        elif one.get("type") == "object":
            value = one.get("additionalProperties")
            kind = script_type(value, sent) if isinstance(value, dict) else "unknown"
            names.append(f"Record<string, {kind}>")
        else:
            names.append("null" if one.get("type") == "null" else SCRIPT_NAMES[one["type"]])
    return " | ".join(dict.fromkeys(names))


def python_text(known: dict[str, Any]) -> str:
    """Each schema as a TypedDict; as a call of it where a field has a name that is no identifier."""
    parts = [
        f'"""{HEADER}"""\n\nfrom __future__ import annotations\n\n'
        "from typing import Any, NotRequired, TypedDict\n"
    ]
    for name in needed(known):
        schema, sent = known[name], name in SENT and name not in NULL_REMOVES
        required = schema.get("required", [])
        fields = {}
        for field, described in schema["properties"].items():
            kind = python_type(described, sent)
            fields[field] = kind if field in required else f"NotRequired[{kind}]"
        if any(keyword.iskeyword(field) for field in fields):
            inner = "".join(f'        "{field}": {kind},\n' for field, kind in fields.items())
            parts.append(f'\n{name} = TypedDict(\n    "{name}",\n    {{\n{inner}    }},\n)\n')
        else:
            inner = "".join(f"    {field}: {kind}\n" for field, kind in fields.items())
            parts.append(f"\nclass {name}(TypedDict):\n{inner}")
    return "\n".join(parts)


def script_text(known: dict[str, Any]) -> str:
    """Each schema as an interface."""
    parts = [f"// {HEADER}\n"]
    for name in needed(known):
        schema, sent = known[name], name in SENT and name not in NULL_REMOVES
        required = schema.get("required", [])
        lines = [f"export interface {name} {{"]
        for field, described in schema["properties"].items():
            mark = "" if field in required else "?"
            lines.append(f"  {field}{mark}: {script_type(described, sent)};")
        parts.append("\n".join([*lines, "}\n"]))
    return "\n".join(parts)


def main() -> None:
    known = schemas()
    PYTHON.write_text(python_text(known))
    TYPESCRIPT.write_text(script_text(known))


if __name__ == "__main__":
    main()
