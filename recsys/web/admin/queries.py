"""What list pages take from the query string: filters, a sort order, a cursor."""

from __future__ import annotations

from collections.abc import Collection

from flask import request, url_for

from recsys.errors import InputError

PAGE_ROWS = 25
MAX_TEXT = 256


def choice(name: str, known: Collection[str], default: str | None = None) -> str | None:
    """A parameter that is one of `known`; `default` where it is absent. Raises InputError."""
    given = request.args.get(name, "")
    if not given:
        return default
    if given not in known:
        raise InputError(name, given, f"expected one of {', '.join(sorted(known))}")
    return given


def words(name: str) -> str | None:
    """A parameter of free text; None where it is absent. Raises InputError where it is too long."""
    given = request.args.get(name, "").strip()
    if len(given) > MAX_TEXT:
        raise InputError(name, given, f"expected {MAX_TEXT} characters at most")
    return given or None


def with_query(**changes: str | None) -> str:
    """This page's address with some parameters changed; None takes one away."""
    kept: dict[str, str | None] = {**request.args.to_dict(), **changes}
    values = {**(request.view_args or {}), **{k: v for k, v in kept.items() if v is not None}}
    return url_for(request.endpoint or "admin.home", **values)


def pages(next_cursor: str | None) -> dict[str, str | None]:
    """Addresses of the next and the first page of a list, where there are such."""
    return {
        "next": with_query(cursor=next_cursor) if next_cursor else None,
        "first": with_query(cursor=None) if "cursor" in request.args else None,
    }
