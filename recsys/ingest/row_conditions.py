"""`--where` expressions, which select rows of a file.

Legend: n rows.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import InputError
from recsys.events.array_types import BoolArray, Int64Array
from recsys.ingest.arrow_columns import NUMBER, as_numbers, as_text

_OPERATOR = re.compile(r"!=|<=|>=|==|=|<|>")  # searched for: a pattern of the whole would backtrack
_NUMBER = re.compile(NUMBER, re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
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
    """`column OP literal`. Numbers are compared as such where both sides are numbers, else text.

    A `*` at the end of the literal of `=` or `!=` stands for any rest. A missing value equals only
    the empty literal, differs from every other, and is never less or greater.

    >>> Condition.parse("Quantity>0").mask(pa.array(["10", "-1", "", "many"])).tolist()
    [True, False, False, True]
    """

    column: str
    operator: str
    literal: str

    @classmethod
    def parse(cls, text: str, field: str = "--where") -> Condition:
        """Raises InputError, of `field`, where `text` is not COLUMN OP VALUE."""
        text = text.strip()
        found = _OPERATOR.search(text, 1)
        if found is None:
            raise InputError(field, text, "expected COLUMN OP VALUE, OP one of = != < <= > >=")
        column, literal = text[: found.start()].strip(), text[found.end() :].strip()
        symbol = found[0]
        return cls(column, "=" if symbol == "==" else symbol, literal)

    def mask(self, column: pa.Array) -> BoolArray:
        """Mask (n,) of the cells of `column` (n,) that meet the condition."""
        if pa.types.is_nested(column.type):
            raise InputError("--where", self.column, f"a column of type {column.type} has no order")
        texts = as_text(column)
        met = self._compare_texts(texts)
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


def _integers(texts: pa.Array, whole: pa.Array) -> Int64Array | None:
    """The whole numbers among `texts`, 0 elsewhere; None where one is beyond 64 bits."""
    digits = pc.replace_substring_regex(pc.if_else(whole, texts, "0"), r"^\+", "")
    try:
        integers: Int64Array = pc.cast(digits, pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return integers
