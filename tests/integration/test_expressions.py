"""Expressions in `filter` and `boost` of requests."""

import pytest

URL = "/users/nobody/recommendations"


@pytest.fixture
def stocked(bare):
    rows = [
        {
            "item_id": f"i{number}",
            "title": f"Item {number}",
            "price": 10 * number,
            "categories": ["tea" if number % 2 else "cups"],
            "properties": {"country": "DE" if number < 3 else "FR", "brand": "ABC"[number % 3]},
        }
        for number in range(6)
    ]
    bare.call("PUT", "/items", json=rows, scope="write")
    return bare


def ids(answer):
    return {one["item_id"] for one in answer["items"]}


def asked(service, **body):
    return ids(service.post("/recommendations", {"exclude_seen": "none", **body}, scope="read"))


def test_filters_by_item_user_and_last_item(stocked):
    found = stocked.get(URL, query_string={"filter": 'item.price < 50 && !(item.brand in ["A"])'})
    assert ids(found) == {"i1", "i2", "i4"}
    both = {"filter": ["price<30", '"tea" in item.categories']}  # each in its own language
    assert ids(stocked.get(URL, query_string=both)) == {"i1"}
    stocked.call("PUT", "/users/bob/attributes", json={"country": "IT"}, scope="write")
    assert asked(stocked, filter=["item.country == user.country"], user_id="ann") == set()
    stocked.call("PUT", "/users/ann/attributes", json={"country": "FR"}, scope="write")
    wanted = {"filter": ["item.country == user.country"], "user_id": "ann"}
    assert asked(stocked, **wanted) == {"i3", "i4", "i5"}
    stocked.call("PUT", "/users/ann/attributes", json={"country": "DE"}, scope="write")
    assert asked(stocked, **wanted) == {"i0", "i1", "i2"}  # what changed is seen at once
    last = {"filter": ["item.brand == last.brand && item.item_id != last.item_id"]}
    assert asked(stocked, events=[{"item_id": "i1"}], **last) == {"i4"}
    assert asked(stocked, **last) == set()
    new = {"filter": ['item.created_at > now() - duration("1h")']}
    assert len(asked(stocked, **new)) == 6


def test_a_boost_by_an_expression(service, tiny_shop):
    seen = [{"item_id": one} for one in tiny_shop.bundle.vocabulary.item_ids[:3]]
    asked = {"events": seen, "exclude_seen": "none", "k": 50}

    def recommended(**more):
        return service.post("/recommendations", {**asked, **more}, scope="read")["items"]

    plain = recommended()
    middle = sorted(one["item"]["price"] for one in plain)[len(plain) // 2]
    boosted = recommended(boost=[f"item.price < {middle}^3"])
    assert boosted == recommended(boost=[f"price<{middle}^3"]) != plain


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"filter": "item.prise < 5"}, "nearest: price"),
        ({"filter": "item.price < "}, "at character 14"),
        ({"filter": 'item.price < "50"'}, "cannot be compared"),
        ({"filter": "item.country == user.county"}, "expected an attribute of some user"),
        ({"filter": "item.price < last.prise"}, "nearest: price"),
        ({"boost": "item.prise < 5^2"}, "nearest: price"),
        ({"boost": "item.price < 5"}, "expected CONDITION^FACTOR"),
        ({"filter": "(" * 1_999}, "expected a value"),
        ({"filter": "(" * 3_000}, "at most"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(stocked, given, said):
    answer = stocked.call("GET", URL, query_string=given, status=422).get_json()
    assert answer["errors"][0]["field"].startswith(next(iter(given)))
    assert said in str(answer["errors"])


def test_trending_and_bought_together(stocked):
    events = [
        {"user_id": f"u{basket}", "item_id": item, "event_type": kind, "session_id": f"s{basket}"}
        for basket, items in enumerate(["012", "01", "01", "34", "0"])
        for item, kind in ((f"i{number}", "purchase" if basket else "cart") for number in items)
    ]
    events += [{"user_id": "u3", "item_id": "i5", "event_type": "view"}]
    stocked.call("POST", "/events", json=events, scope="write")
    path = "/items/bought-together"
    found = stocked.post(path, {"items": ["i0"]}, scope="read")["items"]
    assert [(one["item_id"], one["source"]) for one in found] == [
        ("i1", "bought_together"),
        ("i2", "bought_together"),
    ]
    assert ids(stocked.post(path, {"items": ["i1", "i3"], "k": 2})) == {"i0", "i4"}
    stocked.call("PATCH", "/items/i1", json={"available": False}, scope="write")
    page = {"headers": {"Origin": "https://shop.example"}, "scope": "collect"}
    assert ids(stocked.post(path, {"items": ["i0"]}, **page)) == {"i2"}
    stocked.call("POST", path, json={"items": ["nowhere"]}, status=404)
    stocked.call("POST", path, json={"items": ["nowhere"]}, status=404, **page)
    for body in ({"items": []}, {"items": ["i0"] * 101}, {"items": ["i0"], "kk": 1}, {}):
        stocked.call("POST", path, json=body, status=422)
    first = stocked.get("/items/trending?hours=1&k=2", scope="read")["items"][0]
    assert (first["item_id"], first["score"], first["source"]) == ("i0", 4.0, "trending")
    for query in ("hours=0", "hours=721", "hours=x", "days=1"):
        stocked.call("GET", f"/items/trending?{query}", status=422)
