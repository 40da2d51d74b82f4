"""Conditions as users write them: an expression, or NAME OP VALUE."""

from __future__ import annotations

import re

from recsys.ingest.row_conditions import Condition
from recsys.steering.expressions.expression import Expression, parse

ItemCondition = Condition | Expression
# How an expression begins. Anything else is NAME OP VALUE, whose VALUE may hold whatever it likes.
_BEGINNING = re.compile(
    r"\s*(?:[!(\[\"']|(?:item|user|last)\s*[.\[]|(?:has|size|now|timestamp|duration)\s*\("
    r"|sets\s*\.\s*intersects\s*\()"
)


def is_expression(text: str) -> bool:
    """Whether `text` is read as an expression.

    >>> [is_expression(text) for text in ("item.price < 50", "!item.sale", "price<50", "brand=item.x")]
    [True, True, False, False]
    """
    return _BEGINNING.match(text) is not None


def read_condition(text: str, field: str) -> ItemCondition:
    """The condition that `text` is. Raises InputError, of `field`."""
    return parse(text, field) if is_expression(text) else Condition.parse(text, field)
