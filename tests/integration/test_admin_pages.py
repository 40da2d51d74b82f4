"""The pages over both databases: what they show, and what they make of bad input."""

import re
from dataclasses import replace

import pytest

from recsys.events.times import DAY_US, HOUR_US, from_us
from recsys.ops import upkeep
from recsys.storage.dashboard import activity_rows
from recsys.storage.entities import (
    account_rows,
    job_rows,
    lease_rows,
    live_quality_rows,
    schedule_rows,
)
from recsys.storage.entities.live_quality_rows import LiveQuality
from recsys.web.admin import figures
from recsys.web.services import now_us


@pytest.fixture
def visitor(service, add_account):
    """A client that is logged in as an admin."""
    client = service.app.test_client()
    with service.database.begin() as connection:
        add_account(connection, "ada", "admin")
        token = account_rows.begin_session(connection, "ada", None, now_us())
    client.set_cookie("recsys_admin", token)
    return client


def text_of(answer, status=200):
    assert answer.status_code == status, answer.get_data(as_text=True)
    return answer.get_data(as_text=True)


def post(client, path, status=303, **form):
    token = re.search(r'name="csrf_token" value="(\w+)"', text_of(client.get("/admin/account")))
    return text_of(client.post(path, data={"csrf_token": token.group(1), **form}), status)


def test_the_overview_shows_what_happened(service, visitor):
    page = text_of(visitor.get("/admin/overview?range=24h"))
    assert "No scheduler is running" in page and "recsys schedule" in page
    assert "No requests in this range." in page
    answer = service.get("/users/shopper-000001/recommendations?k=5")
    event = {"user_id": "u", "item_id": answer["items"][0]["item_id"]}
    service.post("/events", {**event, "recommendation_id": answer["recommendation_id"]})
    service.app.extensions["recsys"].close()
    settings = service.app.extensions["recsys"].settings
    upkeep.attribute_clicks(service.database, from_us(now_us()))
    upkeep.count_activity(settings, service.database, from_us(now_us()))
    for name in ("24h", "7d", "30d", "90d"):
        page = text_of(visitor.get(f"/admin/overview?range={name}"))
        assert "Click-through by version" in page and "100.00%" in page
        assert '"label":"view","values":[' in page and '"label":"p99"' in page
        assert "unsafe-inline" not in page and " style=" not in page
        assert re.search(r"<script(?![^>]*(src=|application/json))", page) is None
    today = f"{from_us(now_us()):%Y-%m-%d}"
    assert "Custom" not in text_of(visitor.get(f"/admin/overview?from={today}&to={today}"))


def test_the_overview_opens_with_how_things_stand(service, visitor):
    page = re.sub(r"\s+", " ", text_of(visitor.get("/admin/overview")))
    assert re.search(r"Version \S+ is serving\. [1-9] things? needs? your attention\.", page)
    now = now_us()
    with service.database.begin() as connection:
        schedule_rows.put_schedule(connection, "retrain", "0 3 * * *", now + 7_200_000_000, now)
        connection.execute(
            activity_rows.event_counts.insert(),
            [
                {"hour_us": now - now % HOUR_US - days * DAY_US, "event_type": "x", "events": count}
                for days, count in ((1, 1_500), (8, 1_000))
            ],
        )
    page = text_of(visitor.get("/admin/overview"))
    assert "The next training starts in 1 h 59 min" in page
    assert re.search(
        r'class="tile change up".{0,600}in this range, \+\d+% vs. previous period', page, re.S
    )
    with service.database.begin() as connection:
        schedule_rows.set_paused(connection, "retrain", True, now)
    assert "Training is paused." in text_of(visitor.get("/admin/overview"))


def test_the_event_counter_says_when_nothing_changed(service, visitor):
    part = text_of(visitor.get("/admin/overview/events"))
    shown = re.search(r"shown=(\d+)", part).group(1)
    assert visitor.get(f"/admin/overview/events?shown={shown}").status_code == 204
    service.post("/events", {"user_id": "u", "item_id": "i"})
    part = text_of(visitor.get(f"/admin/overview/events?shown={shown}"))
    assert f"{int(shown) + 1:,}" in part


BAD = (
    ("overview?range=1y", 422, "expected one of 24h, 7d"),
    ("overview?from=2025-01-01&to=nonsense", 422, "expected a day such as"),
    ("overview?from=2020-01-01&to=2025-01-01", 422, "400 at most"),
    ("overview?from=0001-01-01&to=0001-01-02", 422, "expected a day such as"),
    ("overview?from=9999-12-31&to=9999-12-31", 422, "expected a day such as"),
    ("overview?from=2999-12-31&to=2999-12-31", 200, "No data in this range"),
    ("models?cursor=tampered", 422, "next_cursor"),
    ("models?state=%3Cscript%3E", 422, "expected one of"),
    ("models/no-such-version", 404, "no model version"),
    ("models/%3Cscript%3Ealert(1)%3C%2Fscript%3E", 404, "no model version"),
    ("models/compare?version=a&version=b", 404, "no model version"),
    ("jobs?cursor=tampered", 422, "next_cursor"),
    ("jobs?job=" + "x" * 5_000, 422, "expected one of"),
    ("jobs/runs/999999999999999999999", 404, "no run"),
)


def test_bad_input_is_told_and_does_nothing(visitor):
    for path, status, said in BAD:
        page = text_of(visitor.get(f"/admin/{path}"), status)
        assert said in page, path
        assert "<script>" not in page and "Traceback" not in page


def test_models_are_listed_shown_promoted(service, visitor, tiny_shop):
    version = tiny_shop.bundle.version
    assert version in text_of(visitor.get("/admin/models"))
    assert "No matches" in text_of(visitor.get("/admin/models?state=refused"))
    page = text_of(visitor.get(f"/admin/models/{version}"))
    assert "Registered without an evaluation" in page
    post(visitor, f"/admin/models/{version}/promote", reason="<b>again</b>")
    page = text_of(visitor.get(f"/admin/models/{version}"))
    assert "is now the champion" in page
    assert "<b>again</b>" not in page and "&lt;b&gt;again" in page
    assert "is now the champion" not in text_of(visitor.get("/admin/models"))  # told once
    assert "no earlier champion" in post(visitor, "/admin/models/rollback", 409)
    assert "500 characters" in post(
        visitor, f"/admin/models/{version}/promote", 422, reason="x" * 501
    )
    away = visitor.get("/admin/models/compare?version=one")
    assert away.headers["Location"] == "/admin/models"
    assert "Choose two versions" in text_of(visitor.get("/admin/models"))


def test_jobs_are_asked_for_paused_and_cancelled(service, visitor):
    now = now_us()
    with service.database.begin() as connection:
        schedule_rows.put_schedule(connection, "prune", "30 4 * * * UTC", now + 3_600_000_000, now)
    post(visitor, "/admin/jobs/refresh/run")
    page = post(visitor, "/admin/jobs/refresh/run", 409)
    assert "already requested" in page and "Go to run 1" in page and "/admin/jobs/runs/1" in page
    post(visitor, "/admin/jobs/nonsense/run", 404)
    post(visitor, "/admin/jobs/tune/pause", 404)
    post(visitor, "/admin/jobs/prune/pause")
    assert "none while paused" in text_of(visitor.get("/admin/jobs"))
    post(visitor, "/admin/jobs/prune/resume")
    with service.database.connect() as connection:
        run = job_rows.list_runs(connection)[0]
    page = text_of(visitor.get(f"/admin/jobs/runs/{run.id}"))
    assert "No scheduler is running, so this run is waiting" in page
    part = text_of(visitor.get(f"/admin/jobs/runs/{run.id}/live"))
    shown = re.search(r"shown=(\w+)", part).group(1)
    again = visitor.get(f"/admin/jobs/runs/{run.id}/live?shown={shown}")
    assert again.status_code == 204
    post(visitor, f"/admin/jobs/runs/{run.id}/cancel")
    assert "already ended" in post(visitor, f"/admin/jobs/runs/{run.id}/cancel", 409)
    ended = visitor.get(f"/admin/jobs/runs/{run.id}/live?shown={shown}")
    assert ended.headers["HX-Refresh"] == "true"


@pytest.mark.parametrize(
    ("path", "way"),
    [("users/one?user_id=nobody", "Users"), ("models/x", "Models"), ("jobs/runs/99", "Jobs"),
     ("data-quality/imports/7", "Data quality"), ("data-quality/nothing", "Data quality"),
     ("nothing", None)],
)  # fmt: skip
def test_a_page_that_is_not_there_offers_a_way_on(visitor, path, way):
    page = text_of(visitor.get(f"/admin/{path}"), 404).partition("<main")[2]
    assert "Go to Overview" in page and (way is None or f"Go to {way}" in page)


def test_the_overview_asks_for_each_figure_once(visitor, monkeypatch):
    asked = []

    def count(name, ask):
        def counted(connection, chosen):
            asked.append((name, chosen.since_us))
            return ask(connection, chosen)

        monkeypatch.setattr(figures, name, counted)

    for name in ("event_figures", "live_quality_figures"):
        count(name, getattr(figures, name))
    text_of(visitor.get("/admin/overview"))
    assert len(asked) == len(set(asked)) == 4  # of this range, and of the one before


def test_runs_are_paged_and_filtered(service, visitor):
    with service.database.begin() as connection:
        now = now_us()
        for at in range(now - 30, now):
            run_id = job_rows.request_run(connection, "prune", "cli", at)
            job_rows.finish_run(connection, run_id, "failed" if (now - at) % 2 else "succeeded", at)
    page = text_of(visitor.get("/admin/jobs"))
    assert page.count('data-label="Run"') == 25
    next_page = re.search(r'rel="next" href="([^"]+)"', page).group(1).replace("&amp;", "&")
    assert next_page.startswith("/admin/jobs?")
    assert text_of(visitor.get(next_page)).count('data-label="Run"') == 5
    page = text_of(visitor.get("/admin/jobs?state=failed&job=prune"))
    assert page.count('data-label="Run"') == 15
    live = re.search(r'hx-get="(/admin/jobs/runs\?[^"]+)"', page).group(1).replace("&amp;", "&")
    assert "state=failed" in live
    assert visitor.get(live).status_code == 204
    assert "The last run of prune failed" in text_of(visitor.get("/admin/overview"))


def test_a_scheduler_that_fell_silent_is_a_problem(service, visitor):
    with service.database.begin() as connection:
        lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
        lease_rows.take_lease(connection, lease, "host:1", now_us() - 3_600_000_000)
    assert "last heartbeat was 1 h ago" in text_of(visitor.get("/admin/overview"))


def test_live_quality_is_shown_and_a_problem_where_popular_items_are_better(service, visitor):
    page = text_of(visitor.get("/admin/overview"))
    assert "No click ranked in this range" in page and "would find more" not in page
    hour_us = now_us() // HOUR_US * HOUR_US - HOUR_US
    with service.database.begin() as connection:
        found = LiveQuality(hour_us, 400, 100, 80, 40.0, 60, 30.0, 60, 20.0)
        live_quality_rows.put_hour(connection, found)
    for name in ("24h", "7d", "90d"):
        page = text_of(visitor.get(f"/admin/overview?range={name}"))
        assert "400 clicks in this range" in page and "25.0% of the items were new" in page
        assert '{"label":"as served","values":[' in page and "0.2" in page
        assert "would find more" not in page
    with service.database.begin() as connection:
        live_quality_rows.put_hour(connection, replace(found, popular_hits=100))
    page = text_of(visitor.get("/admin/overview"))
    assert "Popular items alone would find more of what comes next: 25.0%, not 20.0%" in page


def test_nothing_is_counted_on_the_way_of_a_page(service, visitor):
    """Of ten thousand events that were counted, a page reads none again."""
    now = now_us()
    with service.database.begin() as connection:
        connection.execute(
            activity_rows.event_counts.insert(),
            {"hour_us": now - now % DAY_US, "event_type": "view", "events": 10_000_000},
        )
    assert "10,000,000" in text_of(visitor.get("/admin/overview"))
