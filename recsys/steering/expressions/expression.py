"""An expression as the rest of the product holds it: parsed, checked, evaluated."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from recsys.errors import InputError, unknown
from recsys.events.array_types import BoolArray, Float64Array
from recsys.steering.expressions import evaluation
from recsys.steering.expressions.columns import Columns
from recsys.steering.expressions.evaluation import Bindings
from recsys.steering.expressions.kind_rules import KindOf, any_kind, in_words, kinds_of
from recsys.steering.expressions.tree import (
    ANY,
    CHANCE,
    ExpressionError,
    Kind,
    Name,
    Node,
    names_in,
    operators_in,
)

KEPT = 1_000  # trees of texts that are kept


@dataclass(frozen=True)
class Expression:
    """A condition, or with `is_score` a number, of an item. Equal to another of the same text."""

    text: str
    tree: Node = field(repr=False, compare=False)
    is_score: bool = False
    field: str = field(default="filter", compare=False)  # what an error of it names

    @cached_property
    def names(self) -> frozenset[str]:
        """What it names, as `item.price`."""
        return frozenset(map(str, names_in(self.tree)))

    def of(self, scope: str) -> tuple[str, ...]:
        """The names of one scope, 'item', 'user' or 'last', in alphabetical order."""
        return tuple(sorted({one.name for one in names_in(self.tree) if one.scope == scope}))

    @cached_property
    def item_names(self) -> tuple[str, ...]:
        """The properties of items that it names."""
        return self.of("item")

    @cached_property
    def user_names(self) -> tuple[str, ...]:
        """The attributes of users that it names."""
        return self.of("user")

    @cached_property
    def last_names(self) -> tuple[str, ...]:
        """The properties of the last item that it names."""
        return self.of("last")

    @cached_property
    def names_now(self) -> bool:
        """Whether its value changes with time."""
        return "now" in operators_in(self.tree)

    def check(
        self, properties: Mapping[str, Kind], attributes: Collection[str] | None = None
    ) -> None:
        """Raise InputError where it names what no item or user has, or expects another kind of value.

        `properties`: the kinds that items have values of, by name. `attributes`: names of users'
        attributes; None: they are not checked.
        """
        for name in names_in(self.tree):
            known: Collection[str] | None = properties
            if name.scope == "user":
                known = attributes
            if name.scope and known is not None and name.name not in known:
                whose = "an attribute of some user" if name.scope == "user" else "of some item"
                what = whose if name.scope == "user" else f"a field or property {whose}"
                raise unknown(self.field, name.name, what, sorted(known))

        def known_kinds(name: Name) -> Kind:
            if name.scope in ("item", "last"):
                return properties[name.name]
            return any_kind(name)

        _check_kinds(self.text, self.field, self.tree, self.is_score, known_kinds)

    def evaluate(self, columns: Columns, bindings: Bindings) -> BoolArray:
        """Where (N,) the condition holds; false where what it compares is missing."""
        return evaluation.condition(self.tree, columns, bindings)

    def values(self, columns: Columns, bindings: Bindings) -> Float64Array:
        """The number (N,) that it is for each item, NaN where a part of it is missing."""
        return evaluation.numbers(self.tree, columns, bindings)


def parse(text: str, field: str) -> Expression:
    """A condition. Raises InputError, of `field`, that says where and what was expected.

    >>> parse('item.price < 50 && !(item.brand in ["a", "b"])', "filter").item_names
    ('brand', 'price')
    >>> parse('item.price <', "filter")
    Traceback (most recent call last):
    recsys.errors.InputError: filter = 'item.price <': at character 13: expected a value, not the end
    """
    return _parsed(text, field, is_score=False)


def parse_score(text: str, field: str) -> Expression:
    """A number, in which `chance` is the item's score. Raises InputError.

    >>> sorted(parse_score("chance * item.margin", "score_by").names)
    ['chance', 'item.margin']
    """
    return _parsed(text, field, is_score=True)


def _parsed(text: str, field: str, is_score: bool) -> Expression:
    try:
        tree = _tree(text)
        if not is_score:
            for name in names_in(tree):
                if name.name == CHANCE and not name.scope:
                    raise ExpressionError(name.at, "chance stands in a score alone (score_by)")
    except ExpressionError as problem:
        raise _input_error(field, text, problem) from None
    _check_kinds(text, field, tree, is_score, any_kind)
    return Expression(text, tree, is_score, field)


@lru_cache(maxsize=KEPT)
def _tree(text: str) -> Node:
    from recsys.steering.expressions.grammar import parse_tree  # loads Lark, which few need

    return parse_tree(text)


def _check_kinds(text: str, field: str, tree: Node, is_score: bool, kind_of: KindOf) -> None:
    wanted = Kind.NUMBER if is_score else Kind.BOOLEAN
    try:
        kinds = kinds_of(tree, kind_of)
        if not kinds & wanted:
            what = "a score" if is_score else "a condition"
            said = (
                f"{what} is {in_words(wanted)}, and this is {in_words(kinds & (ANY | Kind.OTHER))}"
            )
            raise ExpressionError(tree.at, said)
    except ExpressionError as problem:
        raise _input_error(field, text, problem) from None


def _input_error(field: str, text: str, problem: ExpressionError) -> InputError:
    return InputError(field, text, f"at character {problem.at + 1}: {problem.expected}")
