"""What a front end relies on beyond a plain answer."""

import json
import threading
import time
from collections import Counter

import pytest

from recsys import pipeline
from recsys.events.fields import Event
from recsys.events.identity import Owner
from recsys.ops import upkeep
from recsys.serving.active_model import in_control
from recsys.storage.entities import event_rows, history_rows, item_rows, key_values


def items(answer) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def services(service):
    return service.app.extensions["recsys"]


def view(service, user, *names, **more):
    rows = [{"user_id": user, "item_id": name, **more} for name in names]
    assert service.post("/events", rows)["rejected"] == 0


def test_filters_boosts_and_caps(service, tiny_shop):
    view(service, "u", "P0001", "P0002")
    catalogue = {item.item_id: item for item in tiny_shop.shop.items}
    url = "/users/u/recommendations"
    plain = service.get(url)
    prices = sorted(item.price for item in catalogue.values())
    middle = prices[len(prices) // 2]
    cheap = service.get(f"{url}?filter=price<{middle}")
    assert len(cheap["items"]) == 20
    assert all(catalogue[name].price < middle for name in items(cheap))
    kept = [name for name in items(plain) if catalogue[name].price < middle]
    assert items(cheap)[: len(kept)] == kept
    category = catalogue[items(plain)[0]].categories[0]
    both = service.get(url, query_string={"filter": [f"price<{middle}", f"category={category}"]})
    for name in items(both):
        assert catalogue[name].price < middle and category in catalogue[name].categories

    last = items(plain)[-1]
    boosted = service.get(url, query_string={"boost": f"item_id={last}^500"})
    assert items(boosted)[0] == last
    sunk = service.get(url, query_string={"boost": f"item_id={items(plain)[0]}^0"})
    assert items(sunk)[0] == items(plain)[1]

    capped = service.get(f"{url}?max_per_category=1")
    counts = Counter(c for name in items(capped) for c in catalogue[name].categories)
    assert max(counts.values()) == 1
    for name, value in (("filter", "price"), ("boost", "price<3"), ("boost", "price<3^-1")):
        problem = service.call("GET", url, status=422, query_string={name: value}).get_json()
        assert problem["errors"][0]["field"] == name


def test_what_is_not_available_is_gone_at_once(service):
    view(service, "u", "P0001", "P0002")
    url = "/users/u/recommendations?k=10"
    first = items(service.get(url))[0]
    service.call("PATCH", f"/items/{first}", json={"available": False})
    assert first not in items(service.get(url))
    service.call("PATCH", f"/items/{first}", json={"available": True})
    assert items(service.get(url))[0] == first


def test_pages_never_repeat_an_item_even_after_a_click(service):
    view(service, "u", "P0001")
    page = service.get("/users/u/recommendations?k=7")
    seen = items(page)
    for number in range(1, 5):
        view(service, "u", f"P00{number + 10}")
        page = service.get(f"/users/u/recommendations?k=7&page_of={page['recommendation_id']}")
        assert [item["rank"] for item in page["items"]] == list(
            range(7 * number + 1, 7 * number + 8)
        )
        seen += items(page)
    assert len(seen) == len(set(seen)) == 35
    service.call("GET", "/users/u/recommendations?page_of=unknown", status=404)


def test_a_batch_answers_each_as_by_itself(service):
    view(service, "u", "P0001")
    view(service, "w", "P0005", "P0006")
    asked = [
        {"user_id": "u", "k": 5},
        {"user_id": "w", "k": 3, "filter": ["price>1"]},
        {"events": [{"item_id": "P0003"}], "k": 4},
    ]
    batch = service.post("/recommendations/batch", {"requests": asked})["answers"]
    for body, answer in zip(asked, batch, strict=True):
        assert items(answer) == items(service.post("/recommendations", body))
    service.post("/recommendations/batch", {"requests": []}, status=422)
    service.post("/recommendations/batch", {"requests": [{}] * 101}, status=422)


def test_cold_unknown_and_new_items_are_answered_and_say_so(service):
    cold = service.get("/users/nobody/recommendations?k=5")
    assert {item["source"] for item in cold["items"]} <= {"popular", "latest"}
    view(service, "x", "never-heard-of")
    assert len(service.get("/users/x/recommendations?k=5")["items"]) == 5
    service.call(
        "PUT", "/items", json=[{"item_id": "brand-new", "categories": ["novelties"], "price": 3}]
    )
    view(service, "y", "brand-new")
    only = service.get("/users/z/recommendations?k=5&categories=novelties")
    assert items(only) == ["brand-new"]
    assert service.get("/items/brand-new/similar")["items"] == []
    service.call("PUT", "/items", json={"item_id": "newer-still", "categories": ["novelties"]})
    alike = service.get("/items/newer-still/similar")["items"]
    assert [item["item_id"] for item in alike] == ["brand-new"]
    service.call("GET", "/items/never-heard-of/similar", status=404)
    exposed = service.client.get("/metrics").get_data(as_text=True)
    assert 'recsys_fallbacks_total{reason="no_history"}' in exposed
    assert 'recsys_fallbacks_total{reason="unknown_items"}' in exposed


def test_an_item_newer_than_the_model_is_reached_before_the_next_training(service):
    for number in range(6):
        view(service, f"visitor{number}", "P0001", "fresh-item", "P0009")
    settings = services(service).settings
    before = service.get("/users/visitor0/recommendations")
    assert before["items"]
    made = upkeep.refresh_followers(settings, service.database, lambda line: None)
    assert made == 2  # P0001 -> fresh-item -> P0009
    view(service, "u", "P0001")
    answer = service.get("/users/u/recommendations?k=10")
    found = {item["item_id"]: item for item in answer["items"]}
    assert found["fresh-item"]["source"] == "transitions"
    assert len(found) == 10
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    view(service, "w", "fresh-item")  # nothing else is known of this user
    assert "P0009" in items(service.get("/users/w/recommendations?k=3"))
    service.call("PUT", "/items", json={"item_id": "fresh-item", "available": False})
    assert "fresh-item" not in items(service.get("/users/u/recommendations?k=10"))
    with service.database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM events")
    assert upkeep.refresh_followers(settings, service.database, lambda line: None) == 0
    assert items(service.get("/users/w/recommendations?k=3")) != ["P0009"]


def test_an_anonymous_session_becomes_a_users(service):
    service.post("/events", [{"session_id": "s1", "item_id": n} for n in ("P0001", "P0002")])
    service.post("/events", {"session_id": "s1", "user_id": "other", "item_id": "P0009"})
    view(service, "u", "P0003")
    merged = service.post("/users/u/merge", {"session_id": "s1"})
    assert merged == {"user_id": "u", "merged": "s1"}
    explicit = [{"item_id": n} for n in ("P0001", "P0002", "P0003")]
    wanted = service.post("/recommendations", {"events": explicit, "k": 8})
    found = service.get("/users/u/recommendations?k=8")
    assert found["sequence_length"] == 3
    assert set(items(found)) & set(items(wanted))
    assert service.get("/users/u")["events"] == 3
    assert service.get("/users/u")["merged_sessions"] == ["s1"]
    page = service.get("/users/u/events?limit=2")
    rest = service.get(f"/users/u/events?limit=2&cursor={page['next_cursor']}")
    assert [e["item_id"] for e in page["events"] + rest["events"]] == ["P0003", "P0002", "P0001"]


def test_merging_follows_where_a_user_went_and_makes_no_circle(service):
    for user in ("a", "b", "c"):
        view(service, user, "P0001")
    assert service.post("/users/b/merge", {"from": "a"})["user_id"] == "b"
    assert service.post("/users/c/merge", {"from": "b"})["user_id"] == "c"
    assert service.get("/users/c/recommendations")["sequence_length"] == 3
    assert service.post("/users/a/merge", {"from": "d"})["user_id"] == "c"
    service.post("/users/a/merge", {"from": "c"}, status=409)
    service.post("/users/a/merge", {"from": "c", "session_id": "s"}, status=422)
    service.post("/users/a/merge", {}, status=422)


def test_erasure_takes_everything_and_nothing_brings_it_back(service, tmp_path):
    view(service, "u/1", "P0001", "P0002", event_id="e1")
    view(service, "neighbour", "P0001")
    service.post("/events", {"session_id": "s9", "item_id": "P0004"})
    service.post("/users/u%2F1/merge", {"session_id": "s9"})
    answer = service.get("/users/u%2F1/recommendations")
    service.get(f"/recommendations/{answer['recommendation_id']}")
    log = tmp_path / "log.csv"
    lines = ["u,i,t", "u/1,P0005,1600000000", "u/1,,1600000000", "neighbour,P0007,1600000000"]
    log.write_text("\n".join([*lines, "neighbour,u/1,soon"]))

    def load():
        from datetime import UTC, datetime

        from recsys.ingest.event_files import ColumnMap, ReadOptions

        columns = ColumnMap.parse("user=u,item=i,timestamp=t")
        options = ReadOptions(columns=columns, unit="s")
        return pipeline.import_events(service.database, log, options, datetime.now(UTC))

    assert load().rejected == 2
    receipt = service.call("DELETE", "/users/u%2F1").get_json()
    assert receipt["removed"] == {
        "events": 3,
        "impressions": 1,
        "aliases": 1,
        "attributes": 0,
        "quarantine": 1,
        "quality_reports": 0,
        "experiments": 0,
    }
    assert (receipt["merged_users"], receipt["merged_sessions"]) == ([], ["s9"])
    notes = {"kNN index", "exports", "trained weights", "caches", "sequence files", "backups"}
    assert notes | {"logs", "audit log", "counts"} <= set(receipt["notes"])
    service.call("GET", "/users/u%2F1", status=404)
    assert service.get("/users/u%2F1/recommendations")["sequence_length"] == 0
    service.call("GET", f"/recommendations/{answer['recommendation_id']}", status=404)
    retried = service.post("/events", {"user_id": "u/1", "item_id": "P0001"}, status=422)
    assert "erased" in retried["results"][0]["error"]
    service.post("/events", {"session_id": "s9", "item_id": "P0001"}, status=422)
    again = load()
    assert (again.accepted, again.duplicates, again.rejected) == (0, 1, 1)
    with service.database.connect() as connection:
        assert history_rows.history(connection, Owner("u/1")).events == []
        assert len(history_rows.history(connection, Owner("neighbour")).events) == 2
        (left,) = connection.exec_driver_sql("SELECT raw FROM rejected_events").all()
    assert json.loads(left.raw) == {"u": "neighbour", "i": "u/1", "t": "soon"}  # a neighbour's row
    service.post("/users/other/merge", {"from": "u/1"}, status=409)


def test_clicks_keep_their_order_when_the_clock_is_set_back(bare, monkeypatch):
    wall = time.time_ns
    view(bare, "u", "P0001", event_id="before")
    monkeypatch.setattr("recsys.web.services._clock._wall_ns", lambda: wall() - 3_600 * 10**9)
    view(bare, "u", "P0002", event_id="after")
    assert bare.get("/users/u/recommendations")["last_event_id"] == "after"


def test_a_share_of_users_keeps_the_earlier_champion(
    database, tmp_path, tiny_shop, publish, Service, settings_for
):
    publish(tiny_shop, database, tmp_path / "models")
    newer = publish(tiny_shop, database, tmp_path / "models", "20990101-000000-aaaaaa")
    service = Service(database, settings_for(tmp_path / "models", control_share=0.5))
    seen = Counter()
    key = bytes.fromhex(key_values.arm_key(database))
    for number in range(40):
        user = f"u{number}"
        answer = service.get(f"/users/{user}/recommendations?k=2")
        arm = "control" if in_control(user, 0.5, key) else "champion"
        assert answer["arm"] == arm
        assert answer["model_version"] == (newer if arm == "champion" else tiny_shop.bundle.version)
        seen[arm] += 1
    assert min(seen.values()) > 5
    services(service).impressions.flush()
    report = service.get("/reports/click-through")
    assert {row["arm"]: row["shown"] for row in report["rows"]} == dict(seen)
    assert report["uplift"]["hours"] == 1
    assert report["uplift"]["low"] <= report["uplift"]["difference"] <= report["uplift"]["high"]
    service.close()


def test_promote_and_roll_back(service, tiny_shop, publish, tmp_path):
    old = tiny_shop.bundle.version
    newer = publish(tiny_shop, service.database, tmp_path / "models", "20990101-000000-aaaaaa")
    assert service.post("/models/rollback", {}) == {"champion": old}
    assert service.post(f"/models/{newer}/promote", {"reason": "test"}) == {"champion": newer}
    service.post("/models/nope/promote", {}, status=404)
    service.post(f"/models/{newer}/promote", {}, scope="write", status=403)
    service.post("/models/rollback", {}, scope="read", status=403)


def test_a_follower_loads_and_requests_never_wait(service, tiny_shop, publish, tmp_path):
    recommender = services(service).recommender
    service.get("/users/u/recommendations")
    stop = threading.Event()
    thread = threading.Thread(target=recommender.active.follow, args=(recommender.deployed, stop))
    thread.start()
    newer = publish(tiny_shop, service.database, tmp_path / "models", "20990101-000000-aaaaaa")
    try:
        end = time.monotonic() + 10
        while service.get("/users/u/recommendations")["model_version"] != newer:
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        stop.set()
        thread.join()


def test_metrics_know_routes_versions_and_events(service, tiny_shop):
    view(service, "u", "P0001", event_type="view")
    source = service.get("/users/u/recommendations")["items"][0]["source"]
    text = service.client.get("/metrics").get_data(as_text=True)
    route = 'route="/api/v1/users/<id:user_id>/recommendations"'
    assert f'recsys_requests_total{{method="GET",{route},status="200"}}' in text
    assert f"recsys_request_seconds_count{{{route}}}" in text
    assert f'recsys_recommended_items_total{{source="{source}"}}' in text
    assert 'recsys_events_total{outcome="accepted"}' in text
    assert 'recsys_ingestion_lag_seconds_count{event_type="view"}' in text
    assert f'version="{tiny_shop.bundle.version}"' in text
    service.client.open("/nowhere", method="BREW")
    assert "BREW" not in service.client.get("/metrics").get_data(as_text=True)


@pytest.mark.parametrize("limit", [2, 5])
def test_seen_items_beyond_the_history_that_is_read_stay_out(service, monkeypatch, limit):
    monkeypatch.setattr("recsys.serving.history.EXTRA_HISTORY", limit)
    recommender = services(service).recommender
    length = recommender.bundle().max_length
    with service.database.begin() as connection:
        bought = Event("u", None, "P0001", "purchase", 1, "e0", None, None, None)
        views = [
            Event("u", None, f"P{n % 5 + 10:04d}", "view", 2 + n, f"v{n}", None, None, None)
            for n in range(length + limit)
        ]
        event_rows.insert_events(connection, [bought, *views], 1)
        item_rows.unavailable_items(connection)
    assert "P0001" not in items(service.get("/users/u/recommendations?k=1000"))
    shown = service.get("/users/u/recommendations?k=1000&exclude_seen=none")
    assert "P0001" in items(shown)
