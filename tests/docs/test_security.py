"""Every test that docs/security.md and docs/reliability.md name exists."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["security.md", "reliability.md"])
def test_every_test_that_is_named_exists(name):
    text = (ROOT / "docs" / name).read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 5
    for path, test in named:
        tree = ast.parse((ROOT / path).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert test in functions, f"{path}::{test}"


def test_every_attack_names_the_test_that_holds_it():
    table = (ROOT / "docs/security.md").read_text().split("## Attacks")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        assert row.count("|") == 4 and "::test_" in row.split("|")[3], row


def test_the_audit_looks_at_torch_too():
    lock = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"^torch==", lock, re.M)
    steps = subprocess.run(
        ["make", "--dry-run", "audit"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    (pick,) = [step for step in steps if step.startswith("sed")]
    picked = subprocess.run(
        ["sh", "-c", pick.partition(">")[0]], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [picked.strip()] == [one for one in project["dependencies"] if one.startswith("torch")]
    audited = [step.split()[-1] for step in steps if "--strict" in step]
    assert audited == ["requirements.lock", pick.split()[-1]]
