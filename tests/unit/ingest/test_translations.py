"""Files of Segment, GA4, Snowplow and PostHog: rows that hold events, and rows that hold none."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config import TrackedEvent
from recsys.errors import InputError
from recsys.ingest.event_files import ReadOptions, read_rejected
from recsys.ingest.translations import MAX_NAMES
from tests.unit.ingest.conftest import NOW_US, read, reasons

SEGMENT = [
    {
        "type": "track",
        "event": "Product Viewed",
        "messageId": "m1",
        "userId": "u1",
        "anonymousId": "a1",
        "properties": {"product_id": "tea", "price": 2},
        "originalTimestamp": "2023-01-01T10:00:00.000Z",
        "sentAt": "2023-01-01T10:00:01.000Z",
        "receivedAt": "2023-01-01T09:00:02.000Z",
        "timestamp": "2023-01-01T09:00:01.000Z",
    },
    {"type": "page", "messageId": "m2", "userId": "u1", "timestamp": "2023-01-01T09:00:03Z"},
    {"type": "identify", "messageId": "m3", "userId": "u1", "timestamp": "2023-01-01T09:00:03Z"},
    {
        "type": "track",
        "event": "Order Completed",
        "messageId": "m4",
        "anonymousId": "a2",
        "timestamp": "2023-01-01T09:00:04Z",
        "sentAt": "2023-09-01T00:00:00Z",  # by what clock nobody knows
        "properties": {
            "order_id": "o1",
            "products": [{"sku": 7, "price": "1.5", "quantity": 2}, {"sku": None}],
        },
    },
    {"type": "track", "event": "Signed Up", "messageId": "m5", "userId": "u1", "timestamp": 1},
    {"type": "track", "event": "Product Viewed", "messageId": "m6", "timestamp": "2023-01-01T00:00:00Z"},
    {"type": "track", "event": "Product Viewed", "messageId": "m7", "userId": "u1"},
    {
        "type": "track",
        "event": "Product List Viewed",
        "messageId": "m8",
        "userId": "u1",
        "timestamp": "2023-01-01T09:00:05Z",
        "properties": {"products": [{"sku": 1}]},
    },
]  # fmt: skip


def ga4(name, at, items=(), **more):
    return {
        "event_date": "20230101",
        "event_timestamp": at,
        "event_name": name,
        "event_params": [
            {"key": "page_location", "value": {"string_value": "/", "int_value": None}},
            {"key": "ga_session_id", "value": {"string_value": None, "int_value": 99}},
        ],
        "user_id": None,
        "user_pseudo_id": "11.22",
        "batch_page_id": 1,
        "batch_ordering_id": 2,
        "batch_event_index": 3,
        "items": [
            {"item_id": item, "item_name": "x", "price": price, "quantity": quantity}
            for item, price, quantity in items
        ],
        "ecommerce": {"transaction_id": "t1" if name == "purchase" else None},
        **more,
    }


T = 1_672_563_600_000_000
GA4 = [
    ga4("session_start", T),
    ga4("view_item", T + 1, [("tea", 2.0, None)]),
    ga4("view_item_list", T + 2, [("tea", 2.0, None), ("cup", 3.0, None)]),
    ga4("add_to_cart", T + 3, [("tea", 2.0, 1)], user_id="u1"),
    ga4("purchase", T + 4, [("tea", 2.0, 3), ("cup", 3.0, None)], user_id="u1"),
    ga4("view_item", T + 5, [("(not set)", None, None)]),
    ga4("view_item", T + 6, [("tea", None, None), ("tea", None, None)]),
]

ACTION = "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1"
PRODUCTS = "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1"


def snowplow(number, kind, products=(), **more):
    row = {
        "event_id": f"e{number}",
        "event": "unstruct",
        "event_name": "snowplow_ecommerce_action",
        "user_id": None,
        "domain_userid": "d1",
        "domain_sessionid": "s1",
        "collector_tstamp": "2023-01-01T09:00:09.000Z",
        "derived_tstamp": f"2023-01-01T09:00:0{number}.000Z",
        ACTION: {"type": kind},
        PRODUCTS: [{"id": i, "price": p, "quantity": q, "currency": "EUR"} for i, p, q in products],
        **more,
    }
    return {key: value for key, value in row.items() if value is not None}


SNOWPLOW = [
    snowplow(1, "product_view", [("tea", 2.0, None)]),
    snowplow(2, "list_view", [("tea", 2.0, None), ("cup", 1.0, None)]),
    snowplow(3, "add_to_cart", [("tea", 2.0, 1), ("cup", 1.0, 1)], user_id="u1"),
    snowplow(4, "transaction", [("tea", 2.0, 2)]),
    {**snowplow(5, "x"), ACTION: None, "event": "page_view", "event_name": "page_view"},
    {**snowplow(6, "x"), ACTION: [1, 2]},
]


def posthog(number, name, properties, **more):
    return {
        "uuid": f"p{number}",
        "event": name,
        "distinct_id": "u1",
        "properties": properties,
        "timestamp": f"2023-01-01 09:00:0{number}.000000+00:00",
        **more,
    }


POSTHOG = [
    posthog(1, "Product Viewed", {"product_id": "tea", "$session_id": "s1"}),
    posthog(2, "$pageview", {}),
    posthog(3, "Order Completed", '{"products": [{"sku": "cup", "price": 2}]}'),
    posthog(4, "Product Viewed", "[1]"),
    posthog(5, "", {}),
]


def write(tmp_path, rows, kind):
    if kind == "parquet":
        # A field of several kinds is text there.
        path = tmp_path / "a.parquet"
        names = list(dict.fromkeys(name for row in rows for name in row))
        kinds = {name: {type(row.get(name)) for row in rows} - {type(None)} for name in names}
        columns = {}
        for name in names:
            values = [row.get(name) for row in rows]
            if len(kinds[name]) > 1:
                values = [v if isinstance(v, str | None) else json.dumps(v) for v in values]
            columns[name] = values
        pq.write_table(pa.table(columns), path)
        return path
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = tmp_path / ("a.jsonl.gz" if kind == "gz" else "a.jsonl")
    path.write_bytes(gzip.compress(lines) if kind == "gz" else lines)
    return path


def told(chunk):
    names = ("user_id", "session_id", "item_id", "event_type", "timestamp_us", "event_id", "value")
    return [tuple(row[name] for name in names) for row in chunk.events.to_pylist()]


def left_out(chunk):
    return {
        words.removeprefix("left out: "): rows
        for words, rows in chunk.notes.items()
        if words.startswith("left out: ")
    }


AT = 1_672_563_600_000_000  # 2023-01-01T09:00:00Z


@pytest.mark.parametrize("kind", ["jsonl", "gz"])
def test_archives_of_segment_and_rudderstack(tmp_path, kind):
    chunk = read(write(tmp_path, SEGMENT, kind), ReadOptions(format="segment"))
    second = 1_000_000
    assert told(chunk) == [
        ("u1", "a1", "tea", "view", AT + second, "m1", None),
        (None, "a2", "7", "purchase", AT + 4 * second, "m4#1", 3.0),
    ]
    properties = chunk.events["properties"].to_pylist()
    assert properties == ['{"price":2}', '{"order_id":"o1","price":"1.5","quantity":2}']
    named = {"page": 1, "identify": 1, "Signed Up": 1, "Product List Viewed": 1}
    assert left_out(chunk) == named and chunk.skipped == 4
    found = list(reasons(chunk).values())
    assert [one.split(" = ")[0] for one in found] == ["item_id is missing", "userId", "timestamp"]
    assert (chunk.read, chunk.events.num_rows) == (9, 2)


@pytest.mark.parametrize("kind", ["jsonl", "gz", "parquet"])
def test_exports_of_ga4(tmp_path, kind):
    chunk = read(write(tmp_path, GA4, kind), ReadOptions(format="ga4"))
    found = [(*row[:5], row[6]) for row in told(chunk)]
    session = "11.22.99"
    assert found == [
        ("11.22", session, "tea", "view", T + 1, None),
        ("u1", session, "tea", "cart", T + 3, None),
        ("u1", session, "tea", "purchase", T + 4, 6.0),
        ("u1", session, "cup", "purchase", T + 4, 3.0),
        ("11.22", session, "tea", "view", T + 6, None),
        ("11.22", session, "tea", "view", T + 6, None),
    ]
    ids = chunk.events["event_id"].to_pylist()
    assert len(set(ids)) == 6 and all(len(one) == 32 for one in ids)
    assert left_out(chunk) == {"session_start": 1, "view_item_list": 1}
    assert list(reasons(chunk).values()) == ["item_id is missing"]
    # Numbers are text in the JSON that BigQuery writes; ids come out the same.
    texts = [{name: str(v) if isinstance(v, int) else v for name, v in row.items()} for row in GA4]
    again = read(write(tmp_path, texts, "jsonl"), ReadOptions(format="ga4"))
    assert again.events["event_id"].to_pylist() == ids


@pytest.mark.parametrize("kind", ["jsonl", "gz", "parquet"])
@pytest.mark.parametrize("version", ["", "_0_2"])
def test_enriched_events_of_snowplow(tmp_path, kind, version):
    rows = [
        {f"{k}{version}" if k in (ACTION, PRODUCTS) else k: v for k, v in row.items()}
        for row in SNOWPLOW
    ]
    chunk = read(write(tmp_path, rows, kind), ReadOptions(format="snowplow"))
    second = 1_000_000
    assert told(chunk) == [
        ("d1", "s1", "tea", "view", AT + second, "e1", None),
        ("u1", "s1", "tea", "cart", AT + 3 * second, "e3#1", None),
        ("u1", "s1", "cup", "cart", AT + 3 * second, "e3#2", None),
        ("d1", "s1", "tea", "purchase", AT + 4 * second, "e4#1", 4.0),
    ]
    assert left_out(chunk) == {"list_view": 1, "page_view": 1}
    (reason,) = reasons(chunk).values()
    assert reason.startswith("snowplow_ecommerce_action = ")


@pytest.mark.parametrize("kind", ["jsonl", "gz", "parquet"])
def test_exports_of_posthog(tmp_path, kind):
    chunk = read(write(tmp_path, POSTHOG, kind), ReadOptions(format="posthog"))
    second = 1_000_000
    assert told(chunk) == [
        ("u1", "s1", "tea", "view", AT + second, "p1", None),
        ("u1", None, "cup", "purchase", AT + 3 * second, "p3#1", 2.0),
    ]
    assert left_out(chunk) == {"$pageview": 1}
    assert [one.split(" = ")[0] for one in reasons(chunk).values()] == ["properties", "event"]


def test_names_of_ones_own_are_read_in_files_too(tmp_path):
    own = {"Signed Up": TrackedEvent(type="join", item="properties.plan")}
    row = {**SEGMENT[4], "properties": {"plan": "gold"}, "timestamp": "2023-01-01T09:00:00Z"}
    options = ReadOptions(format="segment", tracked=own)
    chunk = read(write(tmp_path, [row], "jsonl"), options)
    assert told(chunk) == [("u1", None, "gold", "join", AT, "m5", None)]
    assert options.plain()["tracked"] == {"Signed Up": {"type": "join", "item": "properties.plan"}}


def test_names_are_told_apart_up_to_a_bound(tmp_path):
    rows = [{**SEGMENT[4], "event": f"e{number % 500}"} for number in range(1_000)]
    chunk = read(write(tmp_path, rows, "jsonl"), ReadOptions(format="segment"), 100)
    found = left_out(chunk)
    assert len(found) == MAX_NAMES + 1 and sum(found.values()) == 1_000 == chunk.skipped
    assert found["(other names)"] == 600


def test_rows_can_be_kept_by_what_they_hold(tmp_path):
    options = ReadOptions(format="ga4", where=("event_type=purchase",))
    chunk = read(write(tmp_path, GA4, "jsonl"), options)
    assert {row[3] for row in told(chunk)} == {"purchase"}


def test_what_was_rejected_is_read_again(tmp_path):
    chunk = read(write(tmp_path, SEGMENT, "jsonl"), ReadOptions(format="segment"))
    raws = [one.raw for one in chunk.rejections]
    corrected = [raw.replace('"messageId":"m6"', '"messageId":"m6","userId":"u9"') for raw in raws]
    corrected[1] = json.dumps({**json.loads(corrected[1]), "properties": {"sku": "tea"}})
    corrected.append(json.dumps(SEGMENT[1]))
    again = read_rejected(corrected, ReadOptions(format="segment"), NOW_US)
    assert [row[:3] for row in told(again)] == [("u9", None, "tea")]
    assert left_out(again) == {"page": 1}
    assert [one.position for one in again.rejections] == [0, 2]


@pytest.mark.parametrize("name", ["segment", "ga4", "snowplow", "posthog"])
def test_other_files_are_refused(tmp_path, name):
    for rows, kind in (([{"a": 1, "b": 2}], "jsonl"), ([{"a": 1, "b": 2}], "parquet")):
        with pytest.raises(InputError, match=f"--format = '{name}': expected the columns"):
            read(write(tmp_path, rows, kind), ReadOptions(format=name))
    path = tmp_path / "a.csv"
    path.write_text("event,distinct_id\n1,2\n")
    with pytest.raises(InputError, match="is a format of JSON Lines and Parquet files"):
        read(path, ReadOptions(format=name))
    options = ReadOptions(format=name, columns=ReadOptions().columns.parse("user=a"))
    with pytest.raises(InputError, match="--map"):
        read(write(tmp_path, SEGMENT, "jsonl"), options)
    with pytest.raises(InputError, match="segment, ga4, snowplow, posthog"):
        read(write(tmp_path, SEGMENT, "jsonl"), ReadOptions(format="mixpanel"))
