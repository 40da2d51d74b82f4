"""Ids with a slash, percent-encoded, in any route.

WSGI hands the path over decoded, where `a%2Fb` and `a/b` look alike. The raw target tells them
apart: a slash within a segment travels as a control character, which no id may hold, and the
`id` converter turns it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from werkzeug.routing import BaseConverter

from recsys.errors import InputError
from recsys.text_rules import stored_text_problem

SLASH = "\x1f"
NOT_UTF8 = "recsys.path_is_not_utf8"
DISGUISED = "recsys.path_is_disguised"  # a proxy's rule for /metrics or /admin would not know it


class SlashKeeper:
    """WSGI middleware that marks encoded slashes, paths that are no text, and disguised ones."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
        path = raw.partition("?")[0].partition("#")[0]
        try:
            unquote_to_bytes(path).decode()
        except UnicodeDecodeError:
            environ[NOT_UTF8] = True
        first = path.split("/")[1] if path.startswith("/") else ""
        if "%" in first or path.startswith("//") or environ.get("PATH_INFO", "").startswith("//"):
            environ[DISGUISED] = True
        if "%2f" in path.lower() and path.startswith("/"):
            segments = [unquote_to_bytes(part) for part in path.split("/")]
            marked = b"/".join(part.replace(b"/", SLASH.encode()) for part in segments)
            environ["PATH_INFO"] = marked.decode("latin-1")
        return self.app(environ, start_response)


class IdConverter(BaseConverter):
    """An item or user id in a path."""

    regex = "[^/]+"
    part_isolating = True

    def to_python(self, value: str) -> str:
        return value.replace(SLASH, "/")


def check_ids(values: Mapping[str, object]) -> None:
    """Raises InputError for a text among the path's `values` that cannot be an id."""
    for field, value in values.items():
        if isinstance(value, str) and (problem := stored_text_problem(value)):
            raise InputError(field, value, problem)
