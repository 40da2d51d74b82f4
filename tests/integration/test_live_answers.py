"""What others did a moment ago, in the answers of every process and in the lists of items."""

import json
import time
import urllib.request
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from urllib.error import HTTPError

import pytest
from sqlalchemy import create_engine, text

from bench.servers import running
from recsys import pipeline
from recsys.commands import imports
from recsys.ingest.event_files import ReadOptions
from recsys.ingest.item_body import check_item
from recsys.storage.entities import item_rows, key_rows
from recsys.storage.entities.audit_rows import CLI
from recsys.storage.external.external_database import parse_source_url

CLICKS = "CREATE TABLE clicks (no BIGINT PRIMARY KEY, who TEXT, sku TEXT, seen BIGINT, event TEXT)"
WITHIN_SECONDS = 30.0  # a second where nothing else runs


@pytest.fixture
def service(database, tmp_path, live_shop, publish, Service, settings_for):
    publish(live_shop, database, tmp_path / "models")
    with database.begin() as connection:
        item_rows.put_items(connection, live_shop.shop.items, 1)
    with closing(Service(database, settings_for(tmp_path / "models"))) as made:
        yield made


def items(answer):
    return [item["item_id"] for item in answer["items"]]


def walk(user, *names):
    return [{"user_id": user, "item_id": name} for name in names]


def follow(service):
    service.app.extensions["recsys"].recommender.live.follow_once(time.time_ns() // 1_000)


def test_a_new_item_has_followers_and_neighbours_as_soon_as_others_have(service):
    service.call("PUT", "/items", json={"item_id": "fresh", "categories": ["Kitchen"]})
    for address in ("/items/fresh/next", "/items/fresh/similar"):
        found = service.get(address)["items"]
        assert {item["source"] for item in found} <= {"popular"}
    for number in range(4):
        service.post("/events", walk(f"v{number}", "P0001", "fresh", "P0009"))
    follow(service)
    after = service.get("/items/fresh/next")["items"]
    assert [(item["item_id"], item["source"]) for item in after] == [("P0009", "transitions")]
    assert items(service.get("/items/P0001/next?k=60"))[0] == "fresh"
    alike = service.get("/items/fresh/similar?k=5")["items"]
    assert {item["source"] for item in alike} == {"lstm"}
    assert {"P0001", "P0009"} & {item["item_id"] for item in alike}
    assert "fresh" in items(service.get("/items/P0001/similar?k=60"))
    service.call("PATCH", "/items/fresh", json={"available": False})
    assert "fresh" not in items(service.get("/items/P0001/next?k=60"))
    assert "fresh" not in items(service.get("/items/P0001/similar?k=60"))


class Client:
    """Requests to one server with an admin's key."""

    def __init__(self, port, key):
        self.base, self.key = f"http://127.0.0.1:{port}/api/v1", key

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-API-Key": self.key, "Content-Type": "application/json"}
        asked = urllib.request.Request(self.base + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def next_items(self, user, k=5):
        return items(self.call("GET", f"/users/{user}/recommendations?k={k}"))

    def wait_for(self, user, item, shown=True):
        """Ask until the user's answer shows the item, or does no more."""
        end = time.monotonic() + WITHIN_SECONDS
        while (item in self.next_items(user)) is not shown:
            assert time.monotonic() < end, (user, item, self.next_items(user))
            time.sleep(0.1)


@pytest.mark.parametrize(
    "database_url", [pytest.param("sqlite", marks=pytest.mark.slow), "postgresql"], indirect=True
)
def test_every_process_answers_with_what_others_did_a_moment_ago(
    database, database_url, tmp_path, live_shop, publish
):
    """Two processes on one database, over the service's own table and an external one at once."""
    folder, shop_url = tmp_path / "models", database_url
    if database.dialect == "sqlite":
        shop_url = f"sqlite:///{tmp_path}/shop.db"
    shop = create_engine(parse_source_url(shop_url))
    with shop.begin() as connection:
        connection.execute(text(CLICKS))
        connection.execute(text("CREATE INDEX by_who ON clicks (who, seen)"))
    publish(live_shop, database, folder)
    names = ("fresh", "outside", "erased", "imported")
    with database.begin() as connection:
        described = [*live_shop.shop.items, *(check_item({"item_id": one}) for one in names)]
        item_rows.put_items(connection, described, 1)
        key = key_rows.create_key(connection, "test", ["admin"], 1)
    mapped = {
        "URL": shop_url,
        "TABLE": "clicks",
        "USER_COLUMN": "who",
        "ITEM_COLUMN": "sku",
        "TIMESTAMP_COLUMN": "seen",
        "ORDER_COLUMN": "no",
        "EVENT_ID_COLUMN": "event",
        "UNIT": "us",
        "ACCEPT_POSTS": "true",
    }
    more = {f"RECSYS_EVENTS__{name}": value for name, value in mapped.items()}
    more |= {"RECSYS_SERVING__CONTROL_SHARE": "0", "RECSYS_SERVING__LIVE_SECONDS": "0.3"}
    with ExitStack() as stack:
        one, two = (
            Client(stack.enter_context(running(database_url, folder, workers=1, **more))[0], key)
            for _ in range(2)
        )
        for number, item in enumerate(("P0001", "P0002", "P0003", "P0004")):
            one.call("POST", "/events", walk(f"asker{number}", item))
            assert not {*names} & {*two.next_items(f"asker{number}")}

        for number in range(3):
            one.call("POST", "/events", walk(f"v{number}", "P0001", "fresh"))
        two.wait_for("asker0", "fresh")
        one.call("PATCH", "/items/fresh", {"available": False})
        assert "fresh" not in two.next_items("asker0")

        now_us = time.time_ns() // 1_000
        with shop.begin() as connection:
            for number in range(3):
                for place, item in enumerate(("P0002", "outside")):
                    row = f"({2 * number + place + 1}, 'o{number}', '{item}', {now_us + place},"
                    connection.execute(text(f"INSERT INTO clicks VALUES {row} 'c{number}{place}')"))
        two.wait_for("asker1", "outside")

        for number in range(3):
            one.call("POST", "/events", walk(f"eve{number}", "P0003", "erased"))
        two.wait_for("asker2", "erased")
        for number in range(3):
            one.call("DELETE", f"/users/eve{number}")
        two.wait_for("asker2", "erased", shown=False)

        log, now = tmp_path / "more.csv", datetime.now(UTC)
        rows = [
            f"i{number},{item},{now_us + place}"
            for number in range(3)
            for place, item in enumerate(("P0004", "imported"))
        ]
        log.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
        options = ReadOptions(unit="us")
        done = pipeline.import_events(database, log, options, now, lambda *_: None)
        assert done.accepted == 6
        two.wait_for("asker3", "imported")
        imports.undo(database, CLI, done.import_id, time.time_ns() // 1_000)
        two.wait_for("asker3", "imported", shown=False)

        # Nobody else knows this item, and no process waits for its live log.
        one.call("POST", "/events", walk("self", "P0005", "my own", "P0005"))
        own = two.call("GET", "/users/self/recommendations?k=20&exclude_seen=none")
        assert "my own" in items(own)
    shop.dispose()
