"""What a front end relies on beyond a plain answer."""

import json
import threading
import time
from collections import Counter
from contextlib import closing

import pytest

from recsys import pipeline
from recsys.events.fields import Event
from recsys.events.identity import Owner
from recsys.ops import upkeep
from recsys.serving.active_model import in_control
from recsys.serving.answers import Request
from recsys.storage.entities import event_rows, history_rows, item_rows, key_values
from recsys.web.services import now_us

PAGE = {"Origin": "https://shop.example"}


def items(answer) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def services(service):
    return service.app.extensions["recsys"]


def view(service, user, *names, **more):
    rows = [{"user_id": user, "item_id": name, **more} for name in names]
    assert service.post("/events", rows)["rejected"] == 0


# --- what may be shown ------------------------------------------------------------------------


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


# --- the chain --------------------------------------------------------------------------------


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
    assert "lstm" in {item["source"] for item in answer["items"]}
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    view(service, "w", "fresh-item")  # nothing else is known of this user
    assert items(service.get("/users/w/recommendations?k=3"))[0] == "P0009"
    service.call("PUT", "/items", json={"item_id": "fresh-item", "available": False})
    assert "fresh-item" not in items(service.get("/users/u/recommendations?k=10"))
    with service.database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM events")
    assert upkeep.refresh_followers(settings, service.database, lambda line: None) == 0
    assert items(service.get("/users/w/recommendations?k=3")) != ["P0009"]


# --- users ------------------------------------------------------------------------------------


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
        "profiles": 0,
        "quarantine": 1,
        "quality_reports": 0,
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


# --- keys for pages ---------------------------------------------------------------------------


def test_a_page_cannot_take_an_id_that_the_server_will_use(service):
    page = {"scope": "collect", "headers": PAGE}
    mine = {"session_id": "abc", "item_id": "P0001", "event_id": "order-7"}
    first = service.post("/events", mine, **page)
    assert first["results"][0] == {**first["results"][0], "status": "accepted"} | {
        "event_id": "order-7"
    }
    again = service.post("/events", [mine, mine], **page)
    assert [one["status"] for one in again["results"]] == ["duplicate", "duplicate"]
    assert {one["event_id"] for one in again["results"]} == {"order-7"}
    asked = {"session_id": "abc", "events": [{"item_id": "P0001", "event_id": "order-7"}]}
    answer = service.post("/recommendations", asked, **page)
    assert (answer["sequence_length"], answer["last_event_id"]) == (1, "order-7")
    server = service.post("/events", {**mine, "item_id": "P0002"})
    assert (server["accepted"], server["results"][0]["event_id"]) == (1, "order-7")
    service.post("/events", {**mine, "event_id": "from-page:order-7"}, status=422)
    unnamed = service.post("/events", {"session_id": "abc", "item_id": "P0003"}, **page)
    given = unnamed["results"][0]["event_id"]
    retried = {"session_id": "abc", "item_id": "P0003", "event_id": given}
    assert service.post("/events", retried, **page)["duplicates"] == 1


def test_a_page_that_closes_sends_a_beacon(service):
    for key, status in (("collect", 200), ("write", 403), ("admin", 403)):
        answer = service.client.post(
            f"/api/v1/events?api_key={service.keys[key]}",
            data='{"session_id": "abc", "item_id": "P0001"}',
            content_type="text/plain;charset=UTF-8",
            headers=PAGE,
        )
        assert answer.status_code == status, answer.get_data()
    plain = {"data": "{}", "content_type": "text/plain"}
    service.call("POST", "/events", status=415, **plain)
    service.call("GET", "/items?api_key=x", status=422)


def test_a_page_may_collect_and_ask_for_its_session_alone(service):
    page = {"scope": "collect", "headers": PAGE}
    posted = {"session_id": "abc", "item_id": "P0001"}
    answer = service.call("POST", "/events", json=posted, **page)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert answer.headers["Access-Control-Expose-Headers"] == "Retry-After, X-Request-ID"
    own = service.post("/recommendations", {"session_id": "abc", "k": 3}, **page)
    assert own["sequence_length"] == 1
    for method, path, body in [
        ("POST", "/events", {"user_id": "u", "session_id": "abc", "item_id": "P0001"}),
        ("POST", "/events", [posted, {**posted, "session_id": "other"}]),
        ("POST", "/events", [posted, {**posted, "session_id": 7}]),
        ("POST", "/recommendations", {"user_id": "u"}),
        ("POST", "/recommendations", {"events": [{"item_id": "P0001"}]}),
        ("POST", "/recommendations", {"session_id": "abc", "explain": True}),
        ("POST", "/recommendations", {"session_id": "abc", "filter": ["price<5"]}),
        ("POST", "/recommendations", {"session_id": "abc", "boost": ["price<5^2"]}),
        ("POST", "/recommendations/batch", {"requests": [{"session_id": "abc"}]}),
        ("GET", "/users/u/recommendations", None),
        ("GET", "/users/u/events", None),
        ("PUT", "/items", {"item_id": "x"}),
        ("POST", "/users/u/merge", {"session_id": "abc"}),
        ("DELETE", "/users/u", None),
    ]:
        service.call(method, path, status=403, json=body, **page)
    odd = [{"session_id": given, "item_id": "P0001"} for given in ([1], {"a": 1}, 7.5)]
    mixed = service.post("/events", [posted, *odd], **page)
    assert [one["status"] for one in mixed["results"]] == ["accepted"] + ["rejected"] * 3
    assert all("session_id" in one["error"] for one in mixed["results"][1:])
    nul = {"session_id": "abc", "scenario": "a\0"}
    refused = service.call("POST", "/recommendations", json=nul, status=422, **page).get_json()
    assert refused["errors"] == [
        {"field": "scenario", "message": "Value error, holds a control character"}
    ]
    for headers in ({}, {"Origin": "https://elsewhere.example"}):
        refused = service.call(
            "POST", "/events", json=posted, scope="collect", headers=headers, status=403
        )
        assert "Access-Control-Allow-Origin" not in refused.headers
    asked = {"Access-Control-Request-Method": "POST"}
    for origin, allowed in (("https://shop.example", True), ("https://elsewhere.example", False)):
        answer = service.client.options("/api/v1/events", headers={"Origin": origin, **asked})
        assert answer.status_code == 204
        assert ("Access-Control-Allow-Origin" in answer.headers) == allowed
        taken = answer.headers.get("Access-Control-Allow-Headers", "").split(", ")
        assert ({"Authorization", "Content-Type", "X-API-Key"} <= set(taken)) == allowed


def test_too_many_requests_are_told_when_to_come_back(database, tmp_path, Service, settings_for):
    settings = settings_for(
        tmp_path / "models", auth={"collect_per_minute": 3, "requests_per_minute": 5}
    )
    service = Service(database, settings)
    posted = {"session_id": "abc", "item_id": "P0001"}
    for _ in range(3):
        service.call("POST", "/events", json=posted, scope="collect", headers=PAGE)
    refused = service.call(
        "POST", "/events", json=posted, scope="collect", headers=PAGE, status=429
    )
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    other = {"REMOTE_ADDR": "10.0.0.9"}
    service.call(
        "POST", "/events", json=posted, scope="collect", headers=PAGE, environ_overrides=other
    )
    forged = {**PAGE, "X-Forwarded-For": "10.0.0.77"}  # no proxy is configured
    service.call("POST", "/events", json=posted, scope="collect", headers=forged, status=429)
    for _ in range(5):
        service.get("/users/u/recommendations", scope="read")
    service.call("GET", "/users/u/recommendations", scope="read", status=429)
    service.get("/users/u/recommendations", scope="admin")
    service.close()


def test_an_ipv6_network_and_a_mapped_address_count_as_one(
    database, tmp_path, Service, settings_for
):
    settings = settings_for(tmp_path / "models", auth={"collect_per_minute": 2})
    with closing(Service(database, settings)) as service:
        posted = {"session_id": "abc", "item_id": "P0001"}
        for address, status in (
            ("2001:db8:1:1::1", 200),
            ("2001:db8:1:1:aaaa::2", 200),
            ("2001:db8:1:1:ffff:ffff:ffff:ffff", 429),
            ("2001:db8:1:2::1", 200),
            ("192.0.2.9", 200),
            ("::ffff:192.0.2.9", 200),
            ("64:ff9b::c000:209", 429),
            ("2002:c000:209::1", 429),
        ):
            service.call(
                "POST",
                "/events",
                json=posted,
                scope="collect",
                headers=PAGE,
                status=status,
                environ_overrides={"REMOTE_ADDR": address},
            )


def test_a_configured_proxy_tells_the_address(database, tmp_path, Service, settings_for):
    settings = settings_for(tmp_path / "models", auth={"collect_per_minute": 1}, trusted_proxies=1)
    service = Service(database, settings)
    posted = {"session_id": "abc", "item_id": "P0001"}
    for address, status in (("10.0.0.1", 200), ("10.0.0.1", 429), ("10.0.0.2", 200)):
        headers = {**PAGE, "X-Forwarded-For": address}
        service.call(
            "POST", "/events", json=posted, scope="collect", headers=headers, status=status
        )
    service.close()


# --- answers, clicks, arms --------------------------------------------------------------------


def test_an_answer_is_replayed_with_what_was_clicked(service):
    from datetime import UTC, datetime

    view(service, "u", "P0001", "P0002")
    answer = service.get("/users/u/recommendations?k=5&scenario=home&explain=true")
    ident, chosen = answer["recommendation_id"], items(answer)[2]
    view(service, "u", chosen, chosen, "not-shown", recommendation_id=ident)
    services(service).impressions.flush()
    assert upkeep.attribute_clicks(service.database, datetime.now(UTC)) >= 3
    upkeep.attribute_clicks(service.database, datetime.now(UTC))  # counts nothing twice
    found = service.get(f"/recommendations/{ident}")
    assert [item["item_id"] for item in found["items"]] == items(answer)
    assert [item["clicked"] for item in found["items"]] == [n == chosen for n in items(answer)]
    assert found["scenario"] == "home" and found["user_id"] == "u"
    assert any(item["reason"] for item in found["items"])
    report = service.get("/reports/click-through?by=scenario")
    row = next(row for row in report["rows"] if row["scenario"] == "home")
    assert (row["shown"], row["clicks"], row["click_through"]) == (1, 1, 1.0)
    sources = service.get("/reports/click-through?by=source")["rows"]
    assert sum(row["clicks"] for row in sources) == 1
    assert sum(row["shown"] for row in sources) == 5

    service.post("/impressions", {"recommendation_id": ident, "items": items(answer)[:2]})
    assert service.get(f"/recommendations/{ident}")["shown"] == items(answer)[:2]
    own = service.post("/impressions", {"items": ["P0001"], "scenario": "mail"})
    assert service.get(f"/recommendations/{own['recommendation_id']}")["scenario"] == "mail"
    service.post("/impressions", {"recommendation_id": "nope", "items": ["x"]}, status=404)


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


def test_answers_wait_for_the_database_and_are_bounded(service, monkeypatch):
    from recsys.errors import StorageUnavailableError
    from recsys.storage.entities import impression_rows

    impressions = services(service).impressions
    stored = impression_rows.insert_impressions

    def refuse(*_):
        raise StorageUnavailableError("away")

    monkeypatch.setattr(impression_rows, "insert_impressions", refuse)
    monkeypatch.setattr("recsys.serving.answer_log.MAX_WAITING", 3)
    answers = [service.get("/users/u/recommendations?k=2") for _ in range(5)]
    assert len(impressions) == 3
    exposed = service.client.get("/metrics").get_data(as_text=True)
    lost = next(x for x in exposed.splitlines() if x.startswith("recsys_impressions_lost_total"))
    assert float(lost.split()[1]) >= 2
    monkeypatch.setattr(impression_rows, "insert_impressions", stored)
    impressions.flush()
    assert len(impressions) == 0
    for answer in answers[:3]:
        service.get(f"/recommendations/{answer['recommendation_id']}")


def test_an_answer_that_cannot_be_stored_costs_no_other(service, monkeypatch):
    impressions = services(service).impressions
    monkeypatch.setattr("recsys.serving.answer_log.FLUSH_SECONDS", 3_600.0)
    recommender = services(service).recommender
    lost = []
    monkeypatch.setattr(impressions, "_on_lost", lost.append)
    wrong = ["half \ud800"] + ["nul \0"] * (service.database.dialect == "postgresql")
    answers = []
    for scenario in ["home", *wrong, "cart", "home"]:
        answers.append(
            pipeline.recommend(recommender, Request(user_id="u", scenario=scenario), now_us())
        )
        impressions.record(answers[-1])
    impressions.flush()
    assert len(impressions) == 0 and sum(lost) == len(wrong)
    for answer in (answers[0], *answers[-2:]):
        assert service.get(f"/recommendations/{answer.recommendation_id}")["scenario"]


def test_old_answers_go(service):
    from datetime import UTC, datetime, timedelta

    answer = service.get("/users/u/recommendations")
    services(service).impressions.flush()
    settings = services(service).settings
    now = datetime.now(UTC)
    assert upkeep.prune_impressions(settings, service.database, now) == 0
    later = now + timedelta(days=settings.serving.impression_days + 1)
    assert upkeep.prune_impressions(settings, service.database, later) == 1
    service.call("GET", f"/recommendations/{answer['recommendation_id']}", status=404)


# --- versions over REST -----------------------------------------------------------------------


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
    service.get("/users/u/recommendations")
    text = service.client.get("/metrics").get_data(as_text=True)
    route = 'route="/api/v1/users/<id:user_id>/recommendations"'
    assert f'recsys_requests_total{{method="GET",{route},status="200"}}' in text
    assert f"recsys_request_seconds_count{{{route}}}" in text
    assert 'recsys_recommended_items_total{source="lstm"}' in text
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
