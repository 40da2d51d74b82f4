"""What keys of config.toml are made of: types with their bounds, and the checks of single values."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from recsys.config.exclude_seen import check_exclude_seen
from recsys.text_rules import MAX_TYPE_LENGTH, text_problem

MAX_SECRET_BYTES = 65_536

Port = Annotated[int, Field(ge=0, le=65_535)]
Network = Literal["lstm", "gru", "sasrec"]
NETWORKS: tuple[str, ...] = get_args(Network)
Engine = Literal["local", "torchrun", "ray"]
ENGINES: tuple[str, ...] = get_args(Engine)
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


ExcludeSeen = Annotated[str, AfterValidator(check_exclude_seen)]


def check_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):  # unknown, no name at all, a folder of names
        raise ValueError("an IANA name such as Europe/Paris") from None
    return value


def _resolve_secret(secret: SecretStr) -> SecretStr:
    """`file:/path` stands for that file's content without its line end."""
    text = secret.get_secret_value()
    if not text.startswith("file:"):
        return secret
    try:
        with open(text[5:], encoding="utf-8") as file:
            return SecretStr(file.read(MAX_SECRET_BYTES).strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the secret's file cannot be read ({type(error).__name__})") from None


def check_live(value: float) -> float:
    if value != 0 and not 0.1 <= value <= 3_600:
        raise ValueError("0, or 0.1 to 3600")
    return value


Secret = Annotated[SecretStr, AfterValidator(_resolve_secret)]


def check_limits(where: SecretStr) -> SecretStr:
    text = where.get_secret_value()
    if text != "memory" and not re.match(r"rediss?://[^/]", text):
        raise ValueError('"memory", redis://host:port/number or rediss://…')
    return where


def check_type(name: str) -> str:
    if problem := text_problem(name, MAX_TYPE_LENGTH):
        raise ValueError(problem)
    return name


# A path of keys from the message on, with at most one list of items on it.
ITEM_PATH = r"^(properties|context)(\.[^.\[\]]+)+(\[\](\.[^.\[\]]+)*)?$"
MAX_OWN_NAMES = 1_000
SqlText = Annotated[str, Field(max_length=10_000)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
