"""config.toml + environment -> frozen settings, and what is wrong with them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from recsys.config.sections import ENV_PREFIX, SECRET_KEYS, Settings, get_section
from recsys.errors import ConfigError

CONFIG_VARIABLE = "RECSYS_CONFIG"
DEFAULT_PATH = Path("config.toml")


def load_settings(path: Path | None = None, **overrides: dict[str, Any]) -> Settings:
    """Settings from `path` (else $RECSYS_CONFIG, else ./config.toml if it exists) and environment.

    `overrides` (section -> keys) win over both; they are how one command passes its own values on.
    Raises ConfigError naming the key, the value and what was expected.
    """
    chosen = chosen_path(path)
    layers = [_read_toml(chosen) if chosen else {}, _read_environment(), overrides]
    merged: dict[str, Any] = {}
    for layer in layers:
        for section, values in layer.items():
            if isinstance(values, dict) and isinstance(merged.get(section, {}), dict):
                merged[section] = {**merged.get(section, {}), **values}
            else:
                merged[section] = values
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise _as_config_error(error, merged) from None


def chosen_path(path: Path | None = None) -> Path | None:
    """The file that `load_settings` reads, or None where there is none."""
    chosen = path or (Path(os.environ[CONFIG_VARIABLE]) if CONFIG_VARIABLE in os.environ else None)
    return DEFAULT_PATH if chosen is None and DEFAULT_PATH.is_file() else chosen


def secret_files(path: Path | None) -> list[Path]:
    """The files that secrets are read from ('file:…'), in the configuration or the environment."""
    layers = [_read_toml(path) if path else {}, _read_environment()]
    found = []
    for key in sorted(SECRET_KEYS):
        section, name = key.split(".")
        given = [layer[section][name] for layer in layers if name in layer.get(section, {})]
        if given and str(given[-1]).startswith("file:"):
            found.append(Path(str(given[-1])[5:]))
    return found


def has_password(path: Path) -> bool:
    """Whether the configuration file itself holds a password, or a webhook's address."""
    found = _read_toml(path)
    for name in SECRET_KEYS:
        section, key = name.split(".")
        text = str(found.get(section, {}).get(key, ""))
        if re.search(r"://[^/@]*:.+@|[?&]password=", text) or text.startswith("http"):
            return True
    return False


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError("--config", str(path), "expected an existing TOML file")
    try:
        return TomlConfigSettingsSource(Settings, path).toml_data
    except (ValueError, OSError) as error:  # tomllib's errors are ValueErrors
        raise ConfigError("--config", str(path), f"not readable as TOML: {error}") from None


def _read_environment() -> dict[str, Any]:
    """RECSYS_<SECTION>__<KEY> as {section: {key: value}}; sections and keys that are unknown raise."""
    for name in os.environ:
        section, delimiter, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
        if not name.startswith(ENV_PREFIX) or not delimiter:
            continue
        if section not in Settings.model_fields:
            raise ConfigError(
                name, "…", f"unknown section; known: {', '.join(Settings.model_fields)}"
            )
        fields = get_section(section).model_fields
        if key not in fields:
            raise ConfigError(name, "…", f"unknown key; known in [{section}]: {', '.join(fields)}")
    try:
        return dict(EnvSettingsSource(Settings)())
    except Exception as error:  # pydantic-settings wraps a JSON error in its own kind
        raise ConfigError("environment", str(error), "expected JSON for a list or table") from None


def from_environment() -> frozenset[str]:
    """'<section>.<key>' of what this process was given as RECSYS_<SECTION>__<KEY>."""
    given = {name.upper() for name in os.environ}
    return frozenset(
        f"{section}.{key}"
        for section in Settings.model_fields
        for key in get_section(section).model_fields
        if variable(section, key) in given
    )


def variable(section: str, key: str) -> str:
    """The environment variable that overrides a key.

    >>> variable("serving", "default_k")
    'RECSYS_SERVING__DEFAULT_K'
    """
    return f"{ENV_PREFIX}{section}__{key}".upper()


def _as_config_error(error: ValidationError, merged: dict[str, Any]) -> ConfigError:
    first = error.errors(include_url=False, include_context=False)[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    value: Any = merged
    for part in first["loc"]:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list | tuple) and isinstance(part, int):
            value = value[part]
    if first["type"] == "extra_forbidden":
        known = Settings.model_fields if len(path) == 1 else get_section(path[0]).model_fields
        return ConfigError(key, "…", f"unknown key; known: {', '.join(known)}")
    if key in SECRET_KEYS:
        value = "…"
    said = str(first["msg"])
    expected = re.sub(r"^Value error, |^Input ", "", said)
    if said.startswith("Input should be "):
        return ConfigError(key, value, f"expected {said.removeprefix('Input should be ')}")
    return ConfigError(key, value, f"expected: {expected}")
