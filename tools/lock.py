"""Rewrites requirements.lock: every dependency with hashes, torch left out.

torch is pinned in pyproject.toml alone, without a hash, so that the build for the machine at hand
is taken; what it needs is locked here. Run with: make lock
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TORCH_NEEDS = [
    "filelock",
    "fsspec",
    "jinja2",
    "networkx",
    "sympy",
    "typing-extensions",
    "setuptools",
]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["build-system"]["requires"], "editables", *TORCH_NEEDS]
    wanted += project["dependency-groups"]["dev"]
    with tempfile.TemporaryDirectory() as folder:
        more, without = Path(folder) / "more.in", Path(folder) / "without.txt"
        more.write_text("\n".join(wanted) + "\n")
        without.write_text("torch ; python_version < '3'\n")
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"]
        command += ["--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"]
        command += ["--no-emit-package", "torch", "--override", str(without), "--all-extras"]
        command += [str(ROOT / "pyproject.toml"), str(more)]
        subprocess.run([*command, "-o", str(ROOT / "requirements.lock")], check=True)  # noqa: S603


if __name__ == "__main__":
    main()
