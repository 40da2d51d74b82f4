"""The value of `exclude_seen`: which event types keep their items out of an answer.

One rule for the configuration's default and for what a request asks.
"""

from __future__ import annotations

from recsys.text_rules import MAX_TYPE_LENGTH, text_problem

MAX_TYPES = 16
MAX_EXCLUDE_SEEN = MAX_TYPES * (MAX_TYPE_LENGTH + 1)  # characters
ALONE = ("all", "none")


def seen_types(text: str) -> frozenset[str] | None:
    """The event types whose items are left out; None = all of them, empty = none.

    >>> sorted(seen_types("purchase, cart") or ())
    ['cart', 'purchase']
    >>> seen_types("all"), seen_types("none")
    (None, frozenset())
    """
    names = frozenset(_split(text))
    return None if "all" in names else names - {"none"}


def check_exclude_seen(text: str) -> str:
    """`text`, if it is event types by commas, or 'all' or 'none' alone. Raises ValueError.

    >>> check_exclude_seen("purchase,cart")
    'purchase,cart'
    >>> check_exclude_seen("all,cart")
    Traceback (most recent call last):
    ValueError: all and none stand alone
    """
    names = _split(text)
    if len(names) > MAX_TYPES:
        raise ValueError(f"expected at most {MAX_TYPES} event types")
    if len(names) > 1 and any(name in ALONE for name in names):
        raise ValueError("all and none stand alone")
    for name in names:
        if problem := text_problem(name, MAX_TYPE_LENGTH):
            raise ValueError(problem)
    return text


def _split(text: str) -> list[str]:
    """The names between commas, without blanks around them; one alone as it is."""
    names = text.split(",")
    return names if len(names) == 1 else [name.strip() for name in names]
