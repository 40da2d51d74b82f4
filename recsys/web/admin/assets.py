"""Addresses of style sheets and scripts: with a hash of their content, so browsers keep them."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from flask import current_app, url_for


def address(name: str) -> str:
    """Of a file in static/admin."""
    folder = Path(current_app.static_folder or "")
    return url_for("static", filename=f"admin/{name}", v=_digest(folder / "admin" / name))


@lru_cache(maxsize=256)
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
