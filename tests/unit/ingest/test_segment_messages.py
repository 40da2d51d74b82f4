"""Segment's messages to events, items, lists shown and merges."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from recsys.config import Settings, TrackedEvent, load_settings
from recsys.errors import ConfigError, InputError
from recsys.events.times import rfc3339, to_us
from recsys.ingest.ecommerce_events import MAX_PRODUCTS, EventNames
from recsys.ingest.event_body import check_event
from recsys.ingest.item_body import check_item
from recsys.ingest.segment_messages import Arrival, read_message

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW_US = to_us(NOW)
NAMES = EventNames()


def read(**raw):
    names = raw.pop("names", NAMES)
    arrival = raw.pop("arrival", Arrival(NOW_US))
    given = {"type": "track", "messageId": "m1", "userId": "u1", "anonymousId": "a1", **raw}
    return read_message(given, arrival, names)


def rows(found):
    """The events as they are stored: every row is one that POST /events takes."""
    return [check_event(row, NOW_US) for row in found.events]


@pytest.mark.parametrize(
    ("names", "event_type"),
    [
        (("Product Viewed", "Viewed Product", "product viewed", " PRODUCT  VIEWED "), "view"),
        (("Product Clicked", "Clicked Product"), "click"),
        (("Product Added", "Added Product", "Wishlist Product Added to Cart"), "cart"),
        (("Product Removed", "Removed Product"), "cart_remove"),
        (("Product Added to Wishlist", "Added Product to Wishlist"), "wishlist"),
        (("Product Shared", "Shared Product"), "share"),
        (("Product Reviewed", "Reviewed Product"), "review"),
    ],
)
def test_events_of_one_product(names, event_type):
    for name in names:
        for product in ({"product_id": "tea", "sku": "x"}, {"product_id": None, "sku": "tea"}):
            found = read(event=name, properties=product, timestamp="2026-03-01T11:00:00Z")
            (event,) = rows(found)
            assert (event.item_id, event.event_type, event.event_id) == ("tea", event_type, "m1")
            assert (event.user_id, event.session_id) == ("u1", "a1")
            assert event.timestamp_us == to_us(NOW) - 3_600_000_000
            assert found.left_out is found.shown is found.merge is found.traits is None


@pytest.mark.parametrize(
    ("name", "event_type"),
    [
        ("Order Completed", "purchase"),
        ("Completed Order", "purchase"),
        ("Order Refunded", "refund"),
        ("Order Cancelled", "refund"),
    ],
)
def test_an_order_is_one_event_a_product(name, event_type):
    sold = {
        "order_id": "o9",
        "currency": "EUR",
        "revenue": 25,
        "recommendation_id": "r1",
        "products": [
            {"product_id": 1, "price": 10, "quantity": 2, "name": "Tea", "category": "Drinks"},
            {"sku": "cup", "price": "5.0"},
            {"product_id": "gift"},
        ],
    }
    found = read(event=name, properties=sold)
    first, second, third = rows(found)
    assert [one.item_id for one in (first, second, third)] == ["1", "cup", "gift"]
    assert {one.event_type for one in (first, second, third)} == {event_type}
    assert [one.event_id for one in (first, second, third)] == ["m1#1", "m1#2", "m1#3"]
    assert [one.value for one in (first, second, third)] == [20.0, 5.0, None]
    assert {one.recommendation_id for one in (first, second, third)} == {"r1"}
    assert first.properties == '{"currency":"EUR","order_id":"o9","price":10,"quantity":2}'
    tea, cup = map(check_item, found.items)
    assert (tea.item_id, tea.title, tea.price, tea.categories) == ("1", "Tea", 10.0, ("Drinks",))
    assert (cup.item_id, cup.title, cup.price) == ("cup", None, 5.0)
    assert cup.properties == '{"currency":"EUR"}'


def test_a_list_view_is_shown_and_no_event():
    listed = {"list_id": "home", "category": "x", "products": [{"product_id": "a"}, {"sku": "b"}]}
    for name in ("Product List Viewed", "Viewed Product Category"):
        found = read(event=name, properties=listed)
        assert found.events == () and found.left_out is None
        assert (found.shown.item_ids, found.shown.list_id) == (("a", "b"), "home")


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ({"event": " Signed   Up"}, "Signed Up"),
        ({"event": "Checkout Started", "properties": {"products": [{"sku": 1}]}}, "Checkout Started"),
        ({"event": "Products Searched", "properties": {"query": "tea"}}, "Products Searched"),
        ({"event": "Order Refunded", "properties": {"order_id": "o"}}, "Order Refunded"),
        ({"event": "Product List Viewed", "properties": None}, "Product List Viewed"),
        ({"event": "x" * 5_000}, "x" * 100),
        ({"type": "page", "name": "Home"}, "page"),
        ({"type": "screen"}, "screen"),
        ({"type": "group", "groupId": "g"}, "group"),
        ({"type": "identify", "userId": None, "traits": {"a": 1}}, "identify"),
        ({"type": "identify", "anonymousId": None, "traits": {}}, "identify"),
        ({"type": "alias", "previousId": "u1"}, "alias"),
    ],
)  # fmt: skip
def test_what_maps_to_nothing_is_told_by_name(raw, name):
    found = read(**raw)
    assert found.left_out == name
    assert (found.events, found.items, found.merge, found.traits) == ((), (), None, None)


def test_identify_and_alias_merge():
    found = read(type="identify", traits={"plan": "gold"})
    assert (found.merge.user_id, found.merge.others) == ("u1", ("s:a1",))
    assert found.traits == {"plan": "gold"}
    found = read(type="identify", anonymousId=None, traits={"plan": "gold"})
    assert found.merge is None and found.traits == {"plan": "gold"}
    found = read(type="alias", anonymousId=None, previousId="old")
    assert (found.merge.user_id, found.merge.others) == ("u1", ("s:old", "u:old"))


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"userId": None, "anonymousId": None, "event": "x"}, "userId"),
        ({"userId": "", "anonymousId": "", "event": "x"}, "userId"),
        ({"userId": [1], "event": "x"}, "userId"),
        ({"messageId": {}, "event": "x"}, "messageId"),
        ({"type": "trac", "event": "x"}, "type"),
        ({"type": None}, "type"),
        ({"type": "track"}, "event"),
        ({"event": 7}, "event"),
        ({"event": "Product Viewed", "properties": []}, "properties"),
        ({"event": "Order Completed", "properties": {"products": {}}}, "properties.products[]"),
        ({"event": "Order Completed", "properties": {"products": [1]}}, "properties.products[]"),
        (
            {
                "event": "Order Completed",
                "properties": {"products": [{"sku": 1}] * (MAX_PRODUCTS + 1)},
            },
            "properties.products[]",
        ),
        (
            {"event": "Order Completed", "properties": {"products": [{"sku": 1, "price": "x"}]}},
            "price",
        ),
        ({"event": "x", "timestamp": "yesterday"}, "timestamp"),
        ({"event": "x", "sentAt": True}, "sentAt"),
        ({"event": "x", "receivedAt": "2026-13-01"}, "receivedAt"),
        ({"event": "x", "timestamp": 2**53 - 1}, "timestamp"),
        ({"type": "identify", "traits": [1]}, "traits"),
        ({"type": "alias"}, "previousId"),
        ({"type": "alias", "userId": None, "previousId": "x"}, "userId"),
    ],
)
def test_a_message_that_is_none_is_refused_by_field(raw, field):
    with pytest.raises(InputError) as caught:
        read(**raw)
    assert caught.value.field == field


def test_a_product_without_an_id_is_a_row_that_no_one_takes():
    found = read(event="Product Viewed", properties={"name": "Tea"})
    with pytest.raises(InputError, match="item_id"):
        rows(found)


def test_times_are_by_the_clock_of_the_receiver():
    at = NOW_US - 5_000_000
    late = {"timestamp": rfc3339(at - 10**9), "sentAt": rfc3339(NOW_US - 10**9)}
    assert read(event="x", **late).timestamp_us == at
    # sentAt stands in the batch; receivedAt and originalTimestamp are what a relay adds.
    batch = Arrival(NOW_US, sent_at=late["sentAt"])
    assert read(event="x", arrival=batch, timestamp=late["timestamp"]).timestamp_us == at
    relayed = {
        "originalTimestamp": late["timestamp"],
        "timestamp": rfc3339(at),
        "sentAt": late["sentAt"],
        "receivedAt": rfc3339(NOW_US),
    }
    later = Arrival(NOW_US + 7 * 86_400_000_000)  # a queue that was read a week later
    assert read(event="x", arrival=later, **relayed).timestamp_us == at
    # History is moved by what the clocks differ, and no more.
    old = {"timestamp": "2020-01-01T00:00:00Z", "sentAt": rfc3339(NOW_US - 2_000_000)}
    assert rfc3339(read(event="x", **old).timestamp_us) == "2020-01-01T00:00:02.000000Z"
    for unsent in ({}, {"sentAt": None}, {"sentAt": ""}):
        at_once = read(event="x", timestamp="2020-01-01T01:00:00+01:00", **unsent)
        assert rfc3339(at_once.timestamp_us) == "2020-01-01T00:00:00.000000Z"
    assert read(event="x").timestamp_us == NOW_US


def test_names_of_ones_own_win():
    names = EventNames(
        {
            "Article Read": TrackedEvent(type="view", item="properties.article.id"),
            "product viewed": TrackedEvent(type="look"),
            "Digest Opened": TrackedEvent(type="open", item="properties.articles[].id"),
            "Page Seen": TrackedEvent(type="view", item="context.page.path"),
        }
    )
    properties = {"article": {"id": 7}, "price": 3}
    (event,) = rows(read(names=names, event="ARTICLE READ", properties=properties))
    assert (event.item_id, event.event_type, event.event_id) == ("7", "view", "m1")
    (event,) = rows(read(names=names, event="Product Viewed", properties={"product_id": "p"}))
    assert event.event_type == "look"
    opened = {"articles": [{"id": 1}, {"id": 2}]}
    events = rows(read(names=names, event="Digest Opened", properties=opened))
    assert [(one.item_id, one.event_id) for one in events] == [("1", "m1#1"), ("2", "m1#2")]
    assert read(names=names, event="Digest Opened", properties={}).left_out == "Digest Opened"
    around = Arrival(NOW_US, context={"page": {"path": "/a"}})
    (event,) = rows(read(names=names, arrival=around, event="Page Seen"))
    assert event.item_id == "/a"


def test_names_of_ones_own_are_checked_when_they_are_read(tmp_path):
    path = tmp_path / "config.toml"

    def load(text: str) -> Settings:
        path.write_text(f"[segment.events]\n{text}\n")
        return load_settings(path)

    read = load('"Article Read" = { type = "view", item = "properties.article_id" }')
    assert read.segment.events["Article Read"].item == "properties.article_id"
    for text, key in [
        ('"A" = { type = "view", itm = "properties.a" }', "segment.events.A.itm"),
        ('"A" = { item = "properties.a" }', "segment.events.A.type"),
        ('"A" = { type = "", item = "properties.a" }', "segment.events.A.type"),
        ('"A" = { type = "view", item = "article_id" }', "segment.events.A.item"),
        ('"A" = { type = "view", item = "properties.a[].b[].c" }', "segment.events.A.item"),
        ('"A" = "view"', "segment.events.A"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load(text)
        assert caught.value.key == key, text


def oracle(raw, now):
    """(item, type, time, id, value) of what a message means, written once more, without the mapping."""
    name = " ".join(str(raw.get("event")).lower().split())
    if name.split()[0] in ("viewed", "clicked", "added", "removed", "completed"):
        verb, *noun = name.split()
        name = " ".join((*noun, verb))
    types = {"viewed": "view", "clicked": "click", "added": "cart", "removed": "cart_remove"}
    when = datetime.fromisoformat(raw["timestamp"])
    if raw.get("sentAt"):
        when = now - (datetime.fromisoformat(raw["sentAt"]) - when)
    first, last = name.split()
    found = []
    if first == "product" and last in types:
        one = raw["properties"]
        found.append((one.get("product_id") or one["sku"], types[last], "", None))
    elif name == "order completed":
        for n, one in enumerate(raw["properties"].get("products", []), 1):
            value = None if "price" not in one else one["price"] * one.get("quantity", 1)
            found.append((one.get("product_id") or one["sku"], "purchase", f"#{n}", value))
    return [
        (str(item), kind, when, f"{raw['messageId']}{mark}", value)
        for item, kind, mark, value in found
    ]


def random_message(rng, number):
    verb = rng.choice(["Viewed", "Clicked", "Added", "Removed", "Completed", "Searched"])
    noun = "Order" if verb == "Completed" else "Product"
    words = [noun, verb] if rng.random() < 0.5 else [verb, noun]
    if verb == "Searched":
        words = ["Products", "Searched"]
    name = rng.choice(["{}", " {} ", "{}"]).format(rng.choice(["  ", " "]).join(words))

    def product():
        key = rng.choice(["product_id", "sku"])
        made = {key: rng.choice([f"p{rng.randrange(9)}", rng.randrange(1, 9)])}
        if rng.random() < 0.6:
            made["price"] = rng.choice([1, 2.5, 10])
        if rng.random() < 0.4:
            made["quantity"] = rng.randrange(1, 5)
        return made

    at = NOW - timedelta(seconds=rng.randrange(10**8), microseconds=rng.randrange(10**6))
    zone = rng.choice(["Z", "+00:00"])
    one = verb != "Completed"
    raw = {
        "type": "track",
        "event": rng.choice([str.upper, str.lower, str])(name),
        "messageId": f"m{number}",
        "userId": rng.choice([None, f"u{number % 7}"]),
        "anonymousId": f"a{number % 5}",
        "timestamp": at.isoformat().replace("+00:00", zone),
        "properties": product()
        if one
        else {"products": [product() for _ in range(rng.randrange(4))]},
    }
    if rng.random() < 0.5:
        raw["sentAt"] = (at + timedelta(seconds=rng.randrange(9))).isoformat()
    return raw


@pytest.mark.parametrize("seed", range(3))
def test_random_messages_mean_what_a_second_reading_says(seed):
    rng = random.Random(seed)
    for number in range(700):
        raw = random_message(rng, number)
        found = read_message(raw, Arrival(NOW_US), NAMES)
        expected = oracle(raw, NOW)
        told = [(e.item_id, e.event_type, e.timestamp_us, e.event_id, e.value) for e in rows(found)]
        assert told == [(i, k, to_us(w), n, v) for i, k, w, n, v in expected]
        assert (found.left_out is not None) == (not expected)
        assert {e.user_id for e in rows(found)} <= {raw["userId"]}
        for item in found.items:
            check_item(item)
