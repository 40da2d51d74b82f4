"""Validation of what is known of a user beside the events: attributes such as a plan or a language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import orjson

from recsys.errors import InputError
from recsys.ingest.event_body import check_properties, checked_id
from recsys.ingest.json_keys import repeated_key, repeats_a_key
from recsys.text_rules import MAX_ID_LENGTH, text_problem

FIELD = "attributes"
MAX_ATTRIBUTES = 100
MAX_NAME_LENGTH = 256  # characters

# What becomes of the attributes that are stored: all go; those of other names stay; all stay.
Mode = Literal["replace", "update", "fill"]


@dataclass(frozen=True, slots=True)
class UserAttributes:
    """The attributes given of one user."""

    user_id: str
    attributes: str  # JSON object text, compact, keys sorted


def check_user(user_id: object, attributes: object) -> UserAttributes:
    """The attributes of a user; the id is taken as an event's is.

    Raises InputError naming the field and the value that is not acceptable.

    >>> check_user(7.0, {"plan": "pro", "age": 31})
    UserAttributes(user_id='7', attributes='{"age":31,"plan":"pro"}')
    """
    known = checked_id("user_id", user_id)
    if known is None:
        problem = f"expected text of 1 to {MAX_ID_LENGTH} characters, or a whole number"
        raise InputError("user_id", user_id, problem)
    return UserAttributes(known, check_attributes(attributes))


def check_attributes(attributes: object) -> str:
    """`attributes` as compact JSON text with sorted keys.

    Any JSON value will do for an attribute. Raises InputError where it is no JSON object, or has more
    than MAX_ATTRIBUTES names, a name that is empty, too long or not printable, or is too large or too
    deep (see `check_properties`).

    >>> check_attributes({"plan": "pro", "tags": ["a", {"b": None}]})
    '{"plan":"pro","tags":["a",{"b":null}]}'
    >>> check_attributes({"": 1})
    Traceback (most recent call last):
    recsys.errors.InputError: attributes = '': a name: expected text of 1 to 256 characters
    """
    if not isinstance(attributes, Mapping):
        raise InputError(FIELD, attributes, "expected a JSON object")
    if len(attributes) > MAX_ATTRIBUTES:
        raise InputError(FIELD, len(attributes), f"expected at most {MAX_ATTRIBUTES} names")
    for name in attributes:
        if problem := text_problem(name, MAX_NAME_LENGTH):
            raise InputError(FIELD, name, f"a name: {problem}")
    return check_properties(attributes, FIELD) or "{}"


def attributes_text(text: str) -> object:
    """The JSON value that `text` is. Raises InputError where it is none, or a key stands twice."""
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(FIELD, text, f"not JSON: {where}") from None
    if repeats_a_key(text.encode(), [parsed]):
        raise InputError(FIELD, text, repeated_key(text.encode()))
    return parsed


def with_attributes(stored: str, given: str, mode: Mode) -> str:
    """Attributes, as JSON text, once others are `given`.

    'replace': those given, and no other. 'update': those given over those stored, null taking one
    away. 'fill': those given where there is none, or null. Raises InputError where they become too
    many or too large.

    >>> with_attributes('{"age":31,"plan":"free"}', '{"age":null,"plan":"pro"}', "update")
    '{"plan":"pro"}'
    >>> with_attributes('{"plan":"free"}', '{"city":"Ulm","plan":"pro"}', "fill")
    '{"city":"Ulm","plan":"free"}'
    """
    if mode == "replace":
        return given
    before, new = orjson.loads(stored), orjson.loads(given)
    if mode == "fill":
        before = {name: value for name, value in before.items() if value is not None}
        return check_attributes({**new, **before})
    kept = {name: value for name, value in before.items() if name not in new}
    return check_attributes(kept | {name: one for name, one in new.items() if one is not None})
