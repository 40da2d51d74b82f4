"""`--where` expressions, which select rows of a file.

Legend: n rows.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import InputError, shown
from recsys.events.array_types import BoolArray, Int64Array
from recsys.ingest.arrow_columns import NUMBER, as_numbers, as_text

_OPERATOR = re.compile(r"!=|<=|>=|==|=|<|>")  # searched for: a pattern of the whole would backtrack
_NUMBER = re.compile(NUMBER, re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}(-\d{2}([T ][0-9:.,+Z-]*)?)?", re.ASCII)
_DATED = r"^[0-9]{4}-[0-9]{2}"
ORDER = ("<", "<=", ">", ">=")
_WHOLE = r"^[+-]?[0-9]{1,19}$"
_OPERATORS: dict[str, Callable[..., BoolArray]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TEXT_OPERATORS = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


@dataclass(frozen=True)
class Condition:
    """`column OP literal`. `=` and `!=` compare numbers as such where both sides are numbers, else text.

    The order is that of numbers, or of ISO dates: `<` and its like take nothing else, and a cell that
    is neither, or missing, is never less or greater. A `*` at the end of the literal of `=` or `!=`
    stands for any rest. A missing value equals only the empty literal and differs from every other.

    >>> Condition.parse("Quantity>0").mask(pa.array(["10", "-1", "", "many"])).tolist()
    [True, False, False, False]
    """

    column: str
    operator: str
    literal: str
    field: str = field(default="--where", compare=False)  # what an error of it names

    @classmethod
    def parse(cls, text: str, field: str = "--where") -> Condition:
        """Raises InputError, of `field`, where `text` is not COLUMN OP VALUE, or VALUE has no order."""
        text = text.strip()
        found = _OPERATOR.search(text, 1)
        if found is None:
            raise InputError(field, text, "expected COLUMN OP VALUE, OP one of = != < <= > >=")
        column, literal = text[: found.start()].strip(), text[found.end() :].strip()
        symbol = "=" if found[0] == "==" else found[0]
        if literal[:1] in ("<", ">", "="):
            raise InputError(field, text, f"expected one operator, not {found[0]}{literal[0]}")
        if symbol in ORDER and not (_NUMBER.match(literal) or _DATE.fullmatch(literal)):
            expected = "expected a number, with a point before its decimals, or an ISO date"
            raise InputError(field, text, f"{expected} after {symbol}, not {shown(literal)}")
        return cls(column, symbol, literal, field)

    @property
    def orders_numbers(self) -> bool:
        """Whether it asks for numbers that are less or greater."""
        return self.operator in ORDER and _NUMBER.match(self.literal) is not None

    def mask(self, column: pa.Array) -> BoolArray:
        """Mask (n,) of the cells of `column` (n,) that meet the condition."""
        if pa.types.is_nested(column.type):
            raise InputError(
                self.field, self.column, f"a column of type {column.type} has no order"
            )
        texts = as_text(column)
        met = self._compare_texts(texts)
        if self.operator in ORDER:  # of what is a date; numbers have their own, below
            dated = pc.match_substring_regex(texts, _DATED).to_numpy(zero_copy_only=False)
            met = met & dated & (not self.orders_numbers)
        if _NUMBER.match(self.literal):
            numbers, is_number = self._compare_numbers(column, texts)
            met = np.where(is_number, numbers, met)
        missing = pc.equal(texts, "").to_numpy(zero_copy_only=False)
        if missing.any():
            met = np.where(missing, self._meets_missing(), met)
        return met

    def _meets_missing(self) -> bool:
        if self.operator in ("=", "!="):
            return (self.literal in ("", "*")) == (self.operator == "=")
        return False

    def _compare_texts(self, texts: pa.Array) -> BoolArray:
        if self.literal.endswith("*") and self.operator in ("=", "!="):
            found = pc.starts_with(texts, self.literal[:-1])
            if self.operator == "!=":
                found = pc.invert(found)
        else:
            found = _TEXT_OPERATORS[self.operator](texts, self.literal)
        met: BoolArray = found.to_numpy(zero_copy_only=False)
        return met

    def _compare_numbers(self, column: pa.Array, texts: pa.Array) -> tuple[BoolArray, BoolArray]:
        """The comparison as numbers, and where it holds good.

        Whole numbers are compared as such: ids of 19 digits are alike as floats.
        """
        compare = _OPERATORS[self.operator]
        numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        values, missing, bad = as_numbers(column if numeric else texts)
        met = compare(values, float(self.literal))
        if _INTEGER.fullmatch(self.literal) or re.fullmatch(r"\d{19}", self.literal):
            whole = pc.match_substring_regex(texts, _WHOLE)
            integers = _integers(texts, whole)
            if integers is not None:
                is_whole = whole.to_numpy(zero_copy_only=False)
                met = np.where(is_whole, compare(integers, int(self.literal)), met)
        return met, ~(missing | bad)


def is_number(text: str) -> bool:
    """Whether a condition takes `text` for a number."""
    return _NUMBER.match(text) is not None


def _integers(texts: pa.Array, whole: pa.Array) -> Int64Array | None:
    """The whole numbers among `texts`, 0 elsewhere; None where one is beyond 64 bits."""
    digits = pc.replace_substring_regex(pc.if_else(whole, texts, "0"), r"^\+", "")
    try:
        integers: Int64Array = pc.cast(digits, pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return integers
