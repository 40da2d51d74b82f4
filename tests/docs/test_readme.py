"""What README.md says exists, exists."""

import re
from pathlib import Path

from recsys.config import Settings
from recsys.storage.engine.database import Database
from recsys.web.app import create_app
from recsys.web.operations import CATALOGUE

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = ("rest", "operation", "dashboard", "training", "tutorial")  # that go on where it ends
TEXT = "\n".join([README, *((ROOT / "docs" / f"{name}.md").read_text() for name in PAGES)])


def test_it_is_short():
    assert len(README.splitlines()) < 150


def test_every_command_line_names_a_command_and_its_options(commands):
    known = commands
    lines = re.findall(r"recsys ((?:[a-z]+ ?)+)([^`\n#]*)", TEXT)
    shown = re.findall(r"^recsys .*(?:\\\n.*)*", TEXT, re.M) + re.findall(
        r"`(recsys [^`]*)`", TEXT.replace("\n  ", " ").replace("\n", " ")
    )
    assert len(shown) > 12
    for line in shown:
        words = line.replace("\\\n", " ").partition("#")[0].split()[1:]
        name = next((n for n in (" ".join(words[:2]), words[0]) if n in known), None)
        assert name, line
        options = {option for p in known[name].params for option in (*p.opts, *p.secondary_opts)}
        for word in words:
            if word.startswith("-") and not re.fullmatch(r"-?\d+", word):
                assert word in options, f"{word} in: {line}"
    assert lines


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z]+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_tree_is_there():
    tree = README.split("```\nrecsys/\n")[1].split("```")[0]
    folders = {"": ROOT}
    for line in tree.splitlines():
        name = line.split()[0]
        base = ROOT / "recsys" if line.startswith("  ") else ROOT
        path = base / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), line
    parts = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.startswith("  ")}
    real = {
        path.name for path in (ROOT / "recsys").iterdir() if not path.name.startswith(("_", "."))
    }
    assert real == parts
    assert folders


def test_every_route_is_named_and_every_named_route_is_there(tmp_path):
    create_app(Settings(), Database(f"sqlite:///{tmp_path}/x.db"))
    routes = set()
    for one in CATALOGUE:
        path = re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", one.path)
        routes.add(f"{one.method} {path.removeprefix('/api/v1')}")
    named = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`?]*)`", TEXT))
    assert named <= routes
    by_query = {
        *("GET /users/recommendations", "GET /items/similar", "GET /items/next"),
        *("GET /users", "GET /users/events", "POST /users/merge", "DELETE /users"),
        *(f"{method} /users/attributes" for method in ("GET", "PUT", "DELETE")),
        *("PATCH /items", "DELETE /items"),
    }
    assert routes - named == by_query


def test_the_decisions_are_listed():
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for path in (ROOT / "docs" / "decisions").glob("0*.md"):
        assert path.name in listed


def test_every_link_of_a_document_leads_to_a_file_and_a_heading():
    missing = []
    for path in [
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "clients").glob("*/*.md"),
    ]:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            found = path if not name else (path.parent / name).resolve()
            if not found.exists():
                missing.append((path.name, target))
            elif anchor and found.suffix == ".md":
                titles = re.findall(r"^#+ (.*)$", found.read_text(), re.M)
                slugs = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in titles}
                if anchor not in slugs:
                    missing.append((path.name, target))
    assert missing == []
