"""The value of `exclude_seen`: which event types keep their items out of an answer.

One rule for the configuration's default and for what a request asks.
"""

from __future__ import annotations

from recsys.text_rules import MAX_TYPE_LENGTH, text_problem

# What logs call buying: the default, so that what was bought is kept out by the log's own word.
BUYING = (
    *("purchase", "Purchase", "purchased", "transaction", "order", "ordered", "order_completed"),
    *("Order Completed", "buy", "bought", "sale"),
)
DEFAULT = ",".join(BUYING)
MAX_TYPES = 16
MAX_EXCLUDE_SEEN = MAX_TYPES * (MAX_TYPE_LENGTH + 1)  # characters
AUTO = "auto"  # what the version has learned from its log
ALONE = ("all", "none", "true", "false", AUTO)  # true: the configured types; false: none


def seen_types(text: str) -> frozenset[str] | None:
    """The event types whose items are left out; None = all of them, empty = none.

    `auto` is what logs call buying here: where a version has learned better, see `resolved`.

    >>> sorted(seen_types("purchase, cart") or ())
    ['cart', 'purchase']
    >>> seen_types("all"), seen_types("none")
    (None, frozenset())
    """
    names = frozenset(_split(text))
    if names & {"true", AUTO}:
        names |= frozenset(BUYING)
    return None if "all" in names else names - {*ALONE}


def named_types(text: str) -> frozenset[str]:
    """The event types that are named one by one.

    >>> sorted(named_types("auto,cart")), sorted(named_types("all"))
    (['cart'], [])
    """
    return frozenset(_split(text)) - {*ALONE}


def both_seen(one: str, other: str | None) -> str:
    """The value of `exclude_seen` that leaves out what either leaves out.

    >>> both_seen("cart", "purchase"), both_seen("none", "cart"), both_seen("all", "cart")
    ('cart,purchase', 'cart', 'all')
    >>> both_seen("auto", "cart")
    'auto,cart'
    """
    if other is None:
        return one
    names = {*_split(one), *_split(other)}
    return "all" if "all" in names else ",".join(sorted(names - {"none", "false"})) or "none"


def resolved(text: str, learned: str) -> str:
    """`text` with what a version has learned in the place of `auto`.

    >>> resolved("auto", "all"), resolved("auto,cart", "purchase"), resolved("cart", "all")
    ('all', 'cart,purchase', 'cart')
    """
    names = _split(text)
    if AUTO not in names:
        return text
    rest = [name for name in names if name != AUTO]
    return both_seen(learned, ",".join(rest)) if rest else learned


def chosen(given: str | None, configured: str) -> str:
    """What a request asks for: the configured types where it says nothing, or `true`.

    >>> chosen(None, "cart"), chosen("true", "cart"), chosen("false", "cart"), chosen("all", "cart")
    ('cart', 'cart', 'none', 'all')
    """
    if given is None or given in ("", "true"):
        return configured
    return "none" if given == "false" else given


def check_exclude_seen(text: str) -> str:
    """`text`, if it is event types by commas, or one of ALONE. Raises ValueError.

    >>> check_exclude_seen("purchase,cart")
    'purchase,cart'
    >>> check_exclude_seen("all,cart")
    Traceback (most recent call last):
    ValueError: all, none, auto, true and false stand alone
    """
    names = _split(text)
    if len(names) > MAX_TYPES:
        raise ValueError(f"expected at most {MAX_TYPES} event types")
    if len(names) > 1 and any(name in ALONE for name in names):
        raise ValueError("all, none, auto, true and false stand alone")
    for name in names:
        if problem := text_problem(name, MAX_TYPE_LENGTH):
            raise ValueError(problem)
    return text


def _split(text: str) -> list[str]:
    """The names between commas, without blanks around them; one alone as it is."""
    names = text.split(",")
    return names if len(names) == 1 else [name.strip() for name in names]
