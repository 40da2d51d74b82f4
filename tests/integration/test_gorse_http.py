"""Gorse's REST as its own server answers it: words, statuses and odd semantics, over raw HTTP."""

import base64
import re
from contextlib import closing

import pytest

from recsys.events.identity import Owner
from recsys.events.times import SECOND_US, from_us
from recsys.ops.upkeep import enter_deferred
from recsys.storage.entities import feedback_rows, history_rows, key_rows
from recsys.web import services as web_services
from recsys.web.gorse import gorse_feedback, gorse_recommendations

ZERO = "0001-01-01T00:00:00Z"
TIME = "2022-08-07T00:26:46Z"


class Gorse:
    """A client that knows the base path, the key and nothing else."""

    def __init__(self, service):
        self.service, self.database = service, service.database
        with service.database.begin() as connection:
            self.key = key_rows.create_key(connection, "gorse", ["read", "write"], 1)

    def __call__(self, method, path, body=None, *, status=200, key=None, **more):
        headers = {"X-API-Key": self.key if key is None else key, **more.pop("headers", {})}
        given = {"json": body} if body is not None else {}
        response = self.service.client.open(
            f"/api/{path}", method=method, headers=headers, **given, **more
        )
        assert response.status_code == status, response.get_data(as_text=True)
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["X-Request-ID"]
        if status >= 400:
            assert response.mimetype == "text/plain"
            return response.get_data(as_text=True)
        return response.get_json() if response.mimetype == "application/json" else response

    def put(self, *rows, method="POST"):
        assert self(method, "feedback", list(rows)) == {"RowAffected": len(rows)}


def feedback(item, user="bob", type="read", **more):
    return {"FeedbackType": type, "UserId": user, "ItemId": item, **more}


@pytest.fixture
def gorse(database, tmp_path, Service, settings_for):
    settings = settings_for(tmp_path / "models", gorse=True)
    with closing(Service(database, settings)) as service:
        yield Gorse(service)


@pytest.fixture
def clock(monkeypatch):
    """The time as the routes have it, to be set forward."""

    class Clock:
        us = web_services.now_us()

        def forward(self, seconds):
            self.us += seconds * SECOND_US

    one = Clock()
    for module in (gorse_feedback, gorse_recommendations):
        monkeypatch.setattr(module, "now_us", lambda: one.us)
    return one


def test_users_and_items_come_back_field_by_field(gorse):
    users = [
        {"UserId": "100", "Labels": ["a", "b"], "Comment": "one\nline  more"},
        {"UserId": "1", "Labels": {"plan": "pro", "taste": {"ages": [1, 2.5]}}, "Comment": ""},
        {"UserId": "10", "Labels": None, "Comment": "x" * 2_000},
    ]
    assert gorse("POST", "users", users) == {"RowAffected": 3}
    for user in users:
        assert gorse("GET", f"user/{user['UserId']}") == user
    first = gorse("GET", "users?n=2")
    assert [one["UserId"] for one in first["Users"]] == ["1", "10"]
    second = gorse("GET", "users", query_string={"n": 2, "cursor": first["Cursor"]})
    assert [one["UserId"] for one in second["Users"]] == ["100"] and second["Cursor"] == ""

    items = [
        {
            "ItemId": "2000",
            "IsHidden": True,
            "Categories": ["Comedy", "Animation"],
            "Timestamp": "2022-11-20T13:55:27Z",
            "Labels": {"embedding": [0.1, 0.2, 0.3]},
            "Comment": "Minions  (2015)",
        },
        {
            "ItemId": "200",
            "IsHidden": False,
            "Categories": [],
            "Timestamp": "1962-01-01T00:00:00.25Z",
            "Labels": None,
            "Comment": "",
        },
        {
            "ItemId": "20",
            "IsHidden": False,
            "Categories": None,
            "Timestamp": ZERO,
            "Labels": [1, 2],
            "Comment": "NULL",
        },
    ]
    assert gorse("POST", "items", items) == {"RowAffected": 3}
    for item in items:
        assert gorse("GET", f"item/{item['ItemId']}/") == item
    first = gorse("GET", "items?n=2")
    assert [one["ItemId"] for one in first["Items"]] == ["20", "200"]
    assert base64.b64decode(first["Cursor"]) == b"2000"
    second = gorse("GET", "items", query_string={"Cursor": first["Cursor"]})
    assert second == {"Cursor": "", "Items": items[:1]}
    assert [i["ItemId"] for i in gorse("GET", "items?q=minions")["Items"]] == ["2000"]

    # An insert replaces every field, a patch those alone that it gives.
    gorse("POST", "item", {"itemid": "2000", "comment": "New", "Subscribe": "is not known"})
    new = {"ItemId": "2000", "IsHidden": False, "Categories": None, "Timestamp": ZERO}
    assert gorse("GET", "item/2000") == {**new, "Labels": None, "Comment": "New"}
    patch = {"Categories": ["a"], "Comment": None, "IsHidden": None, "Labels": ["l"]}
    gorse("PATCH", "item/2000", {**patch, "Timestamp": TIME})
    gorse("PUT", "item/2000/category/b")
    gorse("PUT", "item/2000/category/b")
    gorse("DELETE", "item/2000/category/a")
    patched = {**new, "Categories": ["b"], "Timestamp": TIME, "Labels": ["l"], "Comment": "New"}
    assert gorse("GET", "item/2000") == patched
    gorse("PATCH", "user/100", {"Labels": ["c"]})
    assert gorse("GET", "user/100") == {**users[0], "Labels": ["c"]}
    assert gorse("PATCH", "user/nobody", {"Labels": ["c"]}) == {"RowAffected": 1}
    assert gorse("PATCH", "item/nothing", {"Labels": ["c"]}) == {"RowAffected": 1}

    for kind, name in (("user", "100"), ("item", "2000"), ("user", "nobody"), ("item", "nothing")):
        assert gorse("DELETE", f"{kind}/{name}") == {"RowAffected": 1}
        assert gorse("GET", f"{kind}/{name}", status=404) == f"{kind} {name} not found"
    gorse("POST", "user", users[0])  # a user who was deleted may come back
    gorse.put(feedback("20", user="100"))
    assert gorse("GET", "user/100") == users[0]


def test_errors_are_gorses_words(gorse):
    assert gorse("GET", "users", status=401, key="wrong") == "unauthorized"
    assert gorse("GET", "users?n=x", status=400) == ('strconv.Atoi: parsing "x": invalid syntax')
    assert gorse("GET", "health/live", key="")["Ready"] is True
    assert gorse("GET", "health/ready", key="")["DataStoreError"] is None
    gorse("GET", "nothing", status=404)
    gorse("PUT", "users", status=405)
    gorse("POST", "user", status=415, data="{}", headers={"Content-Type": "text/plain"})
    assert "expected a list" in gorse("POST", "users", {"UserId": "1"}, status=400)
    assert "not JSON" in gorse(
        "POST", "users", status=400, data="[{", content_type="application/json"
    )
    assert gorse("POST", "users", status=200, data="null", content_type="application/json") == {
        "RowAffected": 0
    }
    for body, field in (
        ({"UserId": "a/b"}, "UserId"),
        ({"UserId": 7}, "UserId"),
        ({}, "UserId"),
        ({"UserId": "a", "Labels": True}, "Labels"),
        ({"UserId": "a", "Labels": ["a", 1]}, "Labels"),
        ({"UserId": "a", "Labels": {"a": {"b": False}}}, "Labels"),
        ({"UserId": "a", "Comment": 1}, "Comment"),
        ({"UserId": "a", "Labels": "x" * 9_000}, "Labels"),
    ):
        assert gorse("POST", "user", body, status=400).startswith(field)
    for body, field in (
        ({"ItemId": "a", "Timestamp": "soon"}, "Timestamp"),
        ({"ItemId": "a", "IsHidden": "no"}, "IsHidden"),
        ({"ItemId": "a", "Categories": "a"}, "Categories"),
        ({"ItemId": "a", "Categories": ["a\x00"]}, "Categories"),
    ):
        assert gorse("POST", "item", body, status=400).startswith(field)
    gorse("POST", "item", {"ItemId": "a"})
    assert gorse("PATCH", "item/a", {"Timestamp": "2022-02-24"}, status=400).startswith("Timestamp")
    rows = [feedback("a"), feedback("b", Timestamp="soon")]
    assert gorse("POST", "feedback", rows, status=400).startswith("[1].Timestamp")
    assert gorse("GET", "feedback")["Feedback"] == []
    gorse("GET", "items?cursor=***", status=400)
    gorse("GET", "feedback?cursor=MTAw", status=400)
    gorse("GET", "items?sort=up", status=400)
    gorse("GET", "user/bob/feedback/read=3", status=400)
    gorse("GET", "recommend/bob?write-back-type=read&write-back-delay=ten", status=400)
    assert gorse("PUT", "item/b/category/c", status=404) == "item b not found"
    for path in ("user/bob/neighbors/", "user-to-user/neighbors/bob"):
        assert gorse("GET", path, status=404) == "no user-to-user recommender is configured"
    read_only = gorse.service.keys["read"]
    gorse("GET", "items", key=read_only)
    gorse("POST", "item", {"ItemId": "b"}, key=read_only, status=403)
    gorse("GET", "recommend/bob?write-back-type=read", key=read_only, status=403)
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    allowed = gorse.service.client.options("/api/feedback", headers=asked).headers
    assert "X-API-Key" in allowed["Access-Control-Allow-Headers"]


def test_every_route_asks_for_a_key_and_its_scope(gorse):
    rules = [
        rule
        for rule in gorse.service.app.url_map.iter_rules()
        if rule.rule.startswith("/api/") and not rule.rule.startswith(("/api/v1", "/api/health"))
    ]
    assert len(rules) > 40
    for rule in rules:
        path = re.sub(r"<[^>]*>", "x", rule.rule).removeprefix("/api/")
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            for key in ("", "wrong", gorse.service.keys["collect"]):
                assert gorse(method, path, key=key, status=403 if key[:2] == "rk" else 401)
            if method != "GET" and rule.rule.split("/")[2] != "session":
                gorse(method, path, key=gorse.service.keys["read"], status=403)


def test_who_was_erased_by_an_admin_stays_so(gorse):
    gorse.put(feedback("a"))
    gorse.service.call("DELETE", "/users/bob")
    assert gorse("DELETE", "user/bob") == {"RowAffected": 1}
    gorse.put(feedback("a"))
    assert gorse("GET", "feedback")["Feedback"] == []


def test_without_the_setting_there_is_no_such_route(bare):
    assert bare.client.get("/api/items").mimetype == "application/problem+json"
    key = {"X-API-Key": bare.keys["read"]}
    assert bare.client.get("/api/items", headers=key).status_code == 404
    assert bare.client.get("/api/v1/items", headers=key).status_code == 200


def test_feedback_is_a_log_that_reads_as_one_row(gorse):
    gorse.put(feedback("a", Value=1, Timestamp="2024-01-02", Labels=["old"]))
    gorse.put(
        feedback("a", Value=2.5, Timestamp="2024-01-01T10:00:00Z", Labels={"k": 1}, Comment="new"),
        feedback("a", Value=100),  # of equal keys the first counts
        feedback("b", type="like", Timestamp="2024-01-03"),
    )
    row = {
        **feedback("a", Value=3.5, Timestamp="2024-01-01T10:00:00Z"),
        **{"Updated": "2024-01-02T00:00:00Z", "Labels": {"k": 1}, "Comment": "new"},
    }
    assert gorse("GET", "feedback/read/bob/a") == row
    assert gorse("GET", "feedback/bob/a") == [row]
    assert gorse("GET", "user/bob/feedback/read>=3") == [row]
    assert gorse("GET", "user/bob/feedback/read>3.5") == []
    assert gorse("GET", "item/a/feedback") == gorse("GET", "item/a/feedback/read") == [row]
    first = gorse("GET", "feedback?n=1")
    assert first["Feedback"][0]["FeedbackType"] == "like"
    second = gorse("GET", "feedback", query_string={"n": 1, "cursor": first["Cursor"]})
    assert second == {"Cursor": "", "Feedback": [row]}
    assert gorse("GET", "feedback/read") == {"Cursor": "", "Feedback": [row]}
    assert gorse("GET", "feedback/nothing/bob/a").get_data() == b"{}"
    with gorse.database.connect() as connection:  # both reads are in the log
        events = history_rows.history(connection, Owner("bob")).events
    assert [one.item_id for one in events] == ["a", "a", "b"]
    # What feedback speaks of is there.
    assert gorse("GET", "user/bob") == {"UserId": "bob", "Labels": None, "Comment": ""}
    assert gorse("GET", "item/b")["Timestamp"] == ZERO
    assert [one["ItemId"] for one in gorse("GET", "items")["Items"]] == ["a", "b"]


def test_what_is_put_begins_anew_and_a_retry_stores_nothing(gorse):
    one, other = (feedback("a", Value=value, Timestamp=TIME) for value in (4, 5))

    def number():
        with gorse.database.connect() as connection:
            return len(history_rows.history(connection, Owner("bob")).events)

    gorse.put(feedback("a", Value=1, Timestamp=TIME))
    for given, value, events in ((one, 4, 2), (one, 4, 2), (other, 5, 3), (one, 4, 4)):
        gorse.put(given, method="PUT")
        assert gorse("GET", "feedback/read/bob/a")["Value"] == value
        assert number() == events
    gorse.put(feedback("a", Value=1, Timestamp=TIME))
    assert gorse("GET", "feedback/read/bob/a")["Value"] == 5
    assert gorse("DELETE", "feedback/like/bob/a") == {"RowAffected": 0}
    assert gorse("DELETE", "feedback/bob/a") == {"RowAffected": 1}
    assert number() == 0 and gorse("GET", "user/bob/feedback") == []
    with gorse.database.connect() as connection:
        assert len(feedback_rows.removed_events_since(connection, 0)[1]) == 5


def test_feedback_in_the_future_counts_once_its_time_has_come(gorse, clock):
    later = from_us(clock.us + 3_600 * SECOND_US).isoformat()
    gorse.put(feedback("a"), feedback("b", Timestamp=later))
    gorse("POST", "items", [{"ItemId": one} for one in "abc"])
    assert gorse("GET", "feedback/bob/b")[0]["ItemId"] == "b"
    assert [one["ItemId"] for one in gorse("GET", "user/bob/feedback")] == ["a"]
    assert sorted(gorse("GET", "recommend/bob")) == ["b", "c"]
    clock.forward(3_601)
    assert gorse("GET", "recommend/bob") == ["c"]
    assert [one["ItemId"] for one in gorse("GET", "user/bob/feedback")] == ["a", "b"]

    # The refresh job lets in those of users who do not ask.
    gorse.put(feedback("c", user="eve", Timestamp=from_us(clock.us + 10**9).isoformat()))
    assert enter_deferred(gorse.database, from_us(clock.us)) == 0
    assert enter_deferred(gorse.database, from_us(clock.us + 2 * 10**9)) == 1
    assert [one["ItemId"] for one in gorse("GET", "user/eve/feedback")] == ["c"]
    gorse.put(feedback("a", user="eve", Timestamp=from_us(clock.us + 10**12).isoformat()))
    assert gorse("DELETE", "user/eve") == {"RowAffected": 1}
    assert gorse("GET", "feedback/eve/a") == []


def test_write_back_moves_on_at_once_or_after_the_delay(gorse, clock):
    gorse("POST", "items", [{"ItemId": f"i{n}", "Timestamp": f"2024-01-0{n}"} for n in range(1, 8)])
    order = [f"i{n}" for n in range(7, 0, -1)]
    ask = "recommend/{}?n=2&write-back-type=read"
    for _ in range(2):  # nothing is stored of a user who is not known
        assert gorse("GET", ask.format("nobody")) == order[:2]
    gorse("GET", "user/nobody", status=404)
    gorse("POST", "user", {"UserId": "bob"})
    assert gorse("GET", ask.format("bob")) == order[:2]
    assert gorse("GET", ask.format("bob") + "&write-back-delay=10m") == order[2:4]
    assert gorse("GET", "recommend/bob?n=2&offset=1") == order[3:5]
    assert [one["ItemId"] for one in gorse("GET", "user/bob/feedback")] == ["i6", "i7"]
    clock.forward(601)
    assert gorse("GET", "recommend/bob?n=0") == order[4:]
    assert gorse("GET", "recommend/bob?offset=2000") == []


def test_lists_of_items(gorse, clock):
    items = [
        {"ItemId": "old", "Timestamp": "1990-01-01", "Categories": ["a", "b"]},
        {"ItemId": "new", "Timestamp": "2024-01-01", "Categories": ["a"]},
        {"ItemId": "none", "Categories": ["b"]},
        {"ItemId": "hidden", "Timestamp": "2025-01-01", "IsHidden": True, "Categories": ["a"]},
    ]
    gorse("POST", "items", items)
    newest = gorse("GET", "latest/")
    assert [one["Id"] for one in newest] == ["none", "new", "old"]
    assert [one["Score"] for one in newest[1:]] == [1704067200, 631152000]
    assert [one["Id"] for one in gorse("GET", "latest?category=a&category=b&category=")] == ["old"]
    assert [one["Id"] for one in gorse("GET", "latest/a?n=1&offset=1")] == ["old"]
    assert gorse("GET", "latest/nowhere") == []
    for user, item in (("u1", "new"), ("u2", "new"), ("u1", "old"), ("u3", "hidden")):
        gorse.put(feedback(item, user=user))
    popular = gorse("GET", "non-personalized/popular")
    assert popular == [{"Id": "new", "Score": 2.0}, {"Id": "old", "Score": 1.0}]
    assert popular == gorse("GET", "popular/") == gorse("GET", "popular/a")
    assert [one["Id"] for one in gorse("GET", "popular?category=a&category=b")] == ["old"]
    assert gorse("GET", "non-personalized/popular?user-id=u1") == []
    assert [one["Id"] for one in gorse("GET", "latest?user-id=u1")] == ["none"]
    assert gorse("GET", "non-personalized/other") == gorse("GET", "popular/nowhere") == []
    assert gorse("GET", "item/nothing/neighbors") == gorse("GET", "item-to-item/x/new") == []
    assert gorse("GET", "collaborative-filtering/u1") == []  # nothing is learned yet
    assert gorse("GET", "recommend/u1/nowhere") == gorse("GET", "recommend/u2/nowhere/") == []
    assert gorse("GET", "recommend/u3/b") == ["old", "none"]
    assert gorse("GET", "recommend/u3?category=a&category=b") == ["old"]
    scored = gorse("GET", "recommend/u3", headers={"X-API-Version": "2"})
    assert [one["Id"] for one in scored] == ["new", "old", "none"]
    scores = [one["Score"] for one in scored]
    assert scores == sorted(scores, reverse=True)
    gorse("PATCH", "item/new", {"IsHidden": True})
    assert gorse("GET", "recommend/u3") == ["old", "none"]
    gorse("DELETE", "item/old")
    assert gorse("GET", "recommend/u3") == ["none"]
    assert gorse("GET", "item/old/feedback") == []


def test_answers_follow_the_order_of_events(
    database, tmp_path, tiny_shop, publish, Service, settings_for
):
    publish(tiny_shop, database, tmp_path / "models")
    settings = settings_for(tmp_path / "models", gorse=True)
    with closing(Service(database, settings)) as service:
        gorse = Gorse(service)
        seen = list(dict.fromkeys(tiny_shop.events["item_id"].to_pylist()[:20]))[:4]
        times = [f"2025-03-01T00:00:0{n}Z" for n in range(4)]
        for item, time in zip(seen, times, strict=True):
            gorse.put(feedback(item, type="view", Timestamp=time))
        found = gorse("GET", "recommend/bob?n=10", headers={"X-API-Version": "2"})
        assert len(found) == 10 and not {one["Id"] for one in found} & set(seen)
        asked = {
            "events": [
                {"item_id": one, "timestamp": at} for one, at in zip(seen, times, strict=True)
            ]
        }
        own = service.post("/recommendations", {**asked, "k": 10, "exclude_seen": "all"})
        ranked = [one["item_id"] for one in own["items"]]
        assert [one["Id"] for one in found] == ranked
        session = [
            feedback(one, user="", type="view", Timestamp=at)
            for one, at in zip(seen[::-1], times[::-1], strict=True)
        ]
        assert [one["Id"] for one in gorse("POST", "session/recommend?n=10", session)] == ranked
        backwards = [{**row, "Timestamp": at} for row, at in zip(session, times, strict=True)]
        assert [one["Id"] for one in gorse("POST", "session/recommend/", backwards)] != ranked
        assert gorse("POST", "session/recommend", []) == []
        personal = gorse("GET", "collaborative-filtering/bob/")
        assert [one["Id"] for one in personal] == ranked
        alike = service.get(f"/items/{seen[0]}/similar?k=10")["items"]
        assert [one["Id"] for one in gorse("GET", f"item/{seen[0]}/neighbors/")] == [
            one["item_id"] for one in alike
        ]
        follows = service.get(f"/items/{seen[0]}/next?k=10")["items"]
        assert [one["Id"] for one in gorse("GET", f"item-to-item/next/{seen[0]}")] == [
            one["item_id"] for one in follows
        ]


def test_events_in_a_table_of_the_users_own_take_no_feedback(database, tmp_path, Service):
    from recsys.config import Settings

    mapping = {
        "table": "feedback",
        "user_column": "user_id",
        "item_column": "item_id",
        "timestamp_column": "time_stamp",
    }
    settings = Settings(registry={"path": tmp_path}, serving={"gorse": True}, events=mapping)
    with closing(Service(database, settings)) as service:
        gorse = Gorse(service)
        words = "events are read from a table of your own ([events]): keep feedback there"
        assert gorse("POST", "feedback", [feedback("a")], status=409) == words
        assert gorse("DELETE", "feedback/bob/a", status=409) == words
        gorse("POST", "item", {"ItemId": "a"})
        assert gorse("DELETE", "item/a") == {"RowAffected": 1}
