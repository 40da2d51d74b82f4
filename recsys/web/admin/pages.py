"""The pages of the dashboard in the order of the navigation.

A page `x` is the module `recsys.web.admin.x_page` with a `blueprint` named `admin_x` that has a view
`index`; so is each of its `parts`, which have no entry of their own.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flask import Blueprint, current_app, url_for

from recsys.storage.entities.account_rows import ROLES


@dataclass(frozen=True)
class Page:
    """An entry of the navigation; `icon` is a symbol of static/admin/icons.svg."""

    name: str
    title: str
    icon: str
    role: str = "viewer"  # who sees the entry
    parts: tuple[str, ...] = ()

    @property
    def blueprints(self) -> tuple[str, ...]:
        """The names of the blueprints that belong to the entry."""
        return tuple(f"admin_{name}" for name in (self.name, *self.parts))

    @property
    def endpoint(self) -> str:
        return f"admin_{self.name}.index"

    def is_for(self, role: str) -> bool:
        return ROLES.index(role) >= ROLES.index(self.role)


GROUPS: tuple[tuple[str, tuple[Page, ...]], ...] = (
    (
        "Watch",
        (
            Page("overview", "Overview", "overview", parts=("search",)),
            Page("models", "Models", "models"),
            Page("jobs", "Jobs", "jobs"),
        ),
    ),
    (
        "Steer",
        (
            Page("scenarios", "Scenarios", "scenarios"),
            Page("experiments", "Experiments", "experiments"),
        ),
    ),
    (
        "Explore",
        (
            Page("users", "Users", "users"),
            Page("items", "Items", "items"),
            Page("what_if", "What-if", "whatif"),
            Page(
                "data_quality", "Data quality", "quality", parts=("imports", "uploads", "exports")
            ),
        ),
    ),
    (
        "Manage",
        (
            Page("site", "Add to your site", "site"),
            Page("keys", "Keys", "keys"),
            Page("settings", "Settings", "settings"),
            Page("audit", "Audit", "audit", "operator"),
            Page("accounts", "Accounts", "accounts", "admin"),
        ),
    ),
)


def blueprints() -> list[Blueprint]:
    """The blueprint of every page."""
    names = [name for _, pages in GROUPS for page in pages for name in (page.name, *page.parts)]
    return [importlib.import_module(f"recsys.web.admin.{name}_page").blueprint for name in names]


def address(name: str) -> str:
    """Of a file in static/admin."""
    folder = Path(current_app.static_folder or "")
    return url_for("static", filename=f"admin/{name}", v=_digest(folder / "admin" / name))


@lru_cache(maxsize=256)
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
