"""What expressions mean, held against cel-python, an implementation of CEL of its own.

Where ours departs from CEL (what is missing makes a comparison false), the generated CEL says so with
`has()`: each generated value comes with the condition under which it is there.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass

import celpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.steering.expressions.columns import Columns, column_of
from recsys.steering.expressions.evaluation import Bindings
from recsys.steering.expressions.expression import parse

RECURSION = sys.getrecursionlimit()
CEL = celpy.Environment()  # which sets the limit of recursion
sys.setrecursionlimit(RECURSION)
NOW = "2025-01-15T00:00:00Z"
NOW_US = 1_736_899_200_000_000


@dataclass(frozen=True)
class Written:
    """The same value in our language and in CEL, and a CEL condition under which it is there."""

    ours: str
    cel: str
    there: str = "true"


def _field(name: str, cel: str = "{}") -> Written:
    return Written(name, cel.format(name), f"has({name})")


def _joined(sign: str, one: Written, other: Written) -> Written:
    return Written(
        f"({one.ours} {sign} {other.ours})",
        f"({one.cel} {sign} {other.cel})",
        f"({one.there} && {other.there})",
    )


def _compared(sign: str, one: Written, other: Written) -> Written:
    joined = _joined(sign, one, other)
    default = "true" if sign == "!=" else "false"
    return Written(joined.ours, f"({joined.there} ? {joined.cel} : {default})")


def _chosen(test: Written, yes: Written, no: Written) -> Written:
    return Written(
        f"({test.ours} ? {yes.ours} : {no.ours})",
        f"({test.cel} ? {yes.cel} : {no.cel})",
        f"({test.cel} ? {yes.there} : {no.there})",
    )


def _literal(value: object) -> Written:
    text = f'"{value}"' if isinstance(value, str) else str(value).lower()
    return Written(text, text)


WORDS = ["a", "b", "ab", "ä", ""]
NUMBERS = [0.0, 1.0, 1.5, 2.0, 3.0]
TIMES = ["2025-01-01T00:00:00Z", "2025-01-10T12:00:00Z", "2025-02-01T00:00:00Z"]
TEXT_NAMES = ["item.brand", "item.maker", "user.brand", "last.brand"]
NUMBER_NAMES = ["item.price", "item.stock", "user.age"]
HAS = ["item.brand", "item.sale", "user.age", "last.brand", "item.tags"]
ORDERS = ["==", "!=", "<", "<=", ">", ">="]


class Writer:
    """Writes values and conditions by a generator of random numbers."""

    def __init__(self, rng: random.Random) -> None:
        self.one_of, self.number_to = rng.choice, rng.randint

    def moment(self) -> Written:
        match self.number_to(0, 3):
            case 0:
                released = "timestamp(item.released)"
                return Written(released, released, "has(item.released)")
            case 1:
                return Written("now()", f'timestamp("{NOW}")')
            case 2:
                return Written(*[f'timestamp("{self.one_of(TIMES)}")'] * 2)
        length = self.one_of(["24h", "120h30m", "-1.5h"])
        return Written(
            f'(now() - duration("{length}"))', f'(timestamp("{NOW}") - duration("{length}"))'
        )

    def plain_text(self) -> Written:
        return self.one_of([_literal(self.one_of(WORDS)), _field(self.one_of(TEXT_NAMES))])

    def text(self, depth: int) -> Written:
        if depth and self.number_to(0, 5) == 0:
            return _chosen(self.condition(depth - 1), self.plain_text(), self.plain_text())
        return self.plain_text()

    def number(self, depth: int) -> Written:
        match self.number_to(0, 6 if depth else 2):
            case 0 | 1:
                return _field(self.one_of(NUMBER_NAMES))
            case 2:
                value = self.one_of(NUMBERS)
                return Written(f"{value:g}", str(value))
            case 3:
                sign = self.one_of("+-*")
                return _joined(sign, self.number(depth - 1), self.number(depth - 1))
            case 4:
                return _joined("/", self.number(depth - 1), _literal(self.one_of([2.0, 0.5])))
            case 5:
                one = self.number(depth - 1)
                return Written(f"(-{one.ours})", f"(-{one.cel})", one.there)
        one = self.text(depth - 1)
        return Written(f"size({one.ours})", f"double(size({one.cel}))", one.there)

    def condition(self, depth: int = 3) -> Written:
        match self.number_to(0, 13 if depth else 3):
            case 0:
                value = self.one_of([self.number, self.text])
                return _compared(self.one_of(ORDERS), value(depth), value(depth))
            case 1:
                return _compared(self.one_of(ORDERS), self.moment(), self.moment())
            case 2:
                return Written(*[f"has({self.one_of(HAS)})"] * 2)
            case 3:
                return Written("item.sale", "(has(item.sale) ? item.sale : false)")
            case 4 | 5:
                return _compared(self.one_of(ORDERS), self.number(depth), self.number(depth))
            case 6:
                one, word = self.text(depth), self.one_of(WORDS[:4])
                call = f'{{}}.{self.one_of(["startsWith", "endsWith", "contains"])}("{word}")'
                cel = f"({one.there} ? {call.format(one.cel)} : false)"
                return Written(call.format(one.ours), cel)
            case 7:
                one, many = self.text(depth), f'["{self.one_of(WORDS)}", "{self.one_of(WORDS)}"]'
                cel = f"({one.there} ? {one.cel} in {many} : false)"
                return Written(f"({one.ours} in {many})", cel)
            case 8:
                one = self.text(depth)
                cel = f"({one.there} && has(item.tags) ? {one.cel} in item.tags : false)"
                return Written(f"({one.ours} in item.tags)", cel)
            case 9:
                both, met = (
                    "has(item.tags) && has(last.tags)",
                    "item.tags.exists(t, t in last.tags)",
                )
                return Written("sets.intersects(item.tags, last.tags)", f"({both} ? {met} : false)")
            case 10:
                one = self.condition(depth - 1)
                return Written(f"!({one.ours})", f"!({one.cel})")
            case 11 | 12:
                sign = self.one_of(["&&", "||"])
                return _joined(sign, self.condition(depth - 1), self.condition(depth - 1))
        inner = [self.condition(depth - 1) for _ in range(3)]
        return _chosen(*inner)

    def some(self, **values: list[object]) -> dict[str, object]:
        """Each of `values` or none of its name."""
        chosen = {name: self.one_of(among) for name, among in values.items()}
        return {name: one for name, one in chosen.items() if self.number_to(0, 3)}

    def tags(self) -> list[list[object]]:
        return [[], ["a"], ["ab", "b"], ["ä", "", "a"]]

    def item(self) -> dict[str, object]:
        return self.some(
            price=NUMBERS,
            stock=[-1.0, 2.0, 3.0],
            brand=WORDS,
            maker=WORDS,
            sale=[True, False],
            released=TIMES,
            tags=self.tags(),
        )


NAMES = ["price", "stock", "brand", "maker", "sale", "released", "tags"]
EXPRESSIONS, ITEMS = 20, 5  # of one example


def columns_of(items: list[dict[str, object]]) -> Columns:
    return Columns(
        len(items), {name: column_of([one.get(name) for one in items]) for name in NAMES}
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_a_condition_holds_where_cel_says_so(seed):
    writer = Writer(random.Random(seed))
    items = [writer.item() for _ in range(ITEMS)]
    user, last = (
        writer.some(brand=WORDS, age=[1.0, 30.0]),
        writer.some(brand=WORDS, tags=writer.tags()),
    )
    bindings = Bindings(NOW_US, user, last)
    columns, alone = columns_of(items), columns_of(items[:1])
    owners = {"user": celpy.json_to_cel(user), "last": celpy.json_to_cel(last)}
    for written in (writer.condition() for _ in range(EXPRESSIONS)):
        expression = parse(written.ours, "filter")
        found = expression.evaluate(columns, bindings).tolist()
        assert found[:1] == expression.evaluate(alone, bindings).tolist()
        program = CEL.program(CEL.compile(written.cel))
        for item, holds in zip(items, found, strict=True):
            expected = program.evaluate({"item": celpy.json_to_cel(item), **owners})
            assert holds == bool(expected), (written, item, user, last)


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("item.size == 42", [True, False, False, False]),  # a property of several kinds
        ('item.size == "42"', [False, True, False, False]),
        ("item.size < 50", [True, False, False, False]),
        ('item.size in [42, "42", true]', [True, True, True, False]),
        ("item.size != 42", [False, True, True, True]),
        ("item.size", [False, False, True, False]),
        ("has(item.size)", [True, True, True, True]),
        ("size(item.size) == 2", [False, True, False, False]),
        ("item.when > now() - duration('720h')", [True, False, False, True]),
        ("item.when < timestamp('2025-01-01')", [False, True, False, False]),
        ("timestamp('2025-01-01') > item.when", [False, True, False, False]),
        ("item.when == timestamp('2025-01-10T12:00:00+01:00')", [True, False, False, False]),
        ("now() - timestamp(item.when) <= duration('120h')", [True, False, False, True]),
        ("item.zero / item.zero == item.zero / item.zero", [False, False, True, True]),
        ("1 / item.zero > 1e300", [True, False, True, True]),
        ("size(item.mixed) == 2 && 1 in item.mixed", [False, True, False, False]),
        ('"a" in item.mixed || true in item.mixed', [True, True, True, False]),
        ("item.mixed == 1 || item.size < -1", [False] * 4),
        ('(item.zero == 0 ? "x" : item.unknown) == "x"', [True, False, False, False]),
        ("item.unknown != item.unknown", [True] * 4),
    ],
)
def test_a_ragged_property(text, met):
    columns = Columns(
        4,
        {
            "size": column_of([42, "42", True, {"nested": 1}]),
            "when": column_of(["2025-01-10 11:00", "2020-02-30", "soon", "2025-01-14"])
            if "timestamp('2025-01-01')" not in text
            else column_of(["2025-01-10", "2020-02-28", "soon", "2025-01-14"]),
            "zero": column_of([0, None, 1e-301, 1e-305]),
            "mixed": column_of([["a", None], ["a", 1], [True, False, 0], None]),
        },
    )
    assert parse(text, "filter").evaluate(columns, Bindings(NOW_US)).tolist() == met


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.sampled_from([None, 1, 2.5, "a", "b", True, ["a"], ["b", 2, False], []]), max_size=8
    ),
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([None, 3, "a", "c", False, ["c", "a"]])),
        max_size=6,
    ),
)
def test_a_column_with_rows_replaced_is_the_column_of_the_new_values(values, changes):
    new = dict(changes)
    count = max([len(values), *(row + 1 for row in new)])
    whole = [*values, *[None] * (count - len(values))]
    for row, value in new.items():
        whole[row] = value
    grown = column_of(values).with_rows(list(new), list(new.values()), count)
    taken = column_of(whole).take(list(range(count)))
    for text in (
        "item.x < 3",
        'item.x == "a"',
        "item.x",
        '"a" in item.x',
        "2 in item.x",
        "has(item.x)",
        "size(item.x) > 1",
        'item.x >= "b"',
        "false in item.x",
    ):
        met = [
            parse(text, "f").evaluate(Columns(count, {"x": one}), Bindings(0)).tolist()
            for one in (grown, column_of(whole), taken)
        ]
        assert met[0] == met[1] == met[2], text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("item.price <", "at character 13: expected a value, not the end"),
        ("item.price < 5 5", "at character 16: expected"),
        ("price < 5", "a property is item.price"),
        ('"a" < 5', "a text < a number"),
        ("item.x == $", "'$' has no meaning here"),
        ("item.x.matches('a')", "expected a function"),
        ("item.a.b == 1", "none within it"),
        ("chance > 0.5", "in a score alone"),
        ("5", "a condition is true or false"),
        ('duration("7d") > duration("1h")', "720h"),
        ("item.x in [1, item.y]", "in a list"),
        ("item.x.contains(item.y)", "the same for all items"),
        ("sets.intersects(item.x, item.y)", "the same for all items"),
        ("-" * 60 + "1 < 2", "at most 50 operations"),
        ("(" * 900 + "true" + ")" * 899, "not the end"),
        ("item.x == 1 || " * 140 + "true", "at most 2,000 characters"),
        ("item.x in [" + "1," * 500 + "1]", "at most 500 elements"),
        ('item.x == "\\q"', "no such escape"),
        ("item.x == 1e999", "finite"),
    ],
)
def test_what_is_no_expression_is_told_with_its_place(text, said):
    with pytest.raises(InputError, match="at character") as told:
        parse(text, "filter")
    assert said in str(told.value.expected)
    assert len(str(told.value)) < 500


def test_the_longest_chain_is_parsed_and_evaluated():
    text = " || ".join(["item.x == 1"] * 130)
    columns = Columns(2, {"x": column_of([1, 2])})
    assert len(text) < 2_000
    assert parse(text, "f").evaluate(columns, Bindings(0)).tolist() == [True, False]
