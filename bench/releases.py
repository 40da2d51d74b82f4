"""Another release beside this one: a checkout, used by `recsys` and over HTTP alone."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Release:
    """A checkout, with its own Python where it has one and else with the one that runs this."""

    checkout: Path

    @property
    def command(self) -> list[str]:
        own = self.checkout / ".venv" / "bin" / "python"
        return [str(own) if own.exists() else sys.executable, "-m", "recsys"]

    @property
    def python_path(self) -> str:
        """The checkout comes first, whatever is installed."""
        given = os.environ.get("PYTHONPATH")
        return os.pathsep.join([str(self.checkout), *([given] if given else [])])


HERE = Release(Path(__file__).resolve().parents[1])
