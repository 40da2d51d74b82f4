"""A file from the browser to the events, in a real browser.

No page may write an error to the console or ask another host for anything.
"""

import json
import os
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import expect
from werkzeug.serving import make_server

from jobs.runs import run_in_this_process
from recsys import pipeline
from recsys.config import Settings
from recsys.ingest.event_files import ReadOptions
from recsys.storage.engine.database import Database
from recsys.storage.entities import event_rows, import_rows, job_rows, version_rows
from recsys.storage.entities.version_rows import VersionRow
from recsys.storage.schema import migrate
from tests.integration.test_dashboard import Dashboard, faults_of_pages, used
from tests.integration.test_imports_page import csv_of, json_lines_of, rows

# A browser that leaves a page leaves files half sent.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SIZES = {"wide": (1280, 800), "narrow": (390, 844)}
DROP = """([name, text]) => {
  const given = new DataTransfer();
  given.items.add(new File([text], name));
  const form = document.querySelector("[data-upload]");
  for (const kind of ["dragenter", "dragover", "drop"])
    form.dispatchEvent(new DragEvent(kind, { dataTransfer: given, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def running(browser, tmp_path_factory, Service, add_account):
    folder = tmp_path_factory.mktemp("imports")
    url = f"sqlite:///{folder}/recsys.db"
    database = Database(url)
    migrate.upgrade(database)
    settings = Settings(
        database={"url": url},
        registry={"path": folder / "models"},
        events={"upload_path": folder / "uploads", "upload_mib": 1},
        serving={"max_body_bytes": 4_096},  # so that a small file comes in several parts
    )
    with database.begin() as connection:
        add_account(connection, "root", "admin")
    with closing(Service(database, settings)) as service:
        server = make_server("127.0.0.1", 0, service.app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made = Dashboard(browser, folder, f"http://127.0.0.1:{server.server_port}", database)
        made.settings = settings
        yield made
        server.shutdown()
    database.close()


@pytest.fixture
def dashboard(running):
    yield from used(running)


def do_run(dashboard, job):
    """What the scheduler's child does with the run of `job` that waits."""
    with dashboard.database.connect() as connection:
        run = job_rows.list_runs(connection, 1, job=job, state="requested")[0]
    assert run_in_this_process(dashboard.settings, run.id)


def test_a_file_is_dropped_checked_imported_and_undone(dashboard):
    page = dashboard.log_in()
    page.get_by_role("link", name="Data quality").click()
    page.get_by_role("link", name="Imports").click()
    expect(page.get_by_role("heading", name="Import events from a file")).to_be_visible()
    page.wait_for_load_state("load")
    page.evaluate(DROP, ["clicks.csv", csv_of(rows(400), "visitor,sku,time").decode()])
    expect(page.get_by_role("heading", name="Import clicks.csv")).to_be_visible()
    expect(page.get_by_role("combobox", name="Unit of numeric times")).to_have_value("ms")
    expect(page.get_by_role("combobox", name="User", exact=True)).to_have_value("visitor")
    expect(page.get_by_text("200 of the first 200 rows are events")).to_be_visible()
    address = page.url.removeprefix(f"{dashboard.base}/admin/")
    page.get_by_role("button", name="Check the whole file").click()
    expect(page.get_by_text("Check: waiting for the scheduler")).to_be_visible()
    do_run(dashboard, "check")
    expect(page.get_by_role("heading", name="Check of the whole file")).to_be_visible()
    for name, (width, height) in SIZES.items():
        for theme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=theme)
            assert faults_of_pages(page, dashboard.base, [address]) == [], (name, theme)
            if folder := os.environ.get("SCREENSHOTS"):
                page.screenshot(path=Path(folder) / f"upload-{name}-{theme}.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 800})
    page.get_by_role("button", name="Import 400 events").click()
    page.get_by_role("dialog").get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("Import: waiting for the scheduler")).to_be_visible()
    do_run(dashboard, "import")
    expect(page.get_by_role("heading", name="Import 1: clicks.csv")).to_be_visible()
    assert dashboard.audit("events.import") == ["clicks.csv"]
    with dashboard.database.connect() as connection:
        counts = import_rows.get_import(connection, 1).counts
        newest = event_rows.user_events(connection, "u1", 1_000)
    assert (counts["read"], counts["accepted"]) == (400, 400) and newest.events
    paths = ["data-quality/imports", "data-quality/imports/1", "jobs", "jobs/runs/2"]
    for name, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        assert faults_of_pages(page, dashboard.base, paths) == [], name
        if folder := os.environ.get("SCREENSHOTS"):
            for path in paths[:2]:
                page.goto(f"{dashboard.base}/admin/{path}")
                shot = f"{path.replace('/', '-')}-{name}.png"
                page.screenshot(path=Path(folder) / shot, full_page=True)
    page.goto(f"{dashboard.base}/admin/data-quality/imports/1")
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("dialog").get_by_role("button", name="Undo import").click()
    expect(page.get_by_role("status").first).to_contain_text("Undo of import 1 requested")
    do_run(dashboard, "undo")
    expect(page.get_by_text("succeeded")).to_be_visible()
    assert dashboard.audit("import.undo") == ["1"]


def test_a_file_is_chosen_by_keyboard_and_what_fails_is_told(dashboard, tmp_path):
    page = dashboard.log_in()
    page.goto(f"{dashboard.base}/admin/data-quality/imports")
    chooser = page.locator("input[type=file]")
    chooser.focus()
    expect(chooser).to_be_focused()
    big = tmp_path / "big.csv"
    big.write_bytes(b"x" * (2**20 + 1))
    chooser.set_input_files(big)
    expect(page.get_by_role("alert")).to_contain_text("the limit is 1.0 MiB")
    (tmp_path / "empty.csv").touch()
    chooser.set_input_files(tmp_path / "empty.csv")
    expect(page.get_by_role("alert")).to_contain_text("empty.csv is empty")
    page.route("**/parts?*", lambda route: route.fulfill(status=413, body="{}"))
    good = tmp_path / "good.jsonl"
    good.write_bytes(json_lines_of(rows(60)))
    with page.expect_response("**/parts?*"):
        chooser.set_input_files(good)
    expect(page.get_by_role("alert")).to_contain_text("The server answered 413")
    page.unroute("**/parts?*")
    dashboard.wrong.clear()  # the refusal that was made up here
    chooser.set_input_files(good)
    expect(page.get_by_role("heading", name="Import good.jsonl")).to_be_visible()
    expect(page.get_by_text("60 of the first 60 rows are events")).to_be_visible()
    page.get_by_label("Item", exact=True).fill("no_such_column")
    page.get_by_role("button", name="Update preview").click()
    expect(page.get_by_role("alert")).to_contain_text("no_such_column")
    page.get_by_label("Item", exact=True).fill("productId")
    page.get_by_role("button", name="Update preview").click()
    expect(page.get_by_role("button", name="Check the whole file")).to_be_visible()
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard").click()
    expect(page.get_by_role("status").first).to_contain_text("was discarded")


def test_events_and_a_user_are_downloaded(dashboard, tmp_path):
    database = dashboard.database
    (tmp_path / "few.csv").write_bytes(csv_of(rows(20), "user_id,item_id,timestamp"))
    options = ReadOptions(unit="ms")
    pipeline.import_events(database, tmp_path / "few.csv", options, datetime.now(UTC))
    page = dashboard.log_in()
    page.get_by_role("link", name="Data quality").click()
    page.get_by_role("link", name="Export").click()
    for width, height in SIZES.values():
        page.set_viewport_size({"width": width, "height": height})
        assert faults_of_pages(page, dashboard.base, ["data-quality/exports"]) == []
    for _ in range(2):  # the page stays, and its button works again
        with page.expect_download() as given:
            page.get_by_role("button", name="Export events").click()
    assert given.value.suggested_filename == "events.jsonl"
    assert len(Path(given.value.path()).read_text().splitlines()) == 20
    page.goto(f"{dashboard.base}/admin/users/one?user_id=u1")
    with page.expect_download() as given:
        page.get_by_role("button", name="Export").click()
    found = json.loads(Path(given.value.path()).read_text())
    assert found["user_id"] == "u1" and {one["user_id"] for one in found["events"]} == {"u1"}


def test_no_table_of_models_is_clipped_where_there_is_room(dashboard):
    served = {"recall@20": 0.5123, "mrr@20": 0.2345, "mrr@20_low": 0.2312, "mrr@20_high": 0.2378}
    facts = {"metrics": {"served": {**served, "positions": 123_456}}}
    row = VersionRow(
        "20260101-000000-abcdef", 1, "refused", "session_knn", 1, 1_700_000_000_000_000,
        12_345_678, 1, 1, facts, {}, "0" * 64, 123_456_789,
    )  # fmt: skip
    with dashboard.database.begin() as connection:
        version_rows.add_version(connection, row)
    page = dashboard.log_in(viewport={"width": 1280, "height": 800})
    page.goto(f"{dashboard.base}/admin/models")
    promote = page.get_by_role("button", name="Promote").first
    expect(promote).to_be_visible()
    assert (
        page.evaluate(
            "[...document.querySelectorAll('.table')].filter(t => t.scrollWidth > t.clientWidth).length"
        )
        == 0
    )
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "models.png")
