"""What a key that stands in a page may do, and how often."""

from contextlib import closing

PAGE = {"Origin": "https://shop.example"}


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
        # A refusal says why to any page; nothing else is told to those of other origins.
        assert refused.headers.get("Access-Control-Allow-Origin") == ("*" if headers else None)
        told = "origin 'https://elsewhere.example' is not allowed" if headers else "no origin"
        assert told in refused.get_json()["detail"]
    asked = {"Access-Control-Request-Method": "POST"}
    for origin, allowed in (("https://shop.example", True), ("https://elsewhere.example", False)):
        answer = service.client.options("/api/v1/events", headers={"Origin": origin, **asked})
        assert answer.status_code == 204
        assert ("Access-Control-Allow-Origin" in answer.headers) == allowed
        taken = answer.headers.get("Access-Control-Allow-Headers", "").split(", ")
        assert ({"Authorization", "Content-Type", "X-API-Key"} <= set(taken)) == allowed


def test_a_page_of_another_origin_may_read_why_it_is_refused_and_nothing_else(service):
    elsewhere = {"Origin": "https://elsewhere.example"}
    page, read = service.keys["collect"], service.keys["read"]
    for key, status, told in (
        (page, 403, "'https://elsewhere.example' is not allowed: create a key for it"),
        ("rk_x", 401, "is not known or was revoked"),
        (read, 403, "a key in the address is of scope collect"),
    ):
        answer = service.client.get(f"/api/v1/items/popular?api_key={key}", headers=elsewhere)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, "*")
        assert told in answer.get_json()["detail"]
    for path in ("/api/v1/items/popular", "/api/v1/items/P0001", "/api/v1/nothing"):
        answer = service.client.get(path, headers={**elsewhere, "X-API-Key": read})
        assert "Access-Control-Allow-Origin" not in answer.headers
    file = service.client.get(f"/api/v1/items/popular?api_key={page}", headers={"Origin": "null"})
    assert "opened from a file" in file.get_json()["detail"]


def test_a_get_to_the_pages_own_origin_needs_no_origin_header(bare):
    address = f"/api/v1/items/popular?api_key={bare.keys['collect']}"
    for headers, status in (
        ({"Referer": "https://shop.example/tea?x=1"}, 200),
        ({"Referer": "https://elsewhere.example/"}, 403),
        ({"Referer": "https://[broken"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Host": "shop.example"}, 403),  # http, not https
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Referer": "https://shop.example/", "Origin": "https://elsewhere.example"}, 403),
        ({}, 403),
    ):
        assert bare.client.get(address, headers=headers).status_code == status, headers
    own = {"Sec-Fetch-Site": "same-origin", "Host": "shop.example"}
    secure = bare.client.get(address, headers=own, base_url="https://shop.example")
    assert secure.status_code == 200
    beside = {"Referer": "https://shop.example/"}
    bare.call("POST", "/events", json={}, scope="collect", headers=beside, status=403)


def test_a_page_lists_items_of_the_catalogue_alone(service):
    page = {"scope": "collect", "headers": PAGE}
    shopped = [{"user_id": f"u{n}", "item_id": "not-listed"} for n in range(30)]
    service.post("/events", [*shopped, {"user_id": "u1", "item_id": "P0002"}])
    for path in ("/items/popular?k=5", "/items/P0001/similar?k=5", "/items/next?item_id=P0001"):
        mine, whole = service.get(path, **page)["items"], service.get(path)["items"]
        known = [one for one in whole if one["item"] is not None]
        assert [one["item_id"] for one in mine] == [one["item_id"] for one in known] != []
        assert [one["rank"] for one in mine] == list(range(1, len(mine) + 1))
    assert "not-listed" in {one["item_id"] for one in service.get("/items/popular")["items"]}
    for path in ("/items/not-listed/similar", "/items/next?item_id=not-listed"):
        service.call("GET", path, status=404, **page)
    for path in ("/items", "/items/P0001", "/reports/click-through", "/models", "/users/u1"):
        service.call("GET", path, status=403, **page)


def test_a_page_reports_what_was_seen_of_its_own_answers_alone(service):
    page = {"scope": "collect", "headers": PAGE}
    mine, others = (
        service.post("/recommendations", {"session_id": name, "k": 4}, **page)
        for name in ("abc", "other")
    )
    own, foreign = mine["recommendation_id"], others["recommendation_id"]
    seen = [one["item_id"] for one in mine["items"][:2]]
    base = {"recommendation_id": own, "session_id": "abc", "items": seen}
    assert service.post("/impressions", base, **page) == {"recommendation_id": own}
    assert service.get(f"/recommendations/{own}")["shown"] == seen
    for changed, status in (
        ({"recommendation_id": foreign}, 404),
        ({"recommendation_id": "x"}, 404),
        ({"session_id": "other"}, 404),
        ({"items": [*seen, "evil"]}, 422),
        ({"items": []}, 422),
        ({"session_id": None}, 403),
        ({"recommendation_id": None}, 403),
        ({"user_id": "u"}, 403),
        ({"scenario": "home"}, 403),
    ):
        service.call("POST", "/impressions", json=base | changed, status=status, **page)
    assert service.get(f"/recommendations/{own}")["shown"] == seen
    assert service.get(f"/recommendations/{foreign}")["shown"] is None


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
