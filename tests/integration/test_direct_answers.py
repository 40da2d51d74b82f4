"""The short way to a user's recommendations, and rankings that are kept, against the application's own way."""

import asyncio
import random
import time
from contextlib import closing
from urllib.parse import quote

import orjson
import pytest

from recsys.serving.kept_answers import KeptAnswers
from recsys.storage.entities import item_rows, key_rows
from recsys.web.asgi_bridge import AsgiBridge, Bounds
from recsys.web.asgi_messages import environ_of
from recsys.web.direct_answers import DirectAnswers

REQUESTS = 300
ITS_OWN = ("recommendation_id", "generated_at")


@pytest.fixture
def services(database, tmp_path, live_shop, publish, Service, settings_for):
    """Two processes' worth of the service over one database: one as it serves, one the long way."""
    publish(live_shop, database, tmp_path / "models")
    with database.begin() as connection:
        item_rows.put_items(connection, live_shop.shop.items, 1)
    with (
        closing(Service(database, settings_for(tmp_path / "models"))) as served,
        closing(Service(database, settings_for(tmp_path / "models"))) as oracle,
    ):
        yield served, oracle


def recommender_of(service):
    return service.app.extensions["recsys"].recommender


def scope_of(path, query, headers, method="GET"):
    return {
        "type": "http",
        "method": method,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "http_version": "1.1",
        "scheme": "http",
        "client": ("127.0.0.1", 5_000),
        "server": ("127.0.0.1", 80),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }


def request_of(path, query, headers, body):
    if body is None:
        return scope_of(path, query, headers)
    more = {"content-type": "application/json", "content-length": str(len(body))}
    return scope_of(path, query, {**headers, **more}, "POST")


class Bridged:
    """The application as `recsys serve` has it, short way included."""

    def __init__(self, service):
        self.taken = 0
        direct = DirectAnswers(service.app)

        def counted(scope, body):
            found = direct(scope, body)
            self.taken += found is not None
            return found

        self.bridge = AsgiBridge(service.app, 1, Bounds(2**20), direct=counted)

    def __call__(self, path, query, headers, body=None):
        sent = []

        async def send(message):
            sent.append(message)

        async def receive():
            return {"type": "http.request", "body": body or b"", "more_body": False}

        asyncio.run(self.bridge(request_of(path, query, headers, body), receive, send))
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:])


def the_long_way(service, path, query, headers, body=None):
    recommender_of(service).kept = KeptAnswers()
    found = []
    environ = environ_of(request_of(path, query, headers, body), body or b"")
    parts = service.app(environ, lambda *given: found.append(given))
    body = b"".join(parts)
    status, given = found[0][0], found[0][1]
    return int(status[:3]), {name.lower(): value for name, value in given}, body


def plain(answer):
    """What two answers to the same request have in common."""
    status, headers, body = answer
    told = orjson.loads(body)
    told = {name: value for name, value in told.items() if name not in ITS_OWN}
    if status != 200:
        told.pop("request_id")
    for item in told.get("items", []):
        item["score"] = pytest.approx(item["score"], rel=1e-5)
    kept = {k: v for k, v in headers.items() if k not in ("x-request-id", "content-length")}
    return status, kept, told


def random_query(rng, items, categories):
    """Some of every parameter, in no order; now and then one that is not acceptable."""
    parts = []

    def maybe(share, make):
        if rng.random() < share:
            parts.append(make())

    maybe(0.8, lambda: f"k={rng.choice([1, 5, 10, 20, 50, 60, 200])}")
    maybe(
        0.3,
        lambda: f"exclude_seen={rng.choice(['all', 'none', 'true', 'auto', 'view', 'view,cart'])}",
    )
    maybe(0.2, lambda: "exclude_items=" + ",".join(rng.sample(items, rng.randint(1, 5))))
    maybe(0.2, lambda: "categories=" + quote(rng.choice(categories)))
    maybe(0.15, lambda: "filter=" + quote(rng.choice(["price<20", "price>=10", "available=true"])))
    maybe(0.15, lambda: "boost=" + quote(rng.choice(["price<20^2", "price>30^0.5"])))
    maybe(0.15, lambda: f"max_per_category={rng.randint(1, 4)}")
    maybe(0.2, lambda: f"scenario={rng.choice(['home', 'basket'])}")
    maybe(0.1, lambda: "explain=true")
    bad = [
        "k=0",
        "k=x",
        "k=5&k=6",
        "what=1",
        "api_key=1",
        "exclude_seen=never",
        "categories=nowhere",
        "k=%31",
    ]
    maybe(0.05, lambda: rng.choice(bad))
    rng.shuffle(parts)
    return "&".join(parts)


def random_body(rng, items, categories):
    """As `random_query`, of a body, with a user or a session, events and candidates of its own."""
    asked = {"k": rng.choice([1, 5, 10, 20, 60])}
    if rng.random() < 0.4:
        asked["user_id"] = f"u{rng.randint(1, 60)}"
    if rng.random() < 0.6:
        asked["session_id"] = f"s{rng.randint(1, 9)}"
    if rng.random() < 0.5 or len(asked) == 1:
        asked["events"] = [{"item_id": rng.choice(items)} for _ in range(rng.randint(1, 6))]
    if rng.random() < 0.2:
        asked["candidates"] = rng.sample(items, rng.randint(1, 20))
    if rng.random() < 0.2:
        asked["categories"] = [rng.choice(categories)]
    if rng.random() < 0.2:
        asked["exclude_seen"] = rng.choice(["all", "none", "auto", "view"])
    if rng.random() < 0.1:
        asked["filter"] = ["price<20"]
    if rng.random() < 0.05:
        asked.update(rng.choice([{"k": 0}, {"what": 1}, {"events": [{"item": "x"}]}]))
    return orjson.dumps(asked)


def test_answers_are_those_of_the_long_way(services, monkeypatch):
    served, oracle = services
    # Both tell the same time, and no step takes any: what is counted by the hour, and what waits after
    # a long step (merges, the catalogue), comes at one moment in both.
    now_us = [time.time_ns() // 1_000]
    monkeypatch.setattr("recsys.web.services._clock", lambda: now_us[0])
    for one in services:
        monkeypatch.setattr(recommender_of(one).live, "_clock", lambda: 0.0)
    rng = random.Random(5)
    ask = Bridged(served)
    items = [f"P{number:04}" for number in range(1, 61)]
    with served.database.connect() as connection:
        shown = item_rows.get_items(connection, items)
    categories = sorted({name for item in shown.values() for name in item.categories})
    key = {"x-api-key": served.keys["read"]}
    asked, kept = [], 0
    for _ in range(REQUESTS):
        if rng.random() < 0.15:  # something happens
            now_us[0] += rng.randint(1, 5_000_000)
            user = f"u{rng.randint(1, 40)}"
            event = {"user_id": user, "item_id": rng.choice([*items, "fresh", "newer"])}
            what = rng.random()
            if what < 0.8:
                served.post("/events", [event])
            elif what < 0.9:
                name = rng.choice(items)
                item = {
                    "item_id": name,
                    "available": rng.random() < 0.5,
                    "categories": categories[:1],
                }
                served.call("PUT", "/items", json=item)
            else:
                served.post(f"/users/{user}/merge", {"session_id": f"s{rng.randint(1, 9)}"})
            if rng.random() < 0.5:
                for one in services:
                    recommender_of(one).live.follow_once(now_us[0])
        if asked and rng.random() < 0.4:  # a visitor who comes back
            path, query, body = rng.choice(asked[-30:])
        elif rng.random() < 0.3:
            path, query, body = "/api/v1/recommendations", "", random_body(rng, items, categories)
            asked.append((path, query, body))
        else:
            user = rng.choice([f"u{rng.randint(1, 60)}", "a%2Fb", "nobody", "x.y@z"])
            path, body = f"/api/v1/users/{user}/recommendations", None
            query = random_query(rng, items, categories)
            asked.append((path, query, body))
        before = recommender_of(served).kept.bytes
        found = plain(ask(path, query, key, body))
        assert found == plain(the_long_way(oracle, path, query, key, body)), (path, query, body)
        kept += found[0] == 200 and recommender_of(served).kept.bytes == before
    assert ask.taken > REQUESTS / 3  # the short way was the one that was tried
    assert kept > REQUESTS / 20


def test_what_is_out_of_the_ordinary_is_left_to_the_application(services):
    served, _ = services
    direct = DirectAnswers(served.app)
    path = "/api/v1/users/u1/recommendations"
    key = {"x-api-key": served.keys["read"]}
    assert direct(scope_of(path, "k=5", key), b"") is not None
    bearer = {"authorization": f"Bearer {served.keys['read']}"}
    assert direct(scope_of(path, "k=5", bearer), b"") is not None
    for where, query, headers in (
        (path, "k=5", {}),
        (path, "k=5", {"x-api-key": "rk_nothing"}),
        (path, "k=5", {"x-api-key": served.keys["write"]}),
        (path, "k=5", {"x-api-key": served.keys["collect"]}),
        (path, "k=5", {**key, "origin": "https://shop.example"}),
        (path, "k=1001", key),
        (path, "k=5&k=6", key),
        (path, "page_of=abc", key),
        (path, "wrong=1", key),
        ("/api/v1/users/a%20b/recommendations", "k=5", key),
        ("/api/v1/users//recommendations", "k=5", key),
        ("/api/v1/users/u1/recommendations/", "k=5", key),
        (f"/api/v1/users/{'x' * 600}/recommendations", "k=5", key),
    ):
        assert direct(scope_of(where, query, headers), b"") is None, (where, query)
    assert direct({**scope_of(path, "k=5", key), "method": "HEAD"}, b"") is None
    twice = scope_of(path, "k=5", key)
    twice["headers"].append((b"x-api-key", b"rk_other"))
    assert direct(twice, b"") is None


def test_the_given_request_id_comes_back_and_the_answer_is_logged_and_counted(services):
    served, _ = services
    ask = Bridged(served)
    key = {"x-api-key": served.keys["read"], "x-request-id": "mine-1"}
    status, headers, body = ask("/api/v1/users/u1/recommendations", "k=5&scenario=home", key)
    assert (status, headers["x-request-id"], ask.taken) == (200, "mine-1", 1)
    told = orjson.loads(body)
    stored = served.get(f"/recommendations/{told['recommendation_id']}")
    assert [item["item_id"] for item in stored["items"]] == [i["item_id"] for i in told["items"]]
    assert stored["scenario"] == "home"
    assert "/api/v1/users/<id:user_id>/recommendations" in served.client.get("/metrics").text


def test_a_revoked_key_is_refused_from_the_next_request_on(services):
    served, _ = services
    direct = DirectAnswers(served.app)
    with served.database.begin() as connection:
        key = key_rows.create_key(connection, "to go", ["read"], 1)
    asked = scope_of("/api/v1/users/u1/recommendations", "k=5", {"x-api-key": key})
    assert direct(asked, b"") is not None and direct(asked, b"") is not None
    with served.database.begin() as connection:
        key_rows.revoke_key(connection, key_rows.key_id_of(key), 2)
    assert direct(asked, b"") is None
