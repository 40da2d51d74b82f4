"""What others did a moment ago, in the lists of items."""

import time
from contextlib import closing

import pytest

from recsys.storage.entities import item_rows


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
