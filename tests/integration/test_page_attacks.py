"""What was tried with a page's key, which stands in a page for anyone to read."""

import gzip
import json
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from recsys.config import Settings
from recsys.ops import upkeep
from recsys.ops.guard import guard_champion
from recsys.storage.entities import version_rows
from recsys.storage.schema.tables import events

NOTHING = {"candidates": ["P0001"], "exclude_items": ["P0001"]}
PAGE = {"Origin": "https://shop.example"}


@pytest.fixture
def page(Service, settings_for, database, tmp_path):
    """page(**auth): a service over an empty database."""
    opened = []

    def make(**auth):
        opened.append(Service(database, settings_for(tmp_path / "models", auth=auth)))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def post(service, body, status=200, address="192.0.2.1", path="/events", **more):
    return service.call(
        "POST",
        path,
        data=json.dumps(body),
        content_type="application/json",
        scope="collect",
        headers=PAGE,
        status=status,
        environ_overrides={"REMOTE_ADDR": address},
        **more,
    )


def stored(service):
    with service.database.connect() as connection:
        return connection.execute(select(func.count()).select_from(events)).scalar_one()


def test_a_flood_of_events_is_bounded_by_events_of_an_address(page):
    service = page(collect_events_per_minute=50)
    batch = [{"session_id": "s", "item_id": "tea"} for _ in range(30)]
    post(service, batch)
    refused = post(service, batch, status=429)
    assert int(refused.headers["Retry-After"]) >= 1
    post(service, batch, address="192.0.2.2")
    told = post(service, batch * 2, status=422).get_json()["errors"][0]
    assert told == {"field": "body", "message": "a page sends at most 50"}
    assert stored(service) == 60
    service.call("POST", "/events", json=[{"user_id": "u", **one} for one in batch * 4])


def test_a_flood_of_bytes_is_bounded_whatever_it_is_made_of(page):
    service = page(collect_bytes_per_minute=20_000, collect_per_minute=1_000)
    thick = {"session_id": "s", "item_id": "tea", "properties": {"note": "x" * 7_000}}
    assert [post(service, thick, status).status_code for status in (200, 200, 429)]
    long = [f"{n}{'x' * 200}" for n in range(100)]
    asked = {"session_id": "s", "candidates": long[:40], "k": 100}
    post(service, asked, 200, "192.0.2.3", "/recommendations")  # its answer is stored, and costs
    post(service, asked, 429, "192.0.2.3", "/recommendations")
    body = {"session_id": "s", "events": [{"item_id": one} for one in long]}
    post(service, body, 422, "192.0.2.4", "/recommendations")


def test_a_body_is_read_in_time_that_grows_with_its_length(page):
    """Empty gzip members cost no bytes once inflated, and each of 60,000 fields an error."""
    service = page()
    started = time.monotonic()
    members = gzip.compress(b"") * 40_000
    for encoded, told in (
        (members, "a gzip body of more than 100 members"),
        (gzip.compress(b"") + gzip.compress(b"[]"), "expected 1 to 10000 events, not 0"),
    ):
        headers = {**PAGE, "Content-Encoding": "gzip", "X-API-Key": service.keys["collect"]}
        answer = service.client.post(
            "/api/v1/events", data=encoded, content_type="application/json", headers=headers
        )
        assert answer.get_json()["errors"][0]["message"] == told
    fields = {f"k{number}": 1 for number in range(60_000)}
    asked = {"session_id": "s", **fields}
    errors = post(service, asked, 422, "192.0.2.5", "/recommendations").get_json()["errors"]
    assert [one["message"] for one in errors] == [
        "Value error, expected at most 100 fields, not 60,001"
    ]
    assert time.monotonic() - started < 20


def test_a_page_brings_few_types_of_events(page):
    """Each takes a place in the training, in counts and in lists, and may be any text."""
    service = page()
    service.call("POST", "/events", json={"user_id": "u", "item_id": "i", "event_type": "rent"})
    rows = [{"session_id": "s", "item_id": "i", "event_type": f"t{n:03}"} for n in range(400)]
    assert 150 <= post(service, rows).get_json()["accepted"] <= 200
    again = post(service, [*rows[:5], rows[-1], {**rows[0], "event_type": "rent"}]).get_json()
    assert [one["status"] for one in again["results"]] == ["accepted"] * 5 + [
        "rejected",
        "accepted",
    ]
    assert again["results"][5]["error"] == "event_type = 't399': a page brings no more types"
    service.call("POST", "/events", json={"user_id": "u", **rows[-1]})  # the shop's server may


def test_a_page_tells_of_what_happens_now(page):
    service = page()
    now_ms = time.time_ns() // 1_000_000
    rows = [
        {"session_id": "s", "item_id": "tea", "timestamp": now_ms - days * 86_400_000}
        for days in (0, 6, 8, 9_000)
    ]
    answer = post(service, rows).get_json()
    assert [one["status"] for one in answer["results"]] == ["accepted"] * 2 + ["rejected"] * 2
    assert "the last 7 days" in answer["results"][3]["error"]
    older = [{**one, "user_id": "u"} for one in rows]
    assert service.post("/events", older)["rejected"] == 0


@pytest.fixture
def two_models(database, tmp_path, tiny_shop, publish, Service, settings_for):
    """A service with a champion and, for half of all, the one before it; deployed long ago."""
    publish(tiny_shop, database, tmp_path / "models")
    publish(tiny_shop, database, tmp_path / "models", "20990101-000000-aaaaaa")
    settings = settings_for(
        tmp_path / "models", control_share=0.5, auth={"collect_per_minute": 10_000}
    )
    with closing(Service(database, settings)) as made:
        yield made


def judged(service, **promotion):
    """What the guard does an hour from now."""
    services(service).impressions.flush()
    later = datetime.now(UTC) + timedelta(hours=1)
    upkeep.attribute_clicks(service.database, later)
    settings = Settings(promotion={"guard_min_answers": 10, **promotion})
    return guard_champion(settings, service.database, later)


def services(service):
    return service.app.extensions["recsys"]


def test_empty_answers_to_pages_roll_nothing_back(two_models):
    with two_models.database.connect() as connection:
        champion = version_rows.champion_name(connection)
    for number in range(40):
        asked = {"session_id": f"s{number}", **NOTHING}
        answer = post(two_models, asked, path="/recommendations").get_json()
        assert answer["items"] == []
    assert judged(two_models) is None
    with two_models.database.connect() as connection:
        assert version_rows.champion_name(connection) == champion


def test_clicks_on_answers_to_pages_roll_nothing_back_and_no_arm_is_told(two_models):
    versions, arms = set(), set()
    for number in range(60):
        session = f"s{number}"
        asked = {"session_id": session, "events": [{"item_id": "P0001"}], "k": 5}
        answer = post(two_models, asked, path="/recommendations").get_json()
        versions.add(answer["model_version"])
        arms.add(answer["arm"])
        if number % 2:
            click = {"session_id": session, "item_id": answer["items"][0]["item_id"]}
            post(two_models, {**click, "recommendation_id": answer["recommendation_id"]})
    assert versions == {"20990101-000000-aaaaaa"} and arms == {"page"}
    assert judged(two_models) is None
    report = two_models.get("/reports/click-through?by=arm")
    (row,) = report["rows"]
    assert (row["arm"], row["shown"], row["clicks"]) == ("page", 60, 30)
    assert report["uplift"] is None


@pytest.mark.parametrize("told_by_page", [True, False])
def test_clicks_of_pages_on_answers_to_the_shop_roll_nothing_back(two_models, told_by_page):
    """The shop's server asks; an attacker's page, or the server, tells of clicks in one arm alone."""
    asked = {"events": [{"item_id": "P0001"}], "k": 5}
    requests = [{"user_id": f"u{number}", **asked} for number in range(100)]
    answers = two_models.post("/recommendations/batch", {"requests": requests})["answers"]
    control = [one for one in answers if one["arm"] == "control"]
    for one in control:
        click = {"recommendation_id": one["recommendation_id"], "session_id": "s"}
        click["item_id"] = one["items"][0]["item_id"]
        if told_by_page:
            post(two_models, click)
        else:
            two_models.post("/events", click)
    reason = judged(two_models)
    if told_by_page:
        assert reason is None
    else:
        assert "click-through minus the control arm's" in reason
    rows = two_models.get("/reports/click-through?by=arm")["rows"]  # which keep them
    assert {row["arm"]: row["clicks"] for row in rows} == {"champion": 0, "control": len(control)}


def test_the_guard_still_sees_what_the_shop_itself_asks_for(two_models):
    for number in range(40):
        asked = {"user_id": f"u{number}", **NOTHING}
        assert two_models.post("/recommendations", asked)["items"] == []
    assert "answers were empty" in judged(two_models)


def test_no_text_gets_into_popular_lists_and_new_visitors_answers(page):
    service = page(collect_per_minute=10_000)
    catalogue = [{"item_id": f"P{n}", "title": f"Thing {n}"} for n in range(3)]
    service.call("PUT", "/items", json=catalogue)
    service.call("POST", "/events", json=[{"user_id": "u", "item_id": "P1"}])
    for number in range(12):
        post(service, [{"session_id": f"s{number}", "item_id": "BUY AT EVIL"}] * 20)
    post(service, [{"session_id": "loud", "item_id": "P2"}] * 200)
    popular = service.get("/items/popular?k=10")["items"]
    assert [one["item_id"] for one in popular] == ["P1", "P2"]
    fresh = post(service, {"session_id": "new", "k": 10}, path="/recommendations").get_json()
    assert {one["item_id"] for one in fresh["items"]} == {"P0", "P1", "P2"}
