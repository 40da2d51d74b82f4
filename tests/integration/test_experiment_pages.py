"""Experiments in the dashboard: drafted by a form, started, read and promoted."""

import re

import pytest

from recsys.steering.experiment_report import UnitSums
from recsys.storage.entities import account_rows, experiment_unit_rows
from recsys.storage.schema.tables import experiment_looks
from recsys.web.services import now_us

HOUR = 3_600 * 10**6


@pytest.fixture
def visitor(bare, add_account):
    """A client that is logged in as an operator."""
    client = bare.app.test_client()
    with bare.database.begin() as connection:
        add_account(connection, "ada", "operator")
        token = account_rows.begin_session(connection, "ada", None, now_us())
    client.set_cookie("recsys_admin", token)
    return client


def text_of(answer, status=200):
    assert answer.status_code == status, answer.get_data(as_text=True)
    return re.sub(r"\s+", " ", answer.get_data(as_text=True))


def post(client, path, status=303, **form):
    token = re.search(r'name="csrf_token" value="(\w+)"', text_of(client.get("/admin/account")))
    sent = {"csrf_token": token.group(1), **form}
    return text_of(client.post(f"/admin/experiments{path}", data=sent), status)


DRAFT = {
    "name": "varied",
    "metric": "conversion",
    "allocation": "10",
    "arm0": "now",
    "kind0": "now",
    "arm1": "short",
    "kind1": "settings",
    "value1": '{"k": 3}',
}


def test_an_experiment_from_the_form_to_its_end(bare, visitor):
    assert "No experiments yet" in text_of(visitor.get("/admin/experiments"))
    for change, said in (
        ({"allocation": "150"}, "at most 100 percent"),
        ({"value1": "{"}, "expected JSON"),
        ({"value1": '{"kk": 1}'}, "arms[1].settings.kk"),
        ({"name": "Not A Name"}, "beginning with a letter"),
        ({"arm1": ""}, "at least 2"),
    ):
        page = post(visitor, "/new", 422, **{**DRAFT, **change})
        assert said in re.search(r'id="problem".*?</p>', page)[0]
        assert "{&#34;k&#34;: 3}" in page or "value1" in change  # nothing has to be typed again
    post(visitor, "/new", **DRAFT)
    page = text_of(visitor.get("/admin/experiments/varied"))
    assert "What it can find" in page and "too few to say" in page
    post(visitor, "/varied/start", allocation="25")
    post(visitor, "/varied/start", 409, allocation="5")
    page = text_of(visitor.get("/admin/experiments/varied"))
    assert "25.0% of all" in page and "By the hour" not in page  # of one hour there is no line
    post(visitor, "/varied/testers", user="<b>eve</b>", arm="short")
    page = text_of(visitor.get("/admin/experiments/varied"))
    assert "&lt;b&gt;eve&lt;/b&gt;" in page and "<b>eve</b>" not in page
    post(visitor, "/varied/testers", unit="u:<b>eve</b>")
    post(visitor, "/varied/promote", 409, arm="short")  # of no scenario
    with bare.database.begin() as connection:
        for hour in range(30):
            for arm, bought in (("now", 10), ("short", 16)):
                sums = UnitSums(
                    *(100 * hour + 1, 200.0 * hour, 500.0 * hour, 20.0 * hour, 30.0 * hour),
                    *(60.0 * hour, bought * hour, bought * hour, 9.0 * hour, 90.0 * hour),
                )
                row = {"experiment": "varied", "hour_us": hour * HOUR, "arm": arm, **vars(sums)}
                connection.execute(experiment_looks.insert(), row)
        assert experiment_unit_rows.sums(connection, "varied")["short"].converted == 16 * 29
    page = text_of(visitor.get("/admin/experiments/varied"))
    assert "short is better than now in conversion. You may look at any time" in page
    assert '"label":"short − now"' in page and "Uplift in conversion" in page
    ticks = re.search(r'aria-label="Uplift in conversion">.*?</svg>', page, re.S)[0]
    assert re.search(
        r'class="tick"[^>]*>[2-9]<', ticks
    )  # in percentage points, as the figures beside it
    assert "unsafe-inline" not in page and " style=" not in page
    assert "short is better than now" in text_of(visitor.get("/admin/experiments"))
    post(visitor, "/varied/stop")
    page = text_of(visitor.get("/admin/experiments/varied"))
    assert "Stopped" in page and "Add tester" not in page
    post(visitor, "/new", **{**DRAFT, "name": "gone"})
    post(visitor, "/gone/delete")
    assert 'href="/admin/experiments/gone"' not in text_of(visitor.get("/admin/experiments"))
    text_of(visitor.get("/admin/experiments/none"), 404)
    text_of(visitor.get("/admin/experiments?cursor=tampered"), 422)
