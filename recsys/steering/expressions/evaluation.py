"""Values of an expression over columns of items, an operation at a time.

What is missing makes a comparison false, and `!=` is the opposite of `==`; a condition is true or false
for every item and never an error.

Legend: N items, M elements of all lists.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.events.array_types import AnyArray, BoolArray, Float64Array
from recsys.steering.expressions.columns import (
    MISSING,
    Column,
    Columns,
    Lists,
    Texts,
    constant_column,
)
from recsys.steering.expressions.tree import INTERSECTS, Constant, Kind, Name, Node, Operation

_FALSE = np.zeros((), np.bool_)
_ABSENT = Column()
_ORDER: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARROW_ORDER: Mapping[str, Callable[..., Any]] = {
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_SEARCHES: Mapping[str, Callable[..., Any]] = {
    "startsWith": pc.starts_with,
    "endsWith": pc.ends_with,
    "contains": pc.match_substring,
}
_CONDITIONS = {"&&", "||", "!", "has", "in", INTERSECTS, "==", "!=", *_ORDER, *_SEARCHES}
_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": np.true_divide,
}
_TIMED: Mapping[str, tuple[tuple[str, str, str], ...]] = {  # parts: left, right, result
    "+": (
        ("times", "durations", "times"),
        ("durations", "times", "times"),
        ("durations", "durations", "durations"),
    ),
    "-": (
        ("times", "durations", "times"),
        ("times", "times", "durations"),
        ("durations", "durations", "durations"),
    ),
}


@dataclass(frozen=True)
class Bindings:
    """What an expression's names stand for beside the item's properties.

    A user or last item of whom nothing is known has no attributes.
    """

    now_us: int
    user: Mapping[str, object] = field(default_factory=dict)  # JSON values
    last: Mapping[str, object] = field(default_factory=dict)
    chance: Float64Array | None = None  # (N,) scores


def condition(node: Node, columns: Columns, bindings: Bindings) -> BoolArray:
    """Where (N,) the condition holds."""
    with np.errstate(all="ignore"):  # 0/0 is NaN, which is missing
        found = _Evaluation(columns, bindings).holds(node)
    return np.broadcast_to(found, (columns.count,))


def numbers(node: Node, columns: Columns, bindings: Bindings) -> Float64Array:
    """The numbers (N,) of an expression, NaN where there is none."""
    with np.errstate(all="ignore"):
        found = _Evaluation(columns, bindings).value(node).numbers
    return np.broadcast_to(np.array(np.nan) if found is None else found, (columns.count,))


class _Evaluation:
    """One evaluation over N items."""

    def __init__(self, columns: Columns, bindings: Bindings) -> None:
        self._columns, self._bindings = columns, bindings

    def holds(self, node: Node) -> BoolArray:
        """Where the value is true."""
        if isinstance(node, Operation) and node.operator in _CONDITIONS:
            return self._condition(node.operator, node.operands)
        booleans = self.value(node).booleans
        return _FALSE if booleans is None else np.asarray(booleans == 1)

    def _condition(self, operator: str, operands: tuple[Node, ...]) -> BoolArray:
        if operator in ("&&", "||"):
            join = np.logical_and if operator == "&&" else np.logical_or
            found = self.holds(operands[0])
            for operand in operands[1:]:
                found = join(found, self.holds(operand))
            return found
        if operator == "!":
            return ~self.holds(operands[0])
        values = [self.value(operand) for operand in operands]
        if operator == "has":
            return values[0].present()
        if operator in ("in", INTERSECTS):
            within = self._within if operator == "in" else self._intersects
            return within(*values)
        if operator in ("==", "!="):
            equal = _equal(*values)
            return ~equal if operator == "!=" else equal
        if operator in _ORDER:
            return _ordered(operator, *values)
        return _searched(_SEARCHES[operator], *values)

    def value(self, node: Node) -> Column:
        """The value by kind."""
        if isinstance(node, Constant):
            return constant_column(node.value, node.kind)
        if isinstance(node, Name):
            return self._named(node)
        operator, operands = node.operator, node.operands
        if operator in _CONDITIONS:
            return Column(booleans=np.asarray(self.holds(node)).view(np.int8))
        if operator == "?:":
            yes, no = self.value(operands[1]), self.value(operands[2])
            return _chosen(self.holds(operands[0]), yes, no)
        if operator == "now":
            return constant_column(float(self._bindings.now_us), Kind.TIME)
        values = [self.value(operand) for operand in operands]
        return (
            _computed(operator, *values)
            if operator in _ARITHMETIC
            else _of_one(operator, values[0])
        )

    def _named(self, name: Name) -> Column:
        if name.scope == "item":
            return self._columns.by_name.get(name.name, _ABSENT)
        if not name.scope:
            chance = self._bindings.chance
            return _ABSENT if chance is None else Column(numbers=chance)
        known = self._bindings.user if name.scope == "user" else self._bindings.last
        return constant_column(known.get(name.name))

    def _within(self, needle: Column, haystack: Column) -> BoolArray:
        """Where a list holds the value."""
        lists = haystack.lists
        if lists is None:
            return _FALSE
        if lists.rows is None:
            return _one_of(needle, lists.elements)
        return self._any(lists, _equal(lists.elements, needle.take(lists.rows)))

    def _intersects(self, left: Column, right: Column) -> BoolArray:
        """Where two lists have an element in common; one of them is the same for every item."""
        one, other = left.lists, right.lists
        if one is None or other is None:
            return _FALSE
        if other.rows is not None:
            one, other = other, one
        common = _one_of(one.elements, other.elements)
        return np.asarray(common.any()) if one.rows is None else self._any(one, common)

    def _any(self, lists: Lists, hits: BoolArray) -> BoolArray:
        """Where (N,) any element of the list is a hit (M,)."""
        assert lists.rows is not None
        found = np.zeros(self._columns.count, np.bool_)
        found[lists.rows[hits]] = True
        return found


def _either(found: BoolArray, more: AnyArray) -> BoolArray:
    """`found | more`, without a look at a million values that are all false."""
    return np.asarray(more) if found is _FALSE else np.asarray(found | more)


def _equal(left: Column, right: Column) -> BoolArray:
    """Where the values are equal; values of different kinds never are, but for dates beside times."""
    found: BoolArray = _FALSE
    for one, other in ((left.numbers, right.numbers), (left.durations, right.durations)):
        if one is not None and other is not None:
            found = _either(found, (one == other))
    if left.booleans is not None and right.booleans is not None:
        found = _either(found, ((left.booleans == right.booleans) & (left.booleans >= 0)))
    if left.texts is not None and right.texts is not None:
        found = _either(found, _same_text(left.texts, right.texts))
    if left.times is not None or right.times is not None:
        one, other = left.as_times(), right.as_times()
        if one is not None and other is not None:
            found = _either(found, (one == other))
    return found


def _same_text(left: Texts, right: Texts) -> BoolArray:
    if left.is_one:
        left, right = right, left
    if right.is_one:
        return left.meeting(_numpy(pc.equal(left.words, right.words[0])))
    places = pc.index_in(right.words, left.words).fill_null(MISSING).to_numpy()
    first = pc.index_in(left.words, left.words).to_numpy()  # of words that repeat, the first
    codes = left.taken(first, MISSING)
    return (codes >= 0) & (codes == right.taken(places, MISSING))


def _ordered(sign: str, left: Column, right: Column) -> BoolArray:
    compare = _ORDER[sign]
    found: BoolArray = _FALSE
    for one, other in ((left.numbers, right.numbers), (left.durations, right.durations)):
        if one is not None and other is not None:
            found = _either(found, compare(one, other))
    if left.times is not None or right.times is not None:
        found = _either(found, _ordered_times(sign, left, right))
    if left.texts is not None and right.texts is not None:
        found = _either(found, _ordered_texts(sign, left.texts, right.texts))
    return found


def _ordered_times(sign: str, left: Column, right: Column) -> BoolArray:
    if right.times is None:
        sign, left, right = _MIRRORED[sign], right, left
    bound = right.times
    assert bound is not None
    if bound.ndim == 0 and left.times is None and left.texts is not None:  # by distinct date
        return left.texts.meeting(_ORDER[sign](left.texts.words_us, bound))
    one, other = left.as_times(), right.as_times()
    return _FALSE if one is None or other is None else np.asarray(_ORDER[sign](one, other))


def _ordered_texts(sign: str, left: Texts, right: Texts) -> BoolArray:
    if left.is_one and not right.is_one:
        sign, left, right = _MIRRORED[sign], right, left
    if right.is_one:
        return left.meeting(_numpy(_ARROW_ORDER[sign](left.words, right.words[0])))
    by_item = (part.words.take(pa.array(part.codes, mask=part.codes < 0)) for part in (left, right))
    return _numpy(pc.fill_null(_ARROW_ORDER[sign](*by_item), False))


def _searched(search: Callable[..., Any], left: Column, right: Column) -> BoolArray:
    """Where a text begins with, ends with or contains one that is the same for every item."""
    if left.texts is None or right.texts is None:
        return _FALSE
    return left.texts.meeting(_numpy(search(left.texts.words, right.texts.words[0].as_py())))


def _one_of(needle: Column, elements: Column) -> BoolArray:
    """Where the value is one of `elements` (M,), which are the same for every item."""
    found: BoolArray = _FALSE
    if needle.numbers is not None and elements.numbers is not None:
        wanted = elements.numbers[~np.isnan(elements.numbers)]
        if len(wanted) <= 16:
            for number in wanted:
                found = _either(found, (needle.numbers == number))
        else:
            found = _either(found, np.isin(needle.numbers, wanted))
    if needle.texts is not None and elements.texts is not None:
        met = pc.is_in(needle.texts.words, elements.texts.words)
        found = _either(found, needle.texts.meeting(_numpy(met)))
    if needle.booleans is not None and elements.booleans is not None:
        for flag in set(elements.booleans.tolist()) - {MISSING}:
            found = _either(found, (needle.booleans == flag))
    if needle.times is not None and elements.texts is not None:
        found = _either(found, np.isin(needle.times, elements.texts.words_us))
    return np.asarray(found)


def _computed(sign: str, left: Column, right: Column) -> Column:
    compute = _ARITHMETIC[sign]
    parts: dict[str, AnyArray] = {}
    if left.numbers is not None and right.numbers is not None:
        parts["numbers"] = np.asarray(compute(left.numbers, right.numbers))
    for one, other, result in _TIMED.get(sign, ()):
        a, b = getattr(left, one), getattr(right, other)
        if a is not None and b is not None:
            parts[result] = np.asarray(compute(a, b))
    return Column(**parts)  # type: ignore[arg-type]


def _of_one(operator: str, value: Column) -> Column:
    if operator == "negative":
        return Column(numbers=None if value.numbers is None else np.asarray(-value.numbers))
    if operator == "timestamp":
        return Column(times=value.as_times())
    found: AnyArray | None = None  # the size of a text in characters, or of a list
    if value.texts is not None:
        lengths = _numpy(pc.utf8_length(value.texts.words)).astype(np.float64)
        found = value.texts.taken(lengths, np.nan)
    if value.lists is not None:
        counts = np.where(value.lists.lengths < 0, np.nan, value.lists.lengths)
        found = counts if found is None else np.where(np.isnan(counts), found, counts)
    return Column(numbers=found)


def _chosen(chosen: BoolArray, yes: Column, no: Column) -> Column:
    """The values of one column where `chosen`, else those of the other; lists are not among them."""
    parts: dict[str, Any] = {}
    for part, missing in (
        ("numbers", np.nan),
        ("booleans", np.int8(MISSING)),
        ("times", np.nan),
        ("durations", np.nan),
    ):
        one, other = getattr(yes, part), getattr(no, part)
        if one is not None or other is not None:
            both = (missing if side is None else side for side in (one, other))
            parts[part] = np.asarray(np.where(chosen, *both))
    if yes.texts is not None or no.texts is not None:
        parts["texts"] = _chosen_texts(chosen, yes.texts, no.texts)
    return Column(**parts)


def _chosen_texts(chosen: BoolArray, yes: Texts | None, no: Texts | None) -> Texts | None:
    nothing = Texts(np.array(MISSING, np.int32), pa.array([], pa.string()))
    one, other = yes or nothing, no or nothing
    moved = np.where(other.codes >= 0, other.codes + len(one.words), MISSING)
    codes = np.where(chosen, one.codes, moved).astype(np.int32)
    words = pa.concat_arrays([one.words, other.words])
    if codes.ndim:
        return Texts(codes, words)
    if codes < 0:
        return None
    return Texts(np.array(0, np.int32), words.slice(int(codes), 1))  # one text for every item


def _numpy(found: pa.Array) -> AnyArray:
    return found.to_numpy(zero_copy_only=False)
