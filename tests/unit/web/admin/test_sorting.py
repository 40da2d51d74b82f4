"""Sorted lists: whichever way they are turned, pages hold every row once, whatever comes or goes."""

from types import SimpleNamespace

import pytest
from flask import Flask

from recsys.errors import InputError
from recsys.web.admin.sorting import SortedList, sort_of
from recsys.web.cursors import write_cursor

COLUMNS = {"size": lambda row: row.size, "name": lambda row: row.name}
SIZES = [3, None, 1, 3, 2, None, 3]
ROWS = [SimpleNamespace(id=at, size=size, name=f"n{at}") for at, size in enumerate(SIZES)]
app = Flask(__name__)


def page(sort, cursor=None, rows=ROWS, limit=2):
    with app.test_request_context(query_string={"cursor": cursor} if cursor else {}):
        found, more = SortedList(COLUMNS, sort, lambda row: row.id).page(rows, limit)
    return [row.id for row in found], more


def walk(sort):
    seen, cursor = [], None
    while True:
        ids, cursor = page(sort, cursor)
        seen += ids
        if cursor is None:
            return seen


@pytest.mark.parametrize(
    ("sort", "ids"),
    [
        ("size", [2, 4, 0, 3, 6, 1, 5]),
        ("-size", [6, 3, 0, 4, 2, 1, 5]),  # without a size: last both ways
        ("-name", [6, 5, 4, 3, 2, 1, 0]),
    ],
)
def test_pages_hold_every_row_once_in_order(sort, ids):
    assert walk(sort) == ids


def test_a_row_that_comes_or_goes_moves_no_other():
    first, cursor = page("-size")
    assert first == [6, 3]
    changed = [row for row in ROWS if row.id != 3] + [SimpleNamespace(id=9, size=8, name="x")]
    assert page("-size", cursor, changed)[0] == [0, 4]


@pytest.mark.parametrize(
    "cursor", ["%", write_cursor("[]"), write_cursor('["a",{}]'), write_cursor('["a",1]')]
)
def test_a_cursor_of_something_else_is_refused(cursor):
    with pytest.raises(InputError, match="next_cursor"):
        page("size", cursor)


def test_a_column_that_is_none_is_refused():
    with (
        app.test_request_context("/?sort=-colour"),
        pytest.raises(InputError, match="expected one"),
    ):
        sort_of(COLUMNS, "size")
