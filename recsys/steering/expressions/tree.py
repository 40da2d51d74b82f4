"""The tree of an expression, and the kinds of its values."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass


class Kind(enum.Flag):
    """Kinds of values. A property that varies from item to item has several."""

    NUMBER = enum.auto()  # a 64-bit float
    TEXT = enum.auto()
    BOOLEAN = enum.auto()
    TIME = enum.auto()  # µs since 1970, UTC
    DURATION = enum.auto()  # µs
    LIST = enum.auto()  # of numbers, texts and booleans
    OTHER = enum.auto()  # an object or a list of lists: it is there, and nothing can be told of it


SCALAR = Kind.NUMBER | Kind.TEXT | Kind.BOOLEAN | Kind.TIME | Kind.DURATION
ANY = SCALAR | Kind.LIST
SCOPES = ("item", "user", "last")
CHANCE = "chance"  # the name of an item's score, in expressions of scores alone

INTERSECTS = "sets.intersects"

Scalar = str | float | bool


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is the same for every item."""

    value: Scalar | tuple[Scalar, ...]
    kind: Kind
    at: int  # place in the text, from 0
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Name:
    """A property of the item, an attribute of the user, a property of the last item, or `chance`."""

    scope: str  # one of SCOPES, or '' for `chance`
    name: str
    at: int
    depth: int = 0

    def __str__(self) -> str:
        return f"{self.scope}.{self.name}" if self.scope else self.name


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator or function, and what it is applied to."""

    operator: str
    operands: tuple[Node, ...]
    at: int
    depth: int


Node = Constant | Name | Operation


class ExpressionError(Exception):
    """What is wrong at a place of the text; `recsys.errors.InputError` is made of it."""

    def __init__(self, at: int, expected: str) -> None:
        self.at, self.expected = at, expected
        super().__init__(expected)


def names_in(node: Node) -> Iterator[Name]:
    """Every name of the tree, in the order of the text."""
    if isinstance(node, Name):
        yield node
    elif isinstance(node, Operation):
        for operand in node.operands:
            yield from names_in(operand)


def operators_in(node: Node) -> Iterator[str]:
    """Every operator and function of the tree."""
    if isinstance(node, Operation):
        yield node.operator
        for operand in node.operands:
            yield from operators_in(operand)
