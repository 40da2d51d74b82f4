"""From text to tree, by an LALR(1) grammar: the time it takes grows with the length alone.

The grammar is that of CEL (https://github.com/google/cel-spec) without macros, `%`, `null`, bytes,
maps and raw texts. https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from functools import lru_cache
from typing import Any

import pyarrow as pa
from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from recsys.errors import unknown
from recsys.steering.expressions import MAX_LENGTH
from recsys.steering.expressions.columns import iso_times_us
from recsys.steering.expressions.tree import (
    CHANCE,
    INTERSECTS,
    SCOPES,
    Constant,
    ExpressionError,
    Kind,
    Name,
    Node,
    Operation,
    Scalar,
)

MAX_DEPTH = 50  # operations within one another
MAX_ELEMENTS = 500  # of a list

GRAMMAR = r"""
start: choice
?choice: either | either "?" either ":" choice -> conditional
?either: both | either OR both -> binary
?both: relation | both AND relation -> binary
?relation: sum | relation RELATION sum -> binary | relation IN sum -> binary
?sum: product | sum PLUS product -> binary | sum MINUS product -> binary
?product: unary | product TIMES unary -> binary
?unary: member | NOT unary -> prefixed | MINUS unary -> prefixed
?member: primary | member "." NAME -> selected | member "[" choice "]" -> indexed
       | member "." NAME "(" [arguments] ")" -> method
?primary: "(" choice ")" | NAME -> word | NAME "(" [arguments] ")" -> function
        | OPEN_LIST [arguments] "]" -> listed
        | NUMBER -> number | STRING -> text | TRUE -> boolean | FALSE -> boolean
arguments: choice ("," choice)*

OPEN_LIST.1: /\[/
OR: "||"
AND: "&&"
RELATION: "<=" | ">=" | "==" | "!=" | "<" | ">"
IN: "in"
PLUS: "+"
MINUS: "-"
TIMES: "*" | "/"
NOT: "!"
TRUE: "true"
FALSE: "false"
NAME: /[A-Za-z_][A-Za-z0-9_]*/
NUMBER: /(\d+(\.\d+)?|\.\d+)([eE][+-]?\d+)?/
STRING: /"([^"\\\n]|\\.)*"|'([^'\\\n]|\\.)*'/
%ignore /[ \t\r\n]+/
"""
FUNCTIONS = {"has": 1, "size": 1, "now": 0, "duration": 1, "timestamp": 1}  # their arguments
METHODS = {"startsWith": 1, "endsWith": 1, "contains": 1, "size": 0}
WRITTEN = {  # terminals, as a message names them
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a text",
    "RELATION": "a comparison",
    "LPAR": "(",
    "RPAR": ")",
    "RSQB": "]",
    "LSQB": "[",
    "OPEN_LIST": "[",
    "DOT": ".",
    "COMMA": ",",
    "QMARK": "?",
    "COLON": ":",
    "OR": "||",
    "AND": "&&",
    "PLUS": "+",
    "MINUS": "-",
    "TIMES": "* or /",
    "NOT": "!",
    "IN": "in",
    "TRUE": "true",
    "FALSE": "false",
    "$END": "the end",
}
_OPERAND = {"NAME", "NUMBER", "STRING", "LPAR"}
_ESCAPED = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[xX][0-9a-fA-F]{2}|[0-7]{3}|.)")
_ESCAPES = dict(zip("abfnrtv\\?\"'`", "\a\b\f\n\r\t\v\\?\"'`", strict=True))
_DURATION = re.compile(r"[+-]?((\d+(\.\d*)?|\.\d+)(h|ms|m|s|us|ns))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|ns)")
_UNITS_US = {"h": 3.6e9, "m": 6e7, "s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
LONGEST_US = timedelta(days=366 * 1_000) / timedelta(microseconds=1)


def parse_tree(text: str) -> Node:
    """The tree of `text`. Raises ExpressionError."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(MAX_LENGTH, f"expected at most {MAX_LENGTH:,} characters")
    try:
        found: Node = _parser().parse(text)  # type: ignore[assignment]
    except UnexpectedInput as error:
        raise _problem(text, error) from None
    return found


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", transformer=_TreeBuilder())


def _problem(text: str, error: UnexpectedInput) -> ExpressionError:
    """What the parser expected, in words."""
    at = len(text) if isinstance(error, UnexpectedEOF) else (error.pos_in_stream or 0)
    if isinstance(error, UnexpectedCharacters):
        return ExpressionError(at, f"{text[at]!r} has no meaning here")
    found = "the end"
    if isinstance(error, UnexpectedToken) and error.token.type != "$END":
        found = f"{str(error.token)[:40]!r}"
    else:
        at = len(text)
    accepts = set(error.accepts or error.expected) if isinstance(error, UnexpectedToken) else set()
    if accepts >= _OPERAND:
        return ExpressionError(at, f"expected a value, not {found}")
    words = sorted({WRITTEN.get(one, one) for one in accepts})
    return ExpressionError(at, f"expected {' or '.join(words)}, not {found}")


class _TreeBuilder(Transformer[Token, Node]):
    """Builds the tree while the text is parsed, without recursion."""

    def start(self, children: list[Any]) -> Node:
        return _value(children[0])

    def conditional(self, children: list[Any]) -> Node:
        return _operation("?:", children, children[0].at)

    def binary(self, children: list[Any]) -> Node:
        left, operator, right = children
        name, at = str(operator), operator.start_pos
        if name in ("&&", "||") and isinstance(left, Operation) and left.operator == name:
            return _operation(name, [*left.operands, right], at)  # a chain is one operation
        return _operation(name, [left, right], at)

    def prefixed(self, children: list[Any]) -> Node:
        operator, operand = children
        name = "negative" if operator == "-" else "!"
        return _operation(name, [operand], operator.start_pos)

    def selected(self, children: list[Any]) -> Node:
        owner, name = children
        return _named(owner, str(name), name.start_pos)

    def indexed(self, children: list[Any]) -> Node:
        owner, key = children
        if isinstance(key, Constant) and isinstance(key.value, str) and key.kind is Kind.TEXT:
            return _named(owner, key.value, key.at)
        raise ExpressionError(key.at, "expected a name in quotes between [ and ]")

    def method(self, children: list[Any]) -> Node:
        owner, token, given = children
        name, arguments = str(token), given or []
        if isinstance(owner, Name) and (owner.scope, owner.name) == ("word", "sets"):
            if name != "intersects" or len(arguments) != 2:
                raise ExpressionError(token.start_pos, "expected sets.intersects(LIST, LIST)")
            return _operation(INTERSECTS, arguments, owner.at)
        _check_arguments(METHODS, name, arguments, token.start_pos)
        return _operation(name, [owner, *arguments], token.start_pos)

    def function(self, children: list[Any]) -> Node:
        token, given = children
        name, arguments, at = str(token), given or [], token.start_pos
        _check_arguments(FUNCTIONS, name, arguments, at)
        if name == "has" and not (isinstance(arguments[0], Name) and arguments[0].scope in SCOPES):
            raise ExpressionError(
                arguments[0].at, "expected a property in has(), as has(item.brand)"
            )
        if name in ("duration", "timestamp"):
            return _moment(name, arguments[0], at)
        return _operation(name, arguments, at)

    def listed(self, children: list[Any]) -> Node:
        opened, given = children
        elements = given or []
        if len(elements) > MAX_ELEMENTS:
            raise ExpressionError(opened.start_pos, f"expected at most {MAX_ELEMENTS} elements")
        values: list[Scalar] = []
        for one in elements:
            constant = _folded(one)
            if constant is None:
                raise ExpressionError(one.at, "expected numbers, texts, true or false in a list")
            values.append(constant)
        return Constant(tuple(values), Kind.LIST, opened.start_pos)

    def arguments(self, children: list[Any]) -> list[Any]:
        return children

    def word(self, children: list[Any]) -> Node:
        token = children[0]
        if token == CHANCE:
            return Name("", CHANCE, token.start_pos)
        return Name("word", str(token), token.start_pos)  # means nothing unless something follows

    def number(self, children: list[Any]) -> Node:
        token = children[0]
        value = float(token)
        if value == float("inf"):
            raise ExpressionError(token.start_pos, "expected a finite number")
        return Constant(value, Kind.NUMBER, token.start_pos)

    def text(self, children: list[Any]) -> Node:
        token = children[0]
        return Constant(_unescaped(token), Kind.TEXT, token.start_pos)

    def boolean(self, children: list[Any]) -> Node:
        word = children[0]
        return Constant(word.type == "TRUE", Kind.BOOLEAN, word.start_pos)


def _operation(operator: str, operands: list[Any], at: int) -> Operation:
    values = tuple(_value(one) for one in operands)
    depth = 1 + max((one.depth for one in values), default=0)
    if depth > MAX_DEPTH:
        raise ExpressionError(at, f"expected at most {MAX_DEPTH} operations within one another")
    return Operation(operator, values, at, depth)


def _value(node: Node) -> Node:
    """`node`, unless it is a word that has no value."""
    if isinstance(node, Name) and node.scope == "word":
        known = [*(f"{scope}.…" for scope in SCOPES), *(f"{name}()" for name in FUNCTIONS), CHANCE]
        if node.name in SCOPES:
            raise ExpressionError(
                node.at, f"expected a name after {node.name}, as {node.name}.price"
            )
        if node.name in FUNCTIONS:
            raise ExpressionError(node.at, f"expected ( after {node.name}")
        said = unknown("", node.name, f"a value, not the word {node.name[:40]!r}", known).expected
        hint = f"; a property is item.{node.name[:40]}, a text stands in quotes"
        raise ExpressionError(node.at, said + hint)
    return node


def _named(owner: Node, name: str, at: int) -> Name:
    if isinstance(owner, Name) and owner.scope == "word" and owner.name in SCOPES:
        return Name(owner.name, name, owner.at)
    _value(owner)
    raise ExpressionError(at, "expected a property of item, user or last, and none within it")


def _check_arguments(known: dict[str, int], name: str, arguments: list[Any], at: int) -> None:
    if name not in known:
        said = unknown("", name, f"a function, not {name[:40]!r}", sorted({*known, INTERSECTS}))
        raise ExpressionError(at, said.expected)
    if len(arguments) != known[name]:
        number = known[name] or "no"
        raise ExpressionError(
            at, f"expected {number} argument{'' if number == 1 else 's'} of {name}"
        )


def _folded(node: Node) -> Scalar | None:
    """The value of a literal, with its sign; None where `node` is more than that."""
    if isinstance(node, Constant) and not isinstance(node.value, tuple):
        return node.value if node.kind in Kind.NUMBER | Kind.TEXT | Kind.BOOLEAN else None
    if isinstance(node, Operation) and node.operator == "negative":
        value = _folded(node.operands[0])
        return -value if isinstance(value, float) else None
    return None


def _moment(name: str, argument: Node, at: int) -> Node:
    """`duration("1h30m")` or `timestamp("2025-05-01T12:00:00Z")` as a constant, `timestamp(item.x)` as
    an operation.
    """
    literal = argument.value if isinstance(argument, Constant) else None
    if name == "duration":
        if not isinstance(literal, str) or not _DURATION.fullmatch(literal):
            raise ExpressionError(at, 'expected hours, minutes and seconds, as duration("720h")')
        total = sum(float(n) * _UNITS_US[unit] for n, unit in _DURATION_PART.findall(literal))
        if total > LONGEST_US:
            raise ExpressionError(at, "expected a duration of at most a thousand years")
        return Constant(-total if literal.startswith("-") else total, Kind.DURATION, at)
    if isinstance(literal, str):
        moment_us = float(iso_times_us(pa.array([literal]))[0])
        if math.isnan(moment_us):
            raise ExpressionError(at, 'expected an ISO date, as timestamp("2025-05-01T12:00:00Z")')
        return Constant(moment_us, Kind.TIME, at)
    return _operation(name, [argument], at)


def _unescaped(token: Token) -> str:
    """The text of a literal in quotes. Raises ExpressionError where an escape means nothing."""

    def replaced(found: re.Match[str]) -> str:
        code = found[1]
        if code in _ESCAPES:
            return _ESCAPES[code]
        if len(code) > 1:
            number = int(code, 8) if code[0].isdigit() else int(code[1:], 16)
            if number < 0x110000 and not 0xD800 <= number < 0xE000:
                return chr(number)
        raise ExpressionError((token.start_pos or 0) + found.start() + 1, "no such escape")

    return _ESCAPED.sub(replaced, token[1:-1])
