"""REST through the real application, on both databases."""

from urllib.parse import quote

import pytest

from recsys.ingest.item_body import check_item
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows

ODD_IDS = [
    "a/b",
    "100%",
    "a b",
    "😀",
    "שלום",
    "?x=1&y",
    "..",
    "a" * 256,
    "é" * 256,
    "recommendations",
]

# Components of the served blend, as sources of items.
RANKED = {"lstm", "copy", "transitions", "sequential_rules", "session_knn", "trending"}


def recommended(answer) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def test_the_answer_follows_the_click_of_a_moment_ago(service, tiny_shop):
    ids = tiny_shop.bundle.vocabulary.item_ids
    service.post("/events", {"user_id": "u", "item_id": ids[0]})
    first = service.get("/users/u/recommendations?k=5", scope="read")
    posted = service.post("/events", {"user_id": "u", "item_id": ids[7]})
    second = service.get("/users/u/recommendations?k=5", scope="read")
    assert second["last_event_id"] == posted["results"][0]["event_id"]
    assert (first["sequence_length"], second["sequence_length"]) == (1, 2)
    assert recommended(first) != recommended(second)
    assert second["model_version"] == tiny_shop.bundle.version
    assert second["degraded"] is None
    assert [item["rank"] for item in second["items"]] == [1, 2, 3, 4, 5]
    assert {item["source"] for item in second["items"]} <= RANKED
    assert all(item["item"]["title"] for item in second["items"])
    scores = [item["score"] for item in second["items"]]
    assert scores == sorted(scores, reverse=True)


def test_a_stored_history_and_the_same_sequence_in_the_body_agree(service, tiny_shop):
    ids = tiny_shop.bundle.vocabulary.item_ids
    times = ["2025-02-01T10:00:00Z", "2025-02-01T10:01:00Z", "2025-02-01T10:05:00Z"]
    rows = [{"item_id": ids[n], "timestamp": t} for n, t in zip((3, 9, 4), times, strict=True)]
    service.post("/events", [{**row, "session_id": "s1"} for row in rows])
    stored = service.post("/recommendations", {"session_id": "s1", "k": 10})
    given = service.post("/recommendations", {"events": rows, "k": 10})
    half = service.post("/recommendations", {"session_id": "s1", "events": [], "k": 10})
    assert recommended(stored) == recommended(given) == recommended(half)
    assert stored["sequence_length"] == given["sequence_length"] == 3
    rows[0], rows[1] = {**rows[1], "timestamp": times[0]}, {**rows[0], "timestamp": times[1]}
    swapped = service.post("/recommendations", {"events": rows, "k": 10})
    assert [i["score"] for i in swapped["items"]] != [i["score"] for i in given["items"]]


def test_filters(service, tiny_shop):
    ids = tiny_shop.bundle.vocabulary.item_ids
    service.post("/events", {"user_id": "u", "item_id": ids[0]})
    service.post("/events", {"user_id": "u", "item_id": ids[1], "event_type": "purchase"})
    plain = recommended(service.get("/users/u/recommendations?k=60"))
    assert ids[1] not in plain
    assert ids[1] in recommended(service.get("/users/u/recommendations?k=60&exclude_seen=none"))
    seen = recommended(service.get("/users/u/recommendations?k=60&exclude_seen=all"))
    assert not {ids[0], ids[1]} & set(seen)
    service.post("/events", {"user_id": "u", "item_id": ids[2], "event_type": "cart"})
    url = "/users/u/recommendations?k=60&exclude_seen="
    one, both = (recommended(service.get(url + types)) for types in ("purchase", "purchase,cart"))
    assert ids[2] in one and ids[1] not in one
    assert ids[0] in both and not {ids[1], ids[2]} & set(both)
    body = {"user_id": "u", "k": 60, "exclude_seen": "cart, purchase"}
    assert recommended(service.post("/recommendations", body)) == both
    without = recommended(service.get(f"/users/u/recommendations?k=60&exclude_items={plain[0]}"))
    assert plain[0] not in without
    category = service.get(f"/items/{plain[0]}")["categories"][1]
    within = service.get(f"/users/u/recommendations?k=60&categories={quote(category)}")["items"]
    assert within
    assert all(category in item["item"]["categories"] for item in within)
    body = {"events": [{"item_id": ids[0]}], "candidates": [ids[5], "new-item"], "k": 10}
    assert recommended(service.post("/recommendations", body)) == [ids[5], "new-item"]


def test_words_that_mean_nothing_are_refused_and_the_known_ones_named(service, tiny_shop):
    ids = tiny_shop.bundle.vocabulary.item_ids
    service.post("/events", {"user_id": "u", "item_id": ids[1], "event_type": "purchase"})
    service.post("/events", {"user_id": "u", "item_id": ids[2], "event_type": "transaction"})
    service.call(
        "PUT", "/items", json={"item_id": ids[3], "price": 9, "properties": {"hue": "red"}}
    )
    url = "/users/u/recommendations?k=60"
    default = recommended(service.get(url))
    assert not {ids[1], ids[2]} & set(default)  # the log's own word for buying
    assert recommended(service.get(f"{url}&exclude_seen=true")) == default
    assert ids[1] in recommended(service.get(f"{url}&exclude_seen=false"))
    for asked, field, said in (
        ("exclude_seen=Purchase", "exclude_seen", "nearest: purchase"),
        ("exclude_seen=purchse", "exclude_seen", "nearest: purchase"),
        ("exclude_seen=purchase,veiw", "exclude_seen", "nearest: view"),
        ("filter=price<<10", "filter", "one operator"),
        ("filter=price<50,00", "filter", "a point before its decimals"),
        ("filter=price<€50", "filter", "expected a number"),
        ("filter=price=cheap", "filter", "expected a number"),
        ("filter=available=yes", "filter", "available=true or available=false"),
        ("filter=title>5", "filter", "has no order"),
        ("filter=prise<5", "filter", "nearest: price"),
        ("filter=heu=red", "filter", "nearest: hue"),
        ("boost=heu=red^2", "boost", "nearest: hue"),
        ("categories=no such", "categories", "expected a category of some item"),
        ("colour=red", "colour", ""),
    ):
        path = f"{url}&{asked.replace('€', '%E2%82%AC').replace(' ', '%20')}"
        problem = service.call("GET", path, status=422).get_json()
        (error,) = problem["errors"]
        assert (error["field"], said in error["message"]) == (field, True), problem
    assert recommended(service.get(f"{url}&filter=hue=red")) == [ids[3]]
    note = service.get(f"{url}&exclude_seen=purchase,sale")["degraded"]
    assert note == "exclude_seen: no event is of type sale yet"


def test_an_item_taken_out_vanishes_at_once(service, tiny_shop):
    ids = tiny_shop.bundle.vocabulary.item_ids
    body = {"events": [{"item_id": ids[0]}], "k": 5}
    first = recommended(service.post("/recommendations", body))[0]
    changed = service.call("PATCH", f"/items/{first}", json={"available": False}).get_json()
    assert changed["available"] is False
    assert first not in recommended(service.post("/recommendations", body))
    assert first not in recommended(service.get("/items/popular?window=3650"))
    service.call("PATCH", f"/items/{first}", json={"available": True})
    assert first in recommended(service.post("/recommendations", body))
    service.call("DELETE", f"/items/{first}")
    service.call("GET", f"/items/{first}", status=404)
    assert first not in recommended(service.post("/recommendations", body))
    service.call("PUT", "/items", json={"item_id": first})
    assert first in recommended(service.post("/recommendations", body))


def test_cold_users_and_unknown_items_get_popular_items(service):
    service.post("/events", [{"user_id": f"u{n}", "item_id": "hot"} for n in range(3)])
    cold = service.get("/users/nobody/recommendations?k=3")
    assert cold["sequence_length"] == 0
    assert cold["last_event_id"] is None
    assert (cold["items"][0]["item_id"], cold["items"][0]["source"]) == ("hot", "popular")
    assert len(cold["items"]) == 3
    unknown = service.post("/recommendations", {"events": [{"item_id": "never seen"}], "k": 2})
    assert {item["source"] for item in unknown["items"]} == {"popular"}


@pytest.mark.parametrize("most", [2_000, 10])  # of the newest items, whatever they are
def test_items_of_a_category_are_found_among_many_newer_ones(bare, monkeypatch, most):
    monkeypatch.setattr("recsys.serving.candidates.LONGEST", most)
    for added, (name, number) in enumerate((("rare", 3), ("common", 300)), 1):
        given = [
            check_item({"item_id": f"{name}{n}", "categories": [name], "price": added})
            for n in range(number)
        ]
        with bare.database.begin() as connection:
            item_rows.put_items(connection, given, added)
    url = "/users/nobody/recommendations?k=5"
    for asked in ("categories=rare", "filter=price<2"):
        answer = bare.get(f"{url}&{asked}")
        assert {item["item_id"] for item in answer["items"]} == {"rare0", "rare1", "rare2"}
    capped = bare.get(f"{url}&max_per_category=1")
    assert len(capped["items"]) == (2 if most > 300 else 1)


def test_no_model_yet_is_a_popular_answer_that_says_so(bare):
    bare.post("/events", [{"user_id": "u", "item_id": "a"}, {"user_id": "v", "item_id": "a"}])
    answer = bare.get("/users/u/recommendations")
    assert answer["model_version"] is None
    assert "no model" in answer["degraded"]
    assert answer["items"][0] | {"item": None} == {
        "item_id": "a",
        "rank": 1,
        "score": 2.0,
        "source": "popular",
        "item": None,
        "reason": None,
    }


def test_explain_names_the_past_events_behind_each_item(service, tiny_shop):
    ids = tiny_shop.bundle.vocabulary.item_ids
    for number, item in enumerate(ids[:3]):
        service.post("/events", {"user_id": "why", "item_id": item, "event_id": f"e{number}"})
    plain = service.get("/users/why/recommendations?k=5")
    assert all(item["reason"] is None for item in plain["items"])
    told = service.get("/users/why/recommendations?k=5&explain=true")
    assert recommended(told) == recommended(plain)
    own = [item for item in told["items"] if item["source"] in RANKED]
    assert own
    assert any(item["reason"] for item in own)
    for item in own:
        for reason in item["reason"]:
            number = int(reason["event_id"][1:])
            assert reason["item_id"] == ids[number]
            assert 0 < reason["share"] <= 1
        shares = [reason["share"] for reason in item["reason"]]
        assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(
    "query",
    [
        *("k=0", "k=1001", "k=1000000000", "k=x", "k=1&k=2", "colour=red", "exclude_seen="),
        *("exclude_seen=cart,", "exclude_seen=all,cart", "exclude_seen=cart,none"),
        *(f"exclude_seen={'x' * 65}", f"exclude_seen={'a,' * 16}b", "exclude_seen=a%00b"),
    ],
)
def test_bad_queries_name_the_field(service, query):
    problem = service.call("GET", f"/users/u/recommendations?{query}", status=422).get_json()
    assert problem["errors"][0]["field"] == query.partition("=")[0]


@pytest.mark.parametrize("odd", ODD_IDS)
def test_ids_of_any_kind_round_trip(service, odd):
    service.post("/events", {"user_id": odd, "item_id": odd})
    inside = quote(odd, safe="")
    if odd != "..":  # clients fold dots away before they send
        assert service.get(f"/users/{inside}/recommendations")["user_id"] == odd
        service.call("PUT", "/items", json={"item_id": odd, "title": "odd"})
        assert service.get(f"/items/{inside}")["item_id"] == odd
        assert service.call("DELETE", f"/items/{inside}").get_json()["item_id"] == odd
        service.call("GET", f"/items/{inside}", status=404)
    by_query = service.get(f"/users/recommendations?user_id={inside}")
    assert (by_query["user_id"], by_query["sequence_length"]) == (odd, 1)
    service.call("PUT", "/items", json={"item_id": odd, "title": "odd"})
    item = f"/items?item_id={inside}"
    changed = service.call("PATCH", item, json={"title": "changed"}).get_json()
    assert (changed["item_id"], changed["title"]) == (odd, "changed")
    assert service.call("DELETE", item).get_json()["title"] == "changed"
    service.call("DELETE", item, status=404)
    service.call("PATCH", item, json={"title": "gone"}, status=404)
    merged = service.post(f"/users/merge?user_id={inside}", {"session_id": "visit"})
    assert merged == {"user_id": odd, "merged": "visit"}
    assert service.get(f"/users?user_id={inside}")["merged_sessions"] == ["visit"]


@pytest.mark.parametrize("bad", ["%00", "a%0Ab", "x" * 257])
def test_ids_that_cannot_be_are_refused(service, bad):
    service.call("GET", f"/users/{bad}/recommendations", status=422)
    service.call("GET", f"/users/recommendations?user_id={bad}", status=422)


def test_an_address_that_is_no_text_is_refused(service):
    service.call("GET", "/users/%ED%A0%80/recommendations", status=400)


def test_items_are_put_in_bulk_searched_and_paged(bare):
    rows = [{"item_id": f"i{n}", "title": f"Tea {n}", "categories": ["tea"]} for n in range(5)]
    answer = bare.call("PUT", "/items", json=[*rows, {"item_id": "x", "price": -1}]).get_json()
    assert (answer["stored"], answer["rejected"]) == (5, 1)
    assert "price" in answer["results"][5]["error"]
    seen, cursor = [], None
    while True:
        more = f"&cursor={cursor}" if cursor else ""
        page = bare.get(f"/items?category=tea&q=TEA&limit=2{more}")
        seen += [item["item_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["i0", "i1", "i2", "i3", "i4"]
    bare.call("GET", "/items?cursor=tampered!", status=422)
    bare.call("PATCH", "/items/nothing", json={"available": True}, status=404)


def test_similar_and_next(service, tiny_shop):
    item = tiny_shop.bundle.vocabulary.item_ids[0]
    for what in ("similar", "next"):
        by_path = service.get(f"/items/{item}/{what}?k=3")
        assert by_path == service.get(f"/items/{what}?item_id={item}&k=3")
        assert 1 <= len(by_path["items"]) <= 3
        assert item not in recommended(by_path)
        service.call("GET", f"/items/nothing/{what}", status=404)


def test_a_damaged_model_is_refused_and_the_old_one_serves(service, tiny_shop, publish, tmp_path):
    service.get("/users/u/recommendations")
    newer = publish(tiny_shop, service.database, tmp_path / "models", "20990101-000000-aaaaaa")
    weights = tmp_path / "models" / newer / "network.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    service.app.extensions["recsys"].recommender.active._next_look = 0.0
    answer = service.get("/users/u/recommendations")
    assert answer["model_version"] == tiny_shop.bundle.version
    ready = service.client.get("/health/ready").get_json()
    assert newer in ready["checks"]["model"]


def test_promotion_reaches_a_running_service(service, tiny_shop, publish, tmp_path):
    service.get("/users/u/recommendations")
    newer = publish(tiny_shop, service.database, tmp_path / "models", "20990101-000000-aaaaaa")
    service.app.extensions["recsys"].recommender.active._next_look = 0.0
    assert service.get("/users/u/recommendations")["model_version"] == newer


def test_a_lost_database_degrades_reads_and_refuses_writes(
    tmp_path, tiny_shop, publish, Service, settings_for
):
    from recsys.storage.schema import migrate

    database = Database(f"sqlite:///{tmp_path}/gone/x.db", busy_timeout_seconds=0.1)
    migrate.upgrade(database)
    publish(tiny_shop, database, tmp_path / "models")
    made = Service(database, settings_for(tmp_path / "models"))
    client = made.client
    client.environ_base["HTTP_X_API_KEY"] = made.keys["admin"]
    item = tiny_shop.bundle.vocabulary.item_ids[0]
    body = {"events": [{"item_id": item}], "k": 3}
    before = client.post("/api/v1/recommendations", json=body).get_json()
    database.close()
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    after = client.post("/api/v1/recommendations", json=body)
    assert after.status_code == 200
    assert recommended(after.get_json()) == recommended(before)
    assert "database" in after.get_json()["degraded"]
    refused = client.post("/api/v1/events", json={"user_id": "u", "item_id": "a"})
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert str(tmp_path) not in refused.get_data(as_text=True)
    assert client.get("/health/ready").status_code == 503
    stranger = client.post("/api/v1/recommendations", json=body, headers={"X-API-Key": "rk_x"})
    assert stranger.status_code == 503  # who was not known before cannot be let in now
    made.close()


def test_a_server_that_takes_no_writes_answers_reads_and_refuses_writes(service, read_only):
    with read_only(service.database):
        refused = service.call("POST", "/events", json={"user_id": "u", "item_id": "a"}, status=503)
        assert int(refused.headers["Retry-After"]) > 0
        assert recommended(service.get("/users/u/recommendations"))
    service.post("/events", {"user_id": "u", "item_id": "a"})
