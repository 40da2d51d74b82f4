"""Sphinx directives that write the reference: `rest-operations`, `commands` and `configuration`.

Each writes Markdown from the code's own declarations, so that the site cannot differ from what runs.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from recsys.cli import app as program
from recsys.cli.register import register
from recsys.config import Settings, meanings, template
from recsys.storage.engine.database import Database
from recsys.web.app import create_app
from recsys.web.openapi import document

MODEL = "#/components/schemas/"
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "maxLength": "up to {} characters",
    "maxItems": "up to {}",
}


def rest_operations() -> str:
    """Every operation by tag, then every object that bodies and answers are made of."""
    create_app(Settings(), Database("sqlite://"))  # registers the operations; connects to nothing
    described = document()
    by_tag: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            text = "\n\n".join(_operation(f"{method.upper()} {path}", operation))
            by_tag.setdefault(operation["tags"][0], []).append(text)
    parts = [
        f"## {tag.replace('_', ' ').capitalize()}\n\n" + "\n\n".join(by_tag[tag]) for tag in by_tag
    ]
    objects = [
        f"### {name}\n\n{schema.get('description', '')}\n\n{_fields(schema)}"
        for name, schema in sorted(described["components"]["schemas"].items())
    ]
    return "\n\n".join([*parts, "## Objects", *objects])


def _operation(title: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### `{title}`"
    yield f"{operation['summary']} {operation.get('description', '')}"
    parameters = [
        (f"`{one['name']}`", one["in"], _type(one["schema"]), _meaning(one["schema"], one))
        for one in operation["parameters"]
    ]
    yield _table(("parameter", "in", "type", "meaning"), parameters)
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        yield f"Body: {_type(content['schema'])}."
        if "example" in content:
            yield f"```json\n{json.dumps(content['example'], indent=2)}\n```"
    answers = []
    for status, one in operation["responses"].items():
        schemas = {_type(content["schema"]) for content in one["content"].values()}
        answers.append((status, " or ".join(sorted(schemas)), one["description"]))
    yield _table(("status", "answer", "when"), answers)


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = [
        (f"`{name}`", _type(one), "yes" if name in required else "", _meaning(one, {}))
        for name, one in schema.get("properties", {}).items()
    ]
    if not rows:
        return _type(schema)
    return _table(("field", "type", "required", "meaning"), rows)


def _type(schema: dict[str, Any]) -> str:
    """As a reader says it, with a link for an object that has a table of its own."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(MODEL)
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[key]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"`{json.dumps(value)}`" for value in values)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any JSON"))


def _meaning(schema: dict[str, Any], outer: dict[str, Any]) -> str:
    """The description with the bounds and the default."""
    said = [outer.get("description") or schema.get("description", "")]
    said += [text.format(f"{schema[key]:,}") for key, text in BOUNDS.items() if key in schema]
    if schema.get("default") not in (None, [], {}, ""):
        said.append(f"default `{json.dumps(schema['default'])}`")
    return "; ".join(one for one in said if one)


def commands() -> str:
    """Every command in the order of the help, those of a group under its name."""
    register(program)
    return "\n\n".join(_command(get_command(program), ""))


def _command(command: Any, path: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _command(child, f"{path} {name}")
        return
    name = path.strip()
    context = typer.Context(command, info_name=f"recsys {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    yield f"## `{name}`"
    yield _sentences(command.help or "")
    yield f"```text\n{_sentences(usage)}\n```"
    rows = []
    for one in command.params:
        words = [*one.opts, *one.secondary_opts]
        if "--help" in words:
            continue
        shown = ", ".join(words) if words[0].startswith("-") else one.metavar or one.name.upper()
        default = one.get_default(context)
        plain = default not in (None, False, "", [], ()) and not callable(default)
        more = f" Default: `{default}`." if plain else ""
        rows.append((f"`{shown}`", _sentences(getattr(one, "help", None) or "") + more))
    yield _table(("argument or option", "meaning"), rows)


def configuration() -> str:
    """Every section of config.toml."""
    said, parts = meanings(), []
    for section, keys in tomllib.loads(template().read_text()).items():
        rows = [
            (f"`{key}`", f"`{json.dumps(value)}`", said[f"{section}.{key}"])
            for key, value in keys.items()
        ]
        parts.append(f"## `[{section}]`\n\n{_table(('key', 'default', 'meaning'), rows)}")
    return "\n\n".join(parts)


def _sentences(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table; nothing where it would have no rows."""
    if not rows:
        return ""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text for a cell: outside code, nothing in it is markup but links."""
    parts = re.split(r"(`[^`]*`|\[\w+\]\(#\w+\))", text.replace("|", "\\|"))
    return "".join(
        one if at % 2 else re.sub(r"([*_<>\[\]])", r"\\\1", one) for at, one in enumerate(parts)
    )


def directive(write: Callable[[], str]) -> type[SphinxDirective]:
    """A directive that stands for the Markdown that `write` returns."""

    class Reference(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            return self.parse_text_to_nodes(write(), allow_section_headings=True)

    return Reference


def setup(app: Sphinx) -> dict[str, bool]:
    for name, write in (
        ("rest-operations", rest_operations),
        ("commands", commands),
        ("configuration", configuration),
    ):
        app.add_directive(name, directive(write))
    return {"parallel_read_safe": True}
