"""The dashboard in a real browser, over a real service and a scheduler process.

No page may write an error to the console or ask another host for anything.
"""

import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect
from werkzeug.serving import make_server

from recsys import pipeline
from recsys.config import load_settings
from recsys.events.times import HOUR_US, to_us
from recsys.ingest.event_files import ReadOptions
from recsys.ops import upkeep
from recsys.storage.dashboard import activity_rows
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    account_rows,
    audit_rows,
    item_rows,
    job_rows,
    live_quality_rows,
    version_rows,
)
from recsys.storage.entities.live_quality_rows import LiveQuality
from recsys.storage.schema import migrate
from recsys.training.run import Run
from recsys.web.app import create_app

ROOT = Path(__file__).parents[2]
AXE = ROOT / "tests" / "assets" / "axe.min.js"
PASSWORD = "correct horse battery"
CONFIG = """\
[database]
url = "sqlite:///{folder}/recsys.db"
[registry]
path = "{folder}/models"
[sequences]
input_event_types = ["view"]
target_event_types = ["view"]
max_length = 20
[model]
width = 16
[training]
epochs = 1
final_epochs = 0
refit = false
batch_events = 128
threads = 1
[evaluation]
bootstrap_draws = 100
[promotion]
min_positions = 50
margin = 0.5
learn_window = false
[schedule]
poll_seconds = 0.2
lease_seconds = 2
"""

# A browser that leaves a page leaves files half sent.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Dashboard:
    """A running service with a scheduler, and what a test does in the browser."""

    def __init__(self, browser, folder, base, database):
        self.browser, self.folder, self.base, self.database = browser, folder, base, database
        self.wrong = []
        self.contexts = []

    def page(self, **options):
        """A page of a new visitor; whatever it does wrong is noted."""
        context = self.browser.new_context(
            **{"viewport": {"width": 1280, "height": 800}, **options}
        )
        self.contexts.append(context)
        page = context.new_page()

        def route(route):
            if not route.request.url.startswith(self.base):
                self.wrong.append(f"asked {route.request.url}")
                route.abort()
            else:
                route.continue_()

        context.route(re.compile("^https?://"), route)
        page.on("console", lambda m: m.type == "error" and self.wrong.append(m.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        return page

    def log_in(self, name="root", **options):
        page = self.page(**options)
        page.goto(f"{self.base}/admin/")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Overview", exact=True)).to_be_visible()
        page.wait_for_load_state("load")
        return page

    def audit(self, action, actor="root"):
        """Subjects of the audit log's lines of `actor`, newest first."""
        with self.database.connect() as connection:
            lines = audit_rows.list_audit(connection, actor=actor, action=action)
        return [line.subject for line in lines]


@pytest.fixture(scope="module")
def running(browser, tiny_shop, tmp_path_factory, add_account):
    folder = tmp_path_factory.mktemp("dashboard")
    config = folder / "config.toml"
    config.write_text(CONFIG.format(folder=folder))
    settings = load_settings(config)
    database = Database(settings.database.url.get_secret_value())
    migrate.upgrade(database)
    now = datetime.now(UTC)
    pq.write_table(tiny_shop.events, folder / "events.parquet")
    pipeline.import_events(database, folder / "events.parquet", ReadOptions(), now)
    with database.begin() as connection:
        item_rows.put_items(connection, tiny_shop.shop.items, to_us(now))
        for role, name in (("admin", "root"), ("viewer", "looker"), ("operator", "locked")):
            add_account(connection, name, role)
    pipeline.train(settings, database, Run(now - timedelta(hours=1)))
    app = create_app(settings, database)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "recsys", "schedule", "--config", config],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield Dashboard(browser, folder, f"http://127.0.0.1:{server.server_port}", database)
    scheduler.terminate()
    scheduler.wait(timeout=30)
    server.shutdown()
    app.extensions["recsys"].close()
    database.close()


@pytest.fixture
def dashboard(running):
    yield from used(running)


def used(running):
    """What `running` is for one test: nothing is wrong at its end, and its pages are closed."""
    running.wrong.clear()
    yield running
    for context in running.contexts:
        context.close()
    running.contexts.clear()
    assert running.wrong == []


def faults_of_pages(page, base, paths):
    """What axe finds serious on each page, and which are wider than the window."""
    found = []
    for path in paths:
        page.goto(f"{base}/admin/{path}")
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        found += [f"{path} is {wide} px too wide"] if wide > 0 else []
        page.evaluate(AXE.read_text() + "; undefined")
        problems = page.evaluate("axe.run().then(result => result.violations)")
        found += [
            f"{path}: {one['id']} {[node['html'][:120] for node in one['nodes'][:3]]}"
            for one in problems
            if one["impact"] in ("serious", "critical")
        ]
    return found


def test_a_training_is_asked_for_watched_and_its_version_rolled_back(dashboard):
    page = dashboard.log_in()
    page.get_by_role("link", name="Jobs").click()
    row = page.get_by_role("row").filter(has=page.get_by_text("retrain", exact=True)).first
    row.get_by_role("button", name="Run now").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("A training starts at low priority")
    dialog.get_by_role("button", name="Run now").click()
    expect(page.get_by_role("status").first).to_contain_text("requested")
    expect(page.get_by_text("begun by process")).to_be_visible(timeout=30_000)  # the log moves
    expect(page.get_by_text("succeeded")).to_be_visible(timeout=60_000)  # without a reload by us
    expect(page.get_by_role("heading", name="Checks")).to_be_visible()
    with dashboard.database.connect() as connection:
        run = job_rows.list_runs(connection, 1, job="retrain")[0]
        newest, first = version_rows.list_versions(connection, 2)
    assert run.requested_by == "dashboard"
    assert dashboard.audit("job.run") == ["retrain"]
    with dashboard.database.begin() as connection:
        version_rows.deploy(connection, first.version, 1, "test", "known start")

    page.get_by_role("link", name=newest.version).click()
    page.get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"replaces {first.version}")
    dialog.get_by_label("Reason").fill("looks better")
    dialog.get_by_role("button", name="Promote").click()
    expect(page.get_by_role("status").first).to_contain_text("is now the champion")
    page.get_by_role("link", name="Models", exact=True).first.click()
    page.get_by_role("button", name="Roll back").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(first.version)
    dialog.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("status").first).to_contain_text(f"{first.version} is the champion")
    with dashboard.database.connect() as connection:
        assert version_rows.champion_name(connection)[0] == first.version
    assert dashboard.audit("model.promote") == [newest.version]
    assert dashboard.audit("model.promote", "cli") == [first.version]  # by the gate
    assert dashboard.audit("model.rollback") == [first.version]

    for version in (first.version, newest.version):
        page.get_by_label(f"Compare {version}").check()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Compare two versions")).to_be_visible()
    expect(page.get_by_role("heading", name="Paired difference")).to_be_visible()


def test_a_schedule_is_paused_and_goes_on(dashboard):
    page = dashboard.log_in()
    page.goto(f"{dashboard.base}/admin/jobs")  # the scheduler may start after it
    row = page.get_by_role("row").filter(has=page.get_by_text("prune", exact=True)).first
    for verb, state in (("Pause", "paused"), ("Resume", "scheduled")):
        row.get_by_role("button", name=verb).click()
        page.get_by_role("dialog").get_by_role("button", name=verb).click()
        expect(row).to_contain_text(state)
    assert dashboard.audit("job") [:2] == ["prune", "prune"]  # fmt: skip


def test_a_viewer_sees_no_way_to_steer(dashboard):
    page = dashboard.log_in("looker")
    for path in ("jobs", "models"):
        page.goto(f"{dashboard.base}/admin/{path}")
        expect(
            page.get_by_role("button", name=re.compile("Run now|Promote|Roll back"))
        ).to_have_count(0)


def test_repeated_failures_lock(dashboard):
    page = dashboard.page()
    page.goto(f"{dashboard.base}/admin/login")
    for _ in range(account_rows.ACCOUNT_FAILURES + 1):
        page.get_by_label("Name").fill("locked")
        page.get_by_label("Password").fill("not the password")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert").last).to_be_visible()
    expect(page.get_by_text("Too many attempts. Try again in 15 minutes.")).to_be_visible()
    # The browser notes each refusal by itself; nothing else may be wrong.
    refusals = [text for text in dashboard.wrong if "status of 4" in text]
    assert len(refusals) == account_rows.ACCOUNT_FAILURES + 1
    for text in refusals:
        dashboard.wrong.remove(text)


def test_the_counter_moves_and_a_lost_connection_is_told(dashboard):
    page = dashboard.log_in()
    page.goto(f"{dashboard.base}/admin/overview")
    counter = page.locator("#event-counter")
    before = int(counter.inner_text().replace(",", ""))
    with dashboard.database.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO events (user_bucket, user_id, item_id, event_type, timestamp_us, event_id,"
            " received_at_us) VALUES (0, 'new', 'i', 'view', 1, 'counted', 1)"
        )
    expect(counter).to_have_text(f"{before + 1:,}", timeout=6_000)
    page.context.set_offline(True)
    expect(page.get_by_text("Connection lost. Retrying")).to_be_visible(timeout=6_000)
    page.context.set_offline(False)
    expect(page.get_by_text("Connection lost. Retrying")).to_be_hidden(timeout=6_000)
    lost = ("ERR_INTERNET_DISCONNECTED", "htmx:")  # the browser and htmx note it, as they should
    dashboard.wrong[:] = [one for one in dashboard.wrong if not any(mark in one for mark in lost)]


def test_pictures_can_be_taken_along(dashboard):
    now = datetime.now(UTC)
    activity_rows.count_events(dashboard.database, to_us(now))
    settings = load_settings(dashboard.folder / "config.toml")
    upkeep.report_quality(settings, dashboard.database, now, lambda line: None)
    page = dashboard.log_in()
    page.goto(f"{dashboard.base}/admin/data-quality?range=90d")
    for title, head in (
        ("Concentration of popularity", ""),
        ("Sequence length", "Events,Users"),
    ):
        for kind in ("CSV", "PNG"):
            with page.expect_download() as found:
                page.get_by_role("button", name=f"{title} as {kind}").click()
            content = Path(found.value.path()).read_bytes()
            if kind == "PNG":
                assert content.startswith(b"\x89PNG") and len(content) > 2_000
            else:
                lines = content.decode().splitlines()
                assert lines[0].startswith(head) and len(lines) > 4
                assert sum(float(line.split(",")[1]) for line in lines[1:]) > 1


@pytest.mark.parametrize("width", [1280, 390])
def test_live_quality_is_drawn_with_its_number_of_clicks(dashboard, width):
    now_us = to_us(datetime.now(UTC))
    with dashboard.database.begin() as connection:
        for back in range(1, 60):
            at_us = (now_us // HOUR_US - back) * HOUR_US
            hits = 300 + 20 * (back % 5)
            found = LiveQuality(at_us, 500, 60, hits, hits * 0.5, 250, 110.0, 25, 8.0)
            live_quality_rows.put_hour(connection, found)
    page = dashboard.log_in(viewport={"width": width, "height": 800})
    page.goto(f"{dashboard.base}/admin/overview?range=7d")
    for title, labels in (
        ("Recall@20 just before each click", ["as served", "without live events"]),
        ("Clicks ranked", ["known items", "items new to the model"]),
    ):
        figure = page.locator("figure", has_text=title)
        expect(figure.locator("canvas, svg").first).to_be_visible()
        for label in labels:
            expect(figure.get_by_text(label).first).to_be_visible()
    section = page.get_by_role("region", name="Live quality").first
    expect(section).to_contain_text("29,500 clicks in this range")
    expect(section).to_contain_text("12.0% of the items were new to the model")
    row = section.get_by_role("row").filter(has_text="popular items")
    expect(row).to_contain_text("0.050")
    expect(row).to_contain_text("0.016")
    assert faults_of_pages(page, dashboard.base, ["overview"]) == []


def test_by_keyboard_and_on_a_phone(dashboard):
    page = dashboard.log_in(viewport={"width": 360, "height": 740})
    page.goto(f"{dashboard.base}/admin/jobs")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Models")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Models")).to_be_hidden()
    page.get_by_role("button", name="Run now").first.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_the_first_page_is_small(dashboard):
    page = dashboard.log_in()
    page.wait_for_load_state("networkidle")
    page.goto(f"{dashboard.base}/admin/overview")
    page.wait_for_load_state("load")
    sizes = page.evaluate(
        """performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
           .map(one => one.decodedBodySize)"""
    )
    assert 100_000 < sum(sizes) < 300_000
