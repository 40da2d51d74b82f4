"""SQL of the operator's in `[events]`: trusted, but for being one expression, or one SELECT."""

from __future__ import annotations

import re

from recsys.config import EventsSettings
from recsys.errors import ConfigError


def check_sql(settings: EventsSettings) -> None:
    """Raise ConfigError where `where` is more than one expression, or `query` is no SELECT."""
    if problem := _problem(settings.where):
        raise ConfigError("events.where", settings.where, f"{problem}; expected one expression")
    if settings.query:
        check_query("query", settings.query)


def check_query(key: str, query: str) -> None:
    """Raise ConfigError where `query`, of events.`key`, is not one SELECT that only reads."""
    problem = _problem(query)
    writing = r"\b(INSERT|UPDATE|DELETE|MERGE|INTO|CALL|COPY|DROP|ALTER|CREATE|GRANT|TRUNCATE)\b"
    if problem is None and not re.match(r"\s*(SELECT|WITH)\b", query, re.IGNORECASE):
        raise ConfigError(f"events.{key}", query, "expected a SELECT")
    if problem is None and (found := re.search(writing, _without_texts(query), re.IGNORECASE)):
        raise ConfigError(f"events.{key}", query, f"{found[0]}: expected a SELECT that only reads")
    if problem is not None:
        raise ConfigError(f"events.{key}", query, f"{problem}; expected one SELECT")


def escaped(query: str) -> str:
    """Trusted SQL whose colons are no parameters."""
    return query.replace(":", "\\:")


def _problem(written: str) -> str | None:
    bare = _without_texts(written)
    if "'" in bare:
        return "a quote is not closed"
    for mark in (";", "--", "/*", "*/", "#", "\x00"):
        # PostgreSQL's operators hold a '#'; only MySQL begins a comment with it, at a blank.
        if mark in bare and (mark != "#" or re.search(r"(^|\s)#", bare)):
            return f"{mark!r} has no place here"
    depth = 0
    for sign in bare:
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            break
    return "its parentheses do not match" if depth else None


def _without_texts(written: str) -> str:
    """SQL without what stands in quotes."""
    return re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`", " ", written)
