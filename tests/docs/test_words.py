"""Words that docs/glossary.md rules out are in no page, help text, message, description or document."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Environment

from recsys.config import Settings
from recsys.storage.engine.database import Database
from recsys.web.admin.terms import TERMS
from recsys.web.app import create_app
from tools.glossary import HELD
from tools.glossary import ruled_out as found

ROOT = Path(__file__).parents[2]
# Messages and labels of these; other texts in the code are for programmers.
SPEAKING = ("recsys/web", "recsys/cli", "recsys/ops", "recsys/demo/storefront", "jobs")


def pages() -> Iterator[tuple[str, str]]:
    """Each template without its expressions and comments, and the pages' scripts."""
    for folder in ("recsys/web/templates", "recsys/demo/storefront/templates"):
        for path in sorted((ROOT / folder).rglob("*.html")):
            tokens = Environment().lex(path.read_text())
            yield path.name, "".join(text for _, kind, text in tokens if kind in ("data", "string"))
    for folder in ("recsys/demo/storefront/static", "recsys/web/static", "recsys/web/static/admin"):
        for path in sorted((ROOT / folder).glob("*.js")):
            yield path.name, path.read_text()


def messages() -> Iterator[tuple[str, str]]:
    """Each text in the code of SPEAKING that is no docstring."""
    for folder in SPEAKING:
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            silent = {
                id(node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and id(node) not in silent:
                    yield f"{path.name}:{node.lineno}", str(node.value)


def documents() -> Iterator[tuple[str, str]]:
    yield "README.md", (ROOT / "README.md").read_text()
    yield "config.toml", (ROOT / "config.toml").read_text()
    for path in sorted((ROOT / "docs").rglob("*.md")):
        yield path.name, HELD if path.name == "glossary.md" else path.read_text()


@pytest.mark.parametrize("sources", [pages, messages, documents])
def test_no_text_has_a_word_that_is_ruled_out(sources):
    read = dict(sources())
    assert len(read) > 15
    assert {name: found(text) for name, text in read.items() if found(text)} == {}


def test_no_help_text_has_one(commands):
    for name, command in commands.items():
        options = [getattr(one, "help", None) or "" for one in command.params]
        assert found(" / ".join([command.help or "", *options])) == [], name


def test_no_description_of_rest_has_one(tmp_path):
    app = create_app(Settings(), Database(f"sqlite:///{tmp_path}/x.db"))
    document = app.test_client().get("/openapi.json").get_data(as_text=True)
    assert "summary" in document and found(document) == []


def test_every_parameter_and_field_of_a_request_is_described(tmp_path):
    app = create_app(Settings(), Database(f"sqlite:///{tmp_path}/x.db"))
    document = app.test_client().get("/openapi.json").json
    operations = [
        (f"{method} {path}", one)
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    ]
    silent = [
        f"{name}: {parameter['name']}"
        for name, one in operations
        for parameter in one["parameters"]
        if not parameter.get("description")
    ]
    schemas = document["components"]["schemas"]
    bodies = {
        name
        for _, one in operations
        for name in re.findall(r"#/components/schemas/(\w+)", str(one.get("requestBody", "")))
    }
    silent += [
        f"{body}.{name}"
        for body in sorted(bodies)
        for name, field in schemas[body].get("properties", {}).items()
        if not field.get("description")
    ]
    assert len(bodies) > 5 and silent == [], "describe them, or see recsys/web/field_meanings.py"


def test_a_word_is_found_in_any_case_and_across_lines():
    assert found("No item is\n  like that; As usual") == ["is like that", "As usual"]
    assert found("unmended, mender, [mend](mended.md)") == ["mend"]


def test_the_dashboard_and_the_glossary_explain_terms_in_the_same_words():
    for term, meaning in TERMS.items():
        assert f"| {term} | {meaning} |" in HELD, term
