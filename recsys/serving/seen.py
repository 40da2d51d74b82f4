"""Which past events keep their items out of an answer: what `exclude_seen` says."""

from __future__ import annotations

from recsys.ingest.event_body import MAX_TYPE_LENGTH, text_problem

MAX_TYPES = 16
ALONE = ("all", "none")


def seen_types(text: str) -> frozenset[str] | None:
    """The event types whose items are left out; None = all of them, empty = none.

    >>> sorted(seen_types("purchase, cart") or ())
    ['cart', 'purchase']
    >>> seen_types("all"), seen_types("none")
    (None, frozenset())
    """
    names = frozenset(split(text))
    return None if "all" in names else names - {"none"}


def split(text: str) -> list[str]:
    """The names that stand between commas, without blanks around them; one alone as it is."""
    names = text.split(",")
    return names if len(names) == 1 else [name.strip() for name in names]


def seen_problem(text: str) -> str | None:
    """What is wrong with a value of `exclude_seen`; None = nothing.

    >>> seen_problem("purchase,cart")
    >>> seen_problem("all,cart")
    'all and none stand alone'
    """
    names = split(text)
    if len(names) > MAX_TYPES:
        return f"expected at most {MAX_TYPES} event types"
    if len(names) > 1 and any(name in ALONE for name in names):
        return "all and none stand alone"
    found = (text_problem(name, MAX_TYPE_LENGTH) for name in names)
    return next((problem for problem in found if problem), None)
