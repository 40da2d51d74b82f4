"""Posting events over REST: rows answered for themselves, bounds, ids, keys."""

import gzip

import orjson
import pytest

from recsys.storage.entities import key_rows


def test_each_row_of_a_post_is_answered_for_itself(bare):
    rows = [
        {"user_id": "u", "item_id": "a", "event_id": "1"},
        {"user_id": "u", "item_id": ""},
        {"user_id": "u", "item_id": "a", "event_id": "1"},
        {"item_id": "a"},
        {"session_id": "s", "item_id": "b", "timestamp": "2020-01-01T00:00:00+02:00"},
        {"user_id": "u", "item_id": "c", "timestamp": "2020-01-01T00:00:00"},
        {"user_id": "u", "item_id": "c", "timestamp": 10**17},
        {"user_id": "u", "item_id": "c", "colour": "red"},
        "nonsense",
    ]
    answer = bare.post("/events", rows, scope="write")
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (2, 1, 6)
    states = [row["status"] for row in answer["results"]]
    assert (
        states == ["accepted", "rejected", "duplicate", "rejected", "accepted"] + ["rejected"] * 4
    )
    errors = [row["error"] for row in answer["results"]]
    assert "item_id" in errors[1]
    assert "user_id" in errors[3]
    assert "offset" in errors[5]
    assert "colour" in errors[7]


def test_no_good_row_is_422_and_one_object_will_do(bare):
    bare.post("/events", {"item_id": "a"}, status=422)
    assert bare.post("/events", {"item_id": "a", "user_id": "u"})["accepted"] == 1


def test_a_retry_is_a_duplicate(bare):
    event = {"user_id": "u", "item_id": "a", "event_id": "k1"}
    assert bare.post("/events", event)["accepted"] == 1
    assert bare.post("/events", event)["duplicates"] == 1


@pytest.mark.parametrize("count", [0, 10_001])
def test_a_post_has_bounds(bare, count):
    problem = bare.call("POST", "/events", json=[{}] * count, status=422).get_json()
    assert problem["errors"][0]["field"] == "body"


def test_a_body_that_is_too_large_or_no_json_is_refused(bare):
    bare.call("POST", "/events", data=b"x" * 10_000_000, status=415)
    big = b'[{"user_id": "' + b"u" * 1_500_000 + b'"}]'
    bare.call("POST", "/events", data=big, content_type="application/json", status=413)
    for data in (b"{", b"", b"\xff", b"[" * 100_000, b"NaN"):
        bare.call("POST", "/events", data=data, content_type="application/json", status=422)


def test_gzip_is_taken_and_bounded_once_inflated(bare):
    rows = orjson.dumps([{"user_id": n, "item_id": 12, "event_id": n} for n in range(50)])
    packed = {"content_type": "application/json", "headers": {"Content-Encoding": "gzip"}}

    def post(data, status):
        return bare.call("POST", "/events", data=data, status=status, **packed).get_json()

    assert post(gzip.compress(rows), 200)["accepted"] == 50
    assert post(gzip.compress(rows[:9]) + gzip.compress(rows[9:]), 200)["duplicates"] == 50
    post(gzip.compress(b" " * 100_000_000), 413)
    for damaged in (rows, gzip.compress(rows)[:-9], gzip.compress(rows) + b"x", b""):
        post(damaged, 422)
    packed["headers"] = {"Content-Encoding": "br"}
    post(rows, 415)


def test_a_key_that_stands_twice_is_no_value(bare):
    for data in (
        b'{"user_id": "a", "user_id": "b", "item_id": "x"}',
        b'[{"user_id": "a", "item_id": "x", "properties": {"a:\\"": 1, "a:\\"": 2}}]',
        b'{"user_id": "a", "item_id": "x", "it\\u0065m_id": "y"}',
    ):
        found = bare.call(
            "POST", "/events", data=data, content_type="application/json", status=422
        ).get_json()
        assert "stands twice" in found["errors"][0]["message"]
    kept = b'[{"user_id": "a\\":{", "item_id": "x:"}, {"user_id": "b", "item_id": "x"}]'
    bare.call("POST", "/events", data=kept, content_type="application/json")


def test_ids_are_unique_by_owner_within_a_body_and_across(bare):
    events = [{"user_id": f"u{n}", "item_id": "a", "event_id": "k"} for n in range(200)]
    events.append({"session_id": "u0", "item_id": "a", "event_id": "k"})
    events.append({"user_id": "u7", "session_id": "s", "item_id": "b", "event_id": "k"})
    answer = bare.post("/events", events)
    assert (answer["accepted"], answer["duplicates"]) == (201, 1)
    assert answer["results"][-1]["status"] == "duplicate"
    assert bare.post("/events", events)["duplicates"] == 202
    bare.post("/users/u1/merge", {"from": "u2"})  # both events of one id stay
    assert len(bare.get("/users/u1/events")["events"]) == 2
    assert bare.get("/users/u1")["events"] == 2


def test_a_key_is_needed_and_its_scope(bare):
    response = bare.call("GET", "/users/u/recommendations", scope=None, status=401)
    assert "Bearer" in response.headers["WWW-Authenticate"]
    bare.call("POST", "/events", scope="read", json={"user_id": "u", "item_id": "a"}, status=403)
    bare.call("GET", "/users/u/recommendations", scope="write", status=403)
    bare.call("POST", "/jobs/retrain/run", scope="write", status=403)
    bearer = {"Authorization": f"Bearer {bare.keys['read']}"}
    assert bare.client.get("/api/v1/models", headers=bearer).status_code == 200
    wrong = {"X-API-Key": "rk_000000000000_" + "x" * 43}
    refused = bare.client.get("/api/v1/models", headers=wrong)
    assert refused.status_code == 401
    assert "x" * 43 not in refused.get_data(as_text=True)


def test_a_revoked_key_is_refused_at_once(bare):
    key = bare.keys["read"]
    bare.get("/models", scope="read")
    with bare.database.begin() as connection:
        key_rows.revoke_key(connection, key.split("_")[1], 1)
    bare.call("GET", "/models", scope="read", status=401)


def test_every_route_under_the_api_asks_for_a_key(bare):
    for rule in bare.app.url_map.iter_rules():
        if rule.rule.startswith("/api/v1/"):
            path = rule.rule
            for name in rule.arguments:
                path = path.replace(f"<id:{name}>", "x").replace(f"<int:{name}>", "1")
            method = next(m for m in rule.methods if m not in ("HEAD", "OPTIONS"))
            assert bare.client.open(path, method=method).status_code == 401, rule
