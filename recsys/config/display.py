"""Settings for people: what each key means, and the values in use without their secrets."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from recsys.config.sections import SECRET_KEYS, Settings

_WITH_DEFAULT = re.compile(r' Defaults? ("[^"]*"|[^\s:]+( and \S+)?|:.*)\.$')


def template() -> Path:
    """The commented config.toml that ships with the package."""
    package = Path(__file__).parents[1]
    installed = package / "_config.toml"
    return installed if installed.is_file() else package.parent / "config.toml"


@lru_cache(maxsize=1)
def meanings() -> dict[str, str]:
    """'<section>.<key>' -> what the comment above it in the shipped config.toml says.

    Keys that share a comment share it here; its last sentence, the default, is left out.

    >>> meanings()["training.patience"]
    'Passes without a better validation figure after which training stops.'
    """
    found, section, comment, fresh = {}, "", "", True
    for line in template().read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            comment = f"{'' if fresh else comment} {line[1:].strip()}".strip()
            fresh = False
        elif line.startswith("["):
            section, comment, fresh = line.strip("[]"), "", True
        elif key := re.match(r"(\w+) = ", line):
            found[f"{section}.{key[1]}"] = _WITH_DEFAULT.sub("", comment)
            fresh = True
    return found


def effective(settings: Settings) -> dict[str, dict[str, Any]]:
    """The settings as plain values for display, secrets masked."""
    plain = settings.model_dump(mode="json")
    for key in SECRET_KEYS:
        section, name = key.split(".")
        plain[section][name] = _mask_url(getattr(getattr(settings, section), name))
    return plain


def _mask_url(secret: SecretStr) -> str:
    """An address without its password; of one on the web, whose path may be the secret, the host.

    >>> _mask_url(SecretStr("postgresql://me:pw@host/db?password=x"))
    'postgresql://me:***@host/db'
    >>> _mask_url(SecretStr("postgresql://me:pa?ss@host/db"))
    'postgresql://me:***@host/db'
    >>> _mask_url(SecretStr("https://hooks.example.com/services/T0/B0/secret"))
    'https://hooks.example.com/…'
    """
    text = secret.get_secret_value()
    if text.startswith("http"):
        return re.sub(r"(://)(?:[^/@]*@)?([^/?]*).*", r"\1\2/…", text)
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", text).partition("?")[0]
