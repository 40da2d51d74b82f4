from __future__ import annotations

import re

import pyarrow as pa
import pytest

from recsys.errors import InputError
from recsys.ingest.row_conditions import Condition


def met(expression: str, column: pa.Array) -> list[bool]:
    return Condition.parse(expression).mask(column).tolist()


TEXTS = pa.array(["10", "9", "", None, "ten"])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("q>9", [True, False, False, False, False]),  # 'ten' is no number
        ("q>=9", [True, True, False, False, False]),
        ("q<10", [False, True, False, False, False]),
        ("q <= 10.0", [True, True, False, False, False]),
        ("q=10.0", [True, False, False, False, False]),
        ("q==9", [False, True, False, False, False]),
        ("q!=9", [True, False, True, True, True]),
        ("q=", [False, False, True, True, False]),
        ("q!=", [True, True, False, False, True]),
        ("q=1*", [True, False, False, False, False]),
        ("q!=t*", [True, True, True, True, False]),
    ],
)
def test_operators_on_text(expression: str, expected: list[bool]) -> None:
    assert met(expression, TEXTS) == expected


def test_numeric_columns() -> None:
    assert met("q>0", pa.array([1, -1, None])) == [True, False, False]
    assert met("q>=0.5", pa.array([0.5, float("nan"), 0.25])) == [True, False, False]
    assert met("q!=C*", pa.array(["C536379", "536365"])) == [False, True]
    assert met("q=true", pa.array([True, False, None])) == [True, False, False]


@pytest.mark.parametrize("kind", [pa.string(), pa.int64()])
def test_long_ids_are_compared_exactly(kind: pa.DataType) -> None:
    column = pa.array([2053013555631882655, 2053013555631882656]).cast(kind)
    assert met("q=2053013555631882655", column) == [True, False]
    assert met("q>2053013555631882655", column) == [False, True]


def test_times_compare_as_text() -> None:
    column = pa.array([0, 1_600_000_000_000_000], pa.timestamp("us"))
    assert met("t>=2020-01-01", column) == [False, True]


def test_a_date_is_compared_with_dates_alone() -> None:
    assert met("t>=2020-01", pa.array(["2020-05-01", "5", "later"])) == [True, False, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q<50,00", "expected a number, with a point before its decimals, or an ISO date after <"),
        ("q<€50", "expected a number"),
        ("q>=ten", "expected a number"),
        ("q<", "expected a number"),
        ("q<<10", "one operator, not <<"),
        ("q=<10", "one operator, not =<"),
        ("q=>10", "one operator, not =>"),
        ("q!==10", "one operator, not !=="),
    ],
)
def test_a_value_that_has_no_order_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        Condition.parse(text, "filter")
    assert (caught.value.field, caught.value.value) == ("filter", text)


def test_what_is_no_condition() -> None:
    for text in ("Quantity", "=3", ""):
        with pytest.raises(InputError, match="COLUMN OP VALUE"):
            Condition.parse(text)
    with pytest.raises(InputError, match="no order"):
        met("q=1", pa.array([[1]]))
