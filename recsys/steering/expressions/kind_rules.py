"""Which kinds of values an operation takes and gives: checked before anything is evaluated.

A name may hold any kind unless it is told which kinds its values have; an operation is refused where no
value could ever fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from recsys.steering.expressions.tree import (
    ANY,
    INTERSECTS,
    SCALAR,
    ExpressionError,
    Kind,
    Name,
    Node,
    Operation,
    names_in,
)

KindOf = Callable[[Name], Kind]
WORDS = {
    Kind.NUMBER: "a number",
    Kind.TEXT: "a text",
    Kind.BOOLEAN: "true or false",
    Kind.TIME: "a time",
    Kind.DURATION: "a duration",
    Kind.LIST: "a list",
    Kind.OTHER: "an object",
}
NOTHING = Kind(0)
_SIGNS: Mapping[str, tuple[tuple[Kind, Kind, Kind], ...]] = {  # left, right, result
    "+": (
        (Kind.NUMBER, Kind.NUMBER, Kind.NUMBER),
        (Kind.TIME, Kind.DURATION, Kind.TIME),
        (Kind.DURATION, Kind.TIME, Kind.TIME),
        (Kind.DURATION, Kind.DURATION, Kind.DURATION),
    ),
    "-": (
        (Kind.NUMBER, Kind.NUMBER, Kind.NUMBER),
        (Kind.TIME, Kind.DURATION, Kind.TIME),
        (Kind.TIME, Kind.TIME, Kind.DURATION),
        (Kind.DURATION, Kind.DURATION, Kind.DURATION),
    ),
    "*": ((Kind.NUMBER, Kind.NUMBER, Kind.NUMBER),),
    "/": ((Kind.NUMBER, Kind.NUMBER, Kind.NUMBER),),
}
ORDERED = Kind.NUMBER | Kind.TEXT | Kind.TIME | Kind.DURATION


def any_kind(name: Name) -> Kind:
    """What a name may hold as long as nothing is known of it."""
    return Kind.NUMBER if not name.scope else ANY


def kinds_of(node: Node, kind_of: KindOf = any_kind) -> Kind:
    """The kinds that the value of `node` may have. Raises ExpressionError where an operand never fits."""
    if isinstance(node, Name):
        return kind_of(node)
    if not isinstance(node, Operation):
        return node.kind
    operator, operands = node.operator, node.operands
    if operator in ("has", "now"):
        return Kind.TIME if operator == "now" else Kind.BOOLEAN
    kinds = [kinds_of(operand, kind_of) for operand in operands]
    if operator in ("&&", "||", "!"):
        for operand, kind in zip(operands, kinds, strict=True):
            _require(operand, kind, Kind.BOOLEAN)
        return Kind.BOOLEAN
    if operator == "?:":
        _require(operands[0], kinds[0], Kind.BOOLEAN)
        found = (kinds[1] | kinds[2]) & SCALAR
        return found or _require(operands[1], kinds[1], SCALAR)
    if operator in _SIGNS:
        return _of_sign(node, kinds)
    if operator == "negative":
        return _require(operands[0], kinds[0], Kind.NUMBER)
    if operator == "size":
        _require(operands[0], kinds[0], Kind.TEXT | Kind.LIST)
        return Kind.NUMBER
    if operator == "timestamp":
        _require(operands[0], kinds[0], Kind.TEXT)
        return Kind.TIME
    if operator in ("in", INTERSECTS):
        _require(operands[0], kinds[0], SCALAR if operator == "in" else Kind.LIST)
        _require(operands[1], kinds[1], Kind.LIST)
        if operator == INTERSECTS and all(map(_differs_by_item, operands)):
            raise ExpressionError(
                node.at, "expected one list at least that is the same for all items"
            )
        return Kind.BOOLEAN
    if operator in ("==", "!=", "<", "<=", ">", ">="):
        _check_compared(node, kinds)
        return Kind.BOOLEAN
    for operand, kind in zip(operands, kinds, strict=True):  # startsWith and its like
        _require(operand, kind, Kind.TEXT)
    if _differs_by_item(operands[1]):
        raise ExpressionError(operands[1].at, "expected a text that is the same for all items")
    return Kind.BOOLEAN


def in_words(kinds: Kind) -> str:
    """Kinds as a message names them.

    >>> in_words(Kind.NUMBER | Kind.TEXT)
    'a number or a text'
    """
    return " or ".join(words for kind, words in WORDS.items() if kind & kinds) or "nothing"


def _require(node: Node, kinds: Kind, wanted: Kind) -> Kind:
    if not kinds & wanted:
        raise ExpressionError(node.at, f"expected {in_words(wanted)}, not {in_words(kinds)}")
    return kinds & wanted


def _of_sign(node: Operation, kinds: list[Kind]) -> Kind:
    left, right = kinds
    found = NOTHING
    for one, other, result in _SIGNS[node.operator]:
        if one & left and other & right:
            found |= result
    if not found:
        said = f"{in_words(left)} {node.operator} {in_words(right)}"
        raise ExpressionError(node.at, f"{said}: these do not go together")
    return found


def _check_compared(node: Operation, kinds: list[Kind]) -> None:
    """Raise ExpressionError where the sides have no kind in common. A text may be a date beside a time."""
    comparable = SCALAR if node.operator in ("==", "!=") else ORDERED
    left, right = (
        kind | Kind.TIME if kind & Kind.TEXT and other & Kind.TIME else kind
        for kind, other in (kinds, kinds[::-1])
    )
    if not left & right & comparable:
        said = f"{in_words(kinds[0])} {node.operator} {in_words(kinds[1])}"
        raise ExpressionError(node.at, f"{said}: these cannot be compared")


def _differs_by_item(node: Node) -> bool:
    return any(name.scope in ("item", "") for name in names_in(node))
