"""Settings: the configuration in effect, each key with its meaning; secrets masked, nothing to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template

from recsys.config import SECRET_KEYS, Settings, effective, from_environment, meanings, variable
from recsys.web.admin.access import PREFIX, view
from recsys.web.admin.queries import choice, words
from recsys.web.services import services

blueprint = Blueprint("admin_settings", __name__, url_prefix=f"{PREFIX}/settings")

SHOWN = ("all", "changed")


@dataclass(frozen=True)
class Setting:
    """One key; `source`: 'environment', 'file' (or the command line) or '' where it is the default."""

    key: str
    value: Any
    default: Any
    source: str
    meaning: str
    variable: str
    secret: bool

    @property
    def changed(self) -> bool:
        return bool(self.value != self.default)


@view(blueprint, "", role="viewer", query=("show", "q"))
def index() -> str:
    """The page."""
    text, shown = words("q"), choice("show", SHOWN, "all")
    sections = _sections(services().settings)
    every = [one for rows in sections.values() for one in rows]
    found = {
        section: [
            one
            for one in rows
            if (shown == "all" or one.changed)
            and (text is None or text.lower() in f"{section}.{one.key} {one.meaning}".lower())
        ]
        for section, rows in sections.items()
    }
    return render_template(
        "admin/settings.html",
        sections={section: rows for section, rows in found.items() if rows},
        shown=shown,
        counts={"all": len(every), "changed": sum(one.changed for one in every)},
    )


def _sections(settings: Settings) -> dict[str, list[Setting]]:
    """Every key by its section, in the order of config.toml."""
    defaults = effective(Settings.model_construct())
    given, known = from_environment(), meanings()
    found: dict[str, list[Setting]] = {}
    for section, values in effective(settings).items():
        for key, value in values.items():
            name, default = f"{section}.{key}", defaults[section][key]
            source = "environment" if name in given else ("file" if value != default else "")
            found.setdefault(section, []).append(
                Setting(
                    key,
                    value,
                    default,
                    source,
                    known.get(name, ""),
                    variable(section, key),
                    name in SECRET_KEYS,
                )
            )
    return found
