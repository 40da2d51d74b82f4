"""Experiments over REST: who is in which arm, what it changes, what is reported."""

import time
from collections import Counter
from datetime import UTC, datetime

import pytest

from recsys.ops import experiment_upkeep, upkeep
from recsys.steering.sample_ratio import ALARM, sample_ratio_p
from recsys.storage.entities import audit_rows

SHORT = {"name": "short", "settings": {"k": 3}}
TRIAL = {"name": "trial", "arms": [{"name": "now"}, SHORT], "allocation": 0.5}


@pytest.fixture
def shop(bare):
    """A service without a model, which shows what is popular."""
    clicks = [
        {"item_id": f"i{place}", "user_id": f"u{n}"} for place in range(6) for n in range(place + 1)
    ]
    bare.post("/events", clicks)
    return bare


def start(service, **changes):
    body = {**TRIAL, **changes}
    service.post("/experiments", body)
    return service.post(f"/experiments/{body['name']}/start", {})


def arms_of(service, users, **more):
    found = {}
    for user in users:
        answer = service.get(f"/users/{user}/recommendations?k=5", scope="read", **more)
        found[user] = (answer["experiments"].get("trial"), len(answer["items"]))
    return found


def test_arms_change_answers_and_a_ramp_moves_nobody(shop):
    users = [f"visitor{number}" for number in range(60)]
    start(shop)
    before = arms_of(shop, users)
    assert set(before.values()) == {(None, 5), ("now", 5), ("short", 3)}
    inside = Counter(arm for arm, _ in before.values() if arm)
    assert sample_ratio_p([inside["now"], inside["short"]], (1, 1)) > ALARM
    assert shop.post("/experiments/trial/start", {"allocation": 0.9})["allocation"] == 0.9
    after = arms_of(shop, users)
    assert {user: one for user, one in after.items() if before[user][0]} == {
        user: one for user, one in before.items() if one[0]
    }
    assert sum(arm is not None for arm, _ in after.values()) > sum(inside.values())
    shop.post("/experiments/trial/start", {"allocation": 0.2}, status=409)
    outside = next(user for user, one in after.items() if one[0] is None)
    shop.call("PUT", "/experiments/trial/testers", json={"user_id": outside, "arm": "short"})
    assert arms_of(shop, [outside])[outside] == ("short", 3)
    told = shop.get("/experiments/trial")
    assert told["testers"] == [{"user_id": outside, "session_id": None, "arm": "short"}]
    shop.app.extensions["recsys"].impressions.flush()
    report = shop.get("/experiments/trial/report")
    assert sum(arm["users"] for arm in report["arms"]) == sum(
        bool(one[0]) for one in after.values()
    )
    shop.call("PUT", "/experiments/trial/testers", json={"user_id": outside, "arm": None})
    shop.call("POST", "/experiments/trial/stop")
    assert {one[0] for one in arms_of(shop, users).values()} == {None}
    shop.call("POST", "/experiments/trial/stop", status=409)
    shop.post("/experiments/trial/start", {}, status=409)


def test_what_cannot_be_is_refused_by_name(shop):
    def refused(status, **changes):
        found = shop.call("POST", "/experiments", json={**TRIAL, **changes}, status=status)
        return [one["field"] for one in found.get_json()["errors"]]

    missing = {"name": "b", "model_version": "20990101-000000-abcdef"}
    assert refused(422, arms=[{"name": "a"}, missing]) == ["arms[1].model_version"]
    assert refused(422, arms=[{"name": "a"}, {"name": "b", "settings": {"kk": 1}}]) == [
        "arms[1].settings.kk"
    ]
    rule = {"name": "b", "settings": {"filter": "prise<3"}}
    assert refused(422, arms=[{"name": "a"}, rule]) == ["arms[1].settings.filter"]
    shop.call("PUT", "/scenarios/pinned", json={"pins": [{"item_id": "P0001", "position": 4}]})
    few = {
        "name": "b",
        "settings": {"k": 3},
    }  # fine by itself, and not beside what the scenario says
    assert refused(422, scenario="pinned", arms=[{"name": "a"}, few]) == [
        "arms[1].settings.pins[0].position"
    ]
    version = {"name": "b", "scenario_version": 9}
    assert refused(422, scenario="home", arms=[{"name": "a"}, version]) == [
        "arms[1].scenario_version"
    ]
    assert refused(422, name="No Name") == ["name"]
    assert refused(422, allocation=0) == ["allocation"]
    assert refused(422, ramp=1) == ["ramp"]
    shop.call("POST", "/experiments", json=TRIAL, scope="write", status=403)
    shop.call("GET", "/experiments/none", status=404)
    shop.post("/experiments", TRIAL)
    shop.post("/experiments", {**TRIAL, "note": "again"})
    shop.call("POST", "/experiments/trial/stop", status=409)
    shop.post("/experiments/trial/promote", {}, status=409)
    shop.call("DELETE", "/experiments/trial")
    start(shop)
    shop.post("/experiments", TRIAL, status=409)  # its arms stay as they are
    shop.call("DELETE", "/experiments/trial", status=409)
    shop.post("/experiments/trial/promote", {}, status=409)  # no arm is surely better
    shop.post("/experiments/trial/promote", {"arm": "short"}, status=409)  # no scenario to give
    assert refused(409) == []
    other = {**TRIAL, "name": "other"}
    shop.post("/experiments", other)
    told = shop.post("/experiments/other/start", {}, status=409)["detail"]
    assert "experiment trial" in told and "group" in told
    names = [one["name"] for one in shop.get("/experiments?limit=1")["experiments"]]
    cursor = shop.get("/experiments?limit=1")["next_cursor"]
    names += [one["name"] for one in shop.get(f"/experiments?cursor={cursor}")["experiments"]]
    assert sorted(names) == ["other", "trial"]


def test_clicks_and_conversions_are_reported_and_the_better_arm_is_promoted(shop):
    shared = shop.app.extensions["recsys"]
    shop.post("/experiments", {**TRIAL, "scenario": "home", "allocation": 1.0})
    least = shop.get("/experiments/trial")["minimum_detectable"]
    assert [one["days"] for one in least] == [7, 14, 28] and least[0]["effect"] is None
    shop.post("/experiments/trial/start", {})
    arms = {}
    for number in range(40):
        user = f"visitor{number}"
        answer = shop.get(f"/users/{user}/recommendations?k=5&scenario=home", scope="read")
        arms[user] = answer["experiments"]["trial"]
        shown = {"item_id": answer["items"][0]["item_id"], "user_id": user}
        named = {**shown, "recommendation_id": answer["recommendation_id"], "event_type": "view"}
        shop.post("/events", named, scope="write")
        if arms[user] == "short":
            bought = {**shown, "event_type": "purchase", "value": 10.0}
            shop.post("/events", bought, scope="write")
    plain = shop.get("/users/visitor1/recommendations", scope="read")
    assert plain["experiments"] == {}  # another place
    shared.impressions.flush()
    now = datetime.now(UTC)
    upkeep.attribute_clicks(shop.database, now)
    assert (
        experiment_upkeep.follow(shared.settings, shop.database, now)
        == Counter(arms.values())["short"]
    )
    report = shop.get("/experiments/trial/report")
    base, short = report["arms"]
    number = Counter(arms.values())
    assert (base["users"], base["clicks"], base["converted"]) == (number["now"], number["now"], 0)
    assert (short["converted"], short["value"]) == (number["short"], 10.0 * number["short"])
    assert short["conversion"]["estimate"] == 1.0 and report["leader"] is None
    assert report["verdict"] == "No arm can be told apart from “now” yet."
    assert len(report["looks"]) == 1
    assert shop.post("/experiments/trial/promote", {"arm": "short"})["promoted"] == "short"
    answer = shop.get("/users/visitor1/recommendations?k=5&scenario=home", scope="read")
    assert len(answer["items"]) == 3 and answer["experiments"] == {}
    assert shop.get("/experiments/trial")["state"] == "stopped"
    (made,) = shop.get("/scenarios/home/versions")["versions"]
    assert (made["spec"], made["note"]) == ({"k": 3}, "arm short of experiment trial")
    with shop.database.connect() as connection:
        lines = audit_rows.list_audit(connection, action="scenario")
    assert [(one.action, one.details["version"]) for one in lines] == [("scenario.put", 1)]


def test_a_shadow_is_ranked_and_logged_and_not_shown(shop):
    shared = shop.app.extensions["recsys"]
    start(shop, arms=[{"name": "now"}, {**SHORT, "name": "dark", "shadow": True}], allocation=1.0)
    answers = [
        shop.get(f"/users/visitor{number}/recommendations?k=5", scope="read")
        for number in range(12)
    ]
    assert {len(one["items"]) for one in answers} == {5}
    dark = [one for one in answers if one["experiments"]["trial"] == "dark"]
    shared.recommender.shadows.flush()
    shared.impressions.flush()
    (found,) = shop.get("/experiments/trial/report")["shadows"]
    assert found["answers"] == len(dark) > 0
    assert found["overlap"] == pytest.approx(3 / 5)
    assert found["milliseconds"] > 0


def test_a_hold_out_sees_what_is_popular_whatever_the_scenario_says(service, tiny_shop):
    names = [item.item_id for item in tiny_shop.shop.items[:6]]
    seen = [
        {"item_id": name, "user_id": f"u{n}"}
        for at, name in enumerate(names)
        for n in range(6 - at)
    ]
    service.post("/events", seen)
    service.post("/events", [{"item_id": names[5], "user_id": f"visitor{n}"} for n in range(12)])
    pins = [{"item_id": tiny_shop.shop.items[9].item_id, "position": 1}]
    service.call("PUT", "/scenarios/home", json={"k": 4, "pins": pins, "exclude_seen": "none"})
    arms = [{"name": "now"}, {"name": "held", "hold_out": True}]
    start(service, arms=arms, scenario="home", allocation=1.0)
    found = {"now": [], "held": []}
    for number in range(12):
        asked = f"/users/visitor{number}/recommendations?k=4&scenario=home&exclude_seen=none"
        answer = service.get(asked, scope="read")
        found[answer["experiments"]["trial"]].append(answer)
    popular = [names[5], *names[:3]]
    for answer in found["held"]:
        assert [one["item_id"] for one in answer["items"]] == popular
        assert {one["source"] for one in answer["items"]} == {"popular"}
        assert answer["arm"] == "experiment"
    for answer in found["now"]:
        sources = [one["source"] for one in answer["items"]]
        assert sources[0] == "pinned" and "popular" not in sources
        assert answer["arm"] == "champion"
    assert found["now"] and found["held"]


def test_an_arm_answers_by_its_model_version_and_that_one_is_kept(
    service, tiny_shop, publish, database
):
    shared = service.app.extensions["recsys"]
    older = shared.recommender.bundle().version
    publish(tiny_shop, database, shared.settings.registry.path, version="20990101-000000-abcdef")
    wait_until(lambda: shared.recommender.bundle().version != older)
    start(service, arms=[{"name": "now"}, {"name": "old", "model_version": older}], allocation=1.0)
    wait_until(lambda: older in shared.recommender.models().arms)
    found = {
        (one["experiments"]["trial"], one["model_version"] == older, one["arm"])
        for one in (
            service.get(f"/users/visitor{number}/recommendations", scope="read")
            for number in range(12)
        )
    }
    assert found == {("now", False, "champion"), ("old", True, "experiment")}
    (word,) = service.get("/experiments/trial/report")["words"]
    assert word["version"] == older and word["gate"]
    assert service.post("/experiments/trial/promote", {"arm": "old"})["promoted"] == "old"
    wait_until(lambda: shared.recommender.bundle().version == older)


def wait_until(holds):
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
