"""Answers are kept, told again with what was clicked, and go after their time."""

from recsys.ops import upkeep
from recsys.serving import answering
from recsys.serving.answers import Request
from recsys.web.services import now_us
from tests.integration.test_serving import items, services, view


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
            answering.recommend(recommender, Request(user_id="u", scenario=scenario), now_us())
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
