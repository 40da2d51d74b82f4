"""Validation of one catalogue item, from REST or an item file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from recsys.errors import InputError
from recsys.ingest.cells import BLANKS, CellRules
from recsys.ingest.event_body import check_properties, checked_id
from recsys.text_rules import MAX_ID_LENGTH, text_problem

MAX_TITLE_LENGTH = 1_024  # characters
MAX_IMAGE_LENGTH = 2_048
MAX_CATEGORIES = 64

ITEM_FIELDS = ("item_id", "title", "categories", "price", "image", "available", "properties")


@dataclass(frozen=True, slots=True)
class Item:
    """One acceptable item, as far as it was given.

    What was not given is no value: it stays what it is where the item is stored already, and is the
    default of a new one. Properties are given name by name, null taking one away.
    """

    item_id: str
    title: str | None
    categories: tuple[str, ...]
    price: float | None
    image: str | None  # an address; never fetched
    available: bool
    properties: str | None  # JSON object text, compact, keys sorted
    given: frozenset[str] = field(default=frozenset(ITEM_FIELDS), compare=False)


def check_item(
    raw: Mapping[str, object],
    rules: CellRules = CellRules(),  # noqa: B008
) -> Item:
    """The item that the JSON object `raw` describes; its id is taken as an event's is, by `rules`.

    A field that is absent is not given; null gives it as empty (of `available`: says nothing). White
    space within a title becomes single spaces, categories are trimmed and kept once. Raises InputError
    naming the first field that is unknown, missing or not acceptable.

    >>> check_item({"item_id": " 7.0", "title": "Tea", "categories": ["drinks"]}).item_id
    '7'
    """
    if not isinstance(raw, Mapping):
        raise InputError("item", raw, "expected a JSON object")
    for name in raw:
        if name not in ITEM_FIELDS:
            raise InputError(
                str(name), raw[name], f"unknown field; known: {', '.join(ITEM_FIELDS)}"
            )
    item_id = checked_id("item_id", raw.get("item_id"), rules=rules)
    if item_id is None:
        problem = f"expected text of 1 to {MAX_ID_LENGTH} characters, or a whole number"
        raise InputError("item_id", raw.get("item_id"), problem)
    title = raw.get("title")
    if isinstance(title, str):
        title = " ".join(title.split()) or None
    available = raw.get("available")
    if available is not None and not isinstance(available, bool):
        raise InputError("available", available, "expected true or false")
    return Item(
        item_id=item_id,
        title=_text("title", title, MAX_TITLE_LENGTH),
        categories=_categories(raw.get("categories")),
        price=_price(raw.get("price")),
        image=_text("image", raw.get("image"), MAX_IMAGE_LENGTH),
        available=available is not False,
        properties=check_properties(raw.get("properties")),
        given=frozenset(raw) - (frozenset() if available is not None else {"available"}),
    )


def with_properties(stored: str, given: str | None) -> str:
    """Properties, as JSON text, with those given over them; null takes one away, None all.

    Raises InputError where they become too large.

    >>> with_properties('{"brand":"Acme","size":3}', '{"size":null,"tea":true}')
    '{"brand":"Acme","tea":true}'
    """
    if given is None:
        return "{}"
    merged = {**orjson.loads(stored), **orjson.loads(given)}
    kept = {name: value for name, value in merged.items() if value is not None}
    return check_properties(kept) or "{}"


def _text(field: str, value: object, limit: int) -> str | None:
    if value is None:
        return None
    if problem := text_problem(value, limit):
        raise InputError(field, value, problem)
    assert isinstance(value, str)
    return value


def _categories(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise InputError("categories", value, "expected a list of texts")
    value = [one.strip(BLANKS) if isinstance(one, str) else one for one in value]
    for category in value:
        if problem := text_problem(category, MAX_ID_LENGTH):
            raise InputError("categories", category, problem)
    categories = tuple(dict.fromkeys(value))
    if len(categories) > MAX_CATEGORIES:
        raise InputError("categories", len(categories), f"expected at most {MAX_CATEGORIES}")
    return categories


def _price(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            price = float(value)
        except OverflowError:
            price = math.inf
        if math.isfinite(price) and price >= 0:
            return price
    raise InputError("price", value, "expected a finite number of at least 0")
