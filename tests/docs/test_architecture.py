"""docs/architecture.md names what exists: each hop of its walks, each path, each layer."""

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
WALKS = dict(re.findall(r"^### (.*?)\n(.*?)(?=^##)", TEXT, re.M | re.S))
HOP = re.compile(r"^\d+\. `([^`:]+):([^`]+)`", re.M)


@lru_cache
def definitions(path):
    """Names of a module's functions, methods as Class.method."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{one.name}" for one in node.body if hasattr(one, "name")}
    return found


def test_there_are_five_walks():
    assert len(WALKS) == 5


@pytest.mark.parametrize("title", WALKS)
def test_every_hop_exists(title):
    hops = HOP.findall(WALKS[title])
    assert len(hops) > 10
    assert [hop for hop in hops if hop[1] not in definitions(hop[0])] == []


@pytest.mark.parametrize("title", WALKS)
def test_the_hops_are_counted(title):
    """'N functions in M files' stands before the hops it counts."""
    parts = re.split(r"(\d+) functions in (\d+) files", WALKS[title])
    assert len(parts) > 1, "the walk says how long it is"
    for functions, files, hops in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        found = HOP.findall(hops)
        assert (len(set(found)), len({path for path, _ in found})) == (int(functions), int(files))


def test_every_path_exists():
    for path in re.findall(r"`((?:recsys|jobs|bench|docs|tests)/[\w./-]*)`", TEXT):
        assert (ROOT / path).exists(), path
    for path, function in re.findall(r"`(recsys/[\w/]+\.py)`, `(\w+)`", TEXT):
        assert function.startswith("recsys") or function in definitions(path), (path, function)
