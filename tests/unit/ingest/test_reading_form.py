"""What is proposed for a file's columns, and what a form's texts mean."""

import pytest

from recsys.errors import InputError
from recsys.ingest.reading_form import command_line, read_options, suggested

NOW_US = 1_800_000_000_000_000
PROPOSED = {
    "userId,productId,createdAt": {"user": "userId", "item": "productId", "timestamp": "createdAt"},
    "user_id,item_id,timestamp,event_type": {
        "user": "user_id", "item": "item_id", "timestamp": "timestamp", "event_type": "event_type",
    },
    "visitorid,timestamp,event,itemid,transactionid": {"format": "retailrocket"},
    "userId,movieId,rating,timestamp": {"format": "movielens"},
    "user_id,user_session,product_id,event_time,event_type,price": {"format": "rees46"},
    "user_id,session_id,item_id,event_type,timestamp_us,event_id": {},  # this project's own export
    "InvoiceNo,StockCode,InvoiceDate,CustomerID": {
        "user": "CustomerID", "item": "StockCode", "timestamp": "InvoiceDate",
    },
    "session,event,item": {"session": "session", "item": "item", "event_type": "event"},
    "a,b,c": {},
}  # fmt: skip


@pytest.mark.parametrize("names", PROPOSED)
def test_columns_are_proposed_by_name(names):
    assert suggested(names.split(","), {}, NOW_US) == PROPOSED[names]


@pytest.mark.parametrize(
    ("text", "unit"),
    [("1714564800", "s"), ("1714564800000", "ms"), ("1714564800000000", "us"), ("1714564800.5", "s"),
     ("1714564800000000000", "ns"), ("2024-05-01", None), ("12", None), ("", None)],
)  # fmt: skip
def test_a_unit_is_proposed_where_only_one_is_recent(text, unit):
    found = suggested(["uid", "sku", "ts"], {"ts": ["", text]}, NOW_US)
    assert found.get("unit") == unit


def test_a_form_means_what_the_command_line_means():
    reading = {
        "user": "u, id",
        "item": "sku",
        "unit": "ms",
        "delimiter": "tab",
        "columns": "a, b",
        "session": "",
    }
    options = read_options(reading)
    assert options.columns.mapped() == {"user": "u, id", "item": "sku"}
    assert (options.unit, options.text.delimiter, options.text.columns) == ("ms", "\t", ("a", "b"))
    assert command_line("it's.csv", reading).startswith(
        """recsys events import 'it'"'"'s.csv' --map """
    )
    for bad in ({"users": "x"}, {"item": "x" * 1_001}, {"delimiter": "ab"}):
        with pytest.raises(InputError):
            read_options(bad)
