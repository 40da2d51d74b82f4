"""Lists that sort by a column, the search over everything, and a training's page as it goes."""

import re

import pytest

from jobs.run_log import RunLog
from recsys.events.fields import Event
from recsys.events.times import from_us
from recsys.ingest.item_body import check_item
from recsys.models.lstm.checkpoint import Progress
from recsys.steering.experiment_spec import Arm, ExperimentSpec
from recsys.steering.scenario_spec import ScenarioSpec
from recsys.storage.entities import (
    account_rows,
    event_rows,
    experiment_rows,
    item_rows,
    job_rows,
    scenario_rows,
    version_rows,
)
from recsys.web.services import now_us


@pytest.fixture
def desk(bare, add_account, version_row):
    """Clients of a viewer and an admin, over a few users, items, versions and runs."""
    now = now_us()
    events = [
        Event(user, None, f"i{at}", "view", now - 10_000_000 * at, f"{user}{at}")
        for user, count in (("ann", 3), ("bob", 1), ("cid", 2))
        for at in range(count)
    ]
    clients = {}
    with bare.database.begin() as connection:
        event_rows.insert_events(connection, events, now)
        made = {"i0": "Blue Teapot", "i1": "100% Wool", "i2": "Rug"}
        item_rows.put_items(
            connection, [check_item({"item_id": i, "title": t}) for i, t in made.items()], now
        )
        for name, state in (("v1", "candidate"), ("v2", "refused"), ("v3", "candidate")):
            version_rows.add_version(connection, version_row(name, state=state))
        for at in range(27):
            run_id = job_rows.request_run(connection, "prune", "cli", now)
            job_rows.finish_run(connection, run_id, "failed" if at % 2 else "succeeded", now)
        scenario_rows.add_version(connection, "Home-page", ScenarioSpec(), "ann", now)
        spec = ExperimentSpec((Arm("now"), Arm("none", hold_out=True)))
        experiment_rows.put_draft(connection, "hold-out", spec, "ann", now)
        for role in ("viewer", "admin"):
            add_account(connection, role, role)
            token = account_rows.begin_session(connection, role, None, now)
            clients[role] = bare.app.test_client()
            clients[role].set_cookie("recsys_admin", token)
    return clients


def get(client, path, status=200):
    answer = client.get(f"/admin/{path}")
    assert answer.status_code == status, answer.get_data(as_text=True)[:2_000]
    return answer.get_data(as_text=True)


def column(page, label):
    cells = re.findall(rf'data-label="{label}"[^>]*>(.*?)</t[dh]>', page, re.S)
    return [re.sub(r"<[^>]+>|\s+", "", cell) for cell in cells]


@pytest.mark.parametrize(
    ("path", "label", "first"),
    [
        ("users?sort=events", "Visitor", ["bob", "cid", "ann"]),
        ("users?sort=-name", "Visitor", ["cid", "bob", "ann"]),
        ("models?sort=version", "Version", ["v1", "v2", "v3"]),
        ("models?sort=-state", "Version", ["v2", "v3", "v1"]),
        ("keys?sort=name", "Requests", ["0", "0", "0", "0"]),
        ("jobs?sort=run", "Run", ["1", "2", "3"]),
        ("jobs?sort=-state", "State", ["succeeded"] * 14 + ["failed"]),
    ],
)
def test_lists_sort_by_their_columns(desk, path, label, first):
    page = get(desk["admin"], path)
    listed = page.partition('id="runs"')[2] or page  # Jobs has its schedules above
    assert column(listed, label)[: len(first)] == first
    keys = re.findall(r'<b class="breaks">(\w+)</b>', page)
    assert keys == (["admin", "page", "read", "write"] if path.startswith("keys") else [])
    direction = "descending" if "=-" in path else "ascending"
    assert page.count(f'aria-sort="{direction}"') == 1
    assert re.search(r'<th[^>]*aria-sort[^>]*><a href="[^"]+sort=', page)  # by keyboard, too


def test_a_sorted_list_goes_on_where_the_page_before_ended(desk):
    page = get(desk["admin"], "jobs?sort=-state")
    address = re.search(r'rel="next" href="/admin/([^"]+)"', page)[1].replace("&amp;", "&")
    rest = get(desk["admin"], address)
    runs = [int(run) for run in column(page, "Run") + column(rest, "Run")]
    assert len(column(page, "Run")) == 25 and sorted(runs) == list(range(1, 28))
    for path in (
        "users",
        "models",
        "keys",
        "jobs",
        "data-quality/quarantine",
        "data-quality/imports",
    ):
        assert "expected one of" in get(desk["admin"], f"{path}?sort=nonsense", 422)
        get(desk["admin"], path)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("ann", "/admin/users/one?user_id=ann"),
        ("teapot", "/admin/items/one?item_id=i0"),
        ("i1", "/admin/items/one?item_id=i1"),
        ("0% w", "/admin/items/one?item_id=i1"),
        ("V2", "/admin/models/v2"),
        ("7", "/admin/jobs/runs/7"),
        ("prune", "/admin/jobs/runs/27"),
        ("quality", "/admin/data-quality"),
        ("home", "/admin/scenarios/one/Home-page"),
        ("OLD-O", "/admin/experiments/hold-out"),
    ],
)
def test_the_search_finds_everything(desk, asked, found):
    page = get(desk["viewer"], f"search/results?q={asked.replace('%', '%25')}")
    assert f'href="{found}"' in page
    assert page.count("<li>") <= 30


def test_the_search_respects_rights_and_bounds(desk):
    assert "Accounts" in get(desk["admin"], "search/results?q=acc")
    assert "No matches" in get(desk["viewer"], "search/results?q=acc")
    assert "No matches" in get(desk["viewer"], "search/results?q=99999999999999999999")
    assert "256 characters" in get(desk["viewer"], f"search?q={'x' * 257}", 422)
    page = get(desk["viewer"], "search?q=%3Cb%3E")
    assert "<b>" not in page.partition("<main")[2] and "&lt;b&gt;" in page


def test_a_training_tells_its_stages_and_its_loss(desk, bare):
    now = now_us()
    with bare.database.begin() as connection:
        run_id = job_rows.request_run(connection, "retrain", "cli", now)
        job_rows.start_run(connection, run_id, 1, "host", now)
    log = RunLog(bare.database, run_id)
    run = log.training_run(from_us(now))
    run.on_stage("reading")
    run.on_stage("fitting")
    for at in range(1, 13):
        run.on_progress(Progress("train", 1 + (at - 1) // 6, 2, at / 12, 1.0, 1.0, 9 - at / 2))
    log.beat()
    page = get(desk["viewer"], f"jobs/runs/{run_id}")
    assert re.findall(r'<li class="over">(\w+)', page) == ["reading"]
    assert '<li aria-current="step">fitting' in page and "train, epoch 2 of 2" in page
    assert "40%" in page  # half of the fitting: what it takes to refit is still to come
    assert '"values":[8.5,8.0,' in page and "3.000 after 2.0 epochs, 8.500 at first." in page
    run.on_stage("evaluating")
    run.on_progress(Progress("final pass", 1, 1, 1.0, 1.0, 1.0, 2.5))
    log.beat()
    page = get(desk["viewer"], f"jobs/runs/{run_id}")
    assert '<li aria-current="step">evaluating' in page and "75%" in page
