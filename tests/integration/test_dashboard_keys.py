"""Keys, accounts, settings, audit and data quality in a real browser.

No page may write an error to the console or ask another host for anything.
"""

import json
import re
import threading
import urllib.error
import urllib.request
from contextlib import closing
from datetime import UTC, datetime

import pytest
from playwright.sync_api import expect
from werkzeug.serving import make_server

from recsys.events.times import to_us
from recsys.ingest.raw_rows import Rejection
from recsys.ops import upkeep
from recsys.storage.dashboard import activity_rows
from recsys.storage.engine.database import Database
from recsys.storage.entities.rejected_rows import add_rejections
from recsys.storage.schema import migrate
from tests.integration.test_dashboard import PASSWORD, Dashboard, used

# A browser that leaves a page leaves files half sent.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def running(browser, tmp_path_factory, Service, settings_for, add_account):
    folder = tmp_path_factory.mktemp("manage")
    database = Database(f"sqlite:///{folder}/recsys.db")
    migrate.upgrade(database)
    settings, now = settings_for(folder / "models"), datetime.now(UTC)
    with database.begin() as connection:
        add_account(connection, "root", "admin")
        add_rejections(connection, "clicks.csv", [Rejection(1, "item_id is missing", "{}")], 1)
    with closing(Service(database, settings)) as service:
        rows = [
            {"user_id": f"u{at % 9}", "item_id": f"i{at % 5}", "timestamp": to_us(now) // 1000 - at * 60_000}
            for at in range(200)
        ]  # fmt: skip
        service.post("/events", rows)
        activity_rows.count_events(database, to_us(now))
        upkeep.report_quality(settings, database, now, str)
        server = make_server("127.0.0.1", 0, service.app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Dashboard(browser, folder, f"http://127.0.0.1:{server.server_port}", database)
        server.shutdown()
    database.close()


@pytest.fixture
def dashboard(running):
    yield from used(running)


def ask(dashboard, key):
    """The status that the API answers with, asked with `key`."""
    request = urllib.request.Request(
        f"{dashboard.base}/api/v1/items/popular?k=3", headers={"X-API-Key": key}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert json.load(answer)["items"]
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_key_is_made_used_revoked_and_refused(dashboard):
    page = dashboard.log_in()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("link", name="Keys").click()
    page.get_by_role("link", name="New key").click()
    page.get_by_role("textbox", name="Name").fill("shop <b>backend</b>")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_text("Copy it now.")).to_be_visible()
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#toasts")).to_contain_text("Copied.")
    key = page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"rk_[0-9a-f]{12}_[\w-]{43}", key)
    assert page.locator("#key").inner_text() == key
    assert ask(dashboard, key) == 200

    page.get_by_role("link", name="I have copied it").click()
    assert key not in page.content()
    row = page.get_by_role("row").filter(has_text="shop <b>backend</b>")
    row.get_by_role("button", name="Revoke").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("with 401")
    dialog.get_by_role("button", name="Cancel").click()
    assert ask(dashboard, key) == 200
    row.get_by_role("button", name="Revoke").click()
    dialog.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("status").first).to_contain_text("revoked")
    assert ask(dashboard, key) == 401

    page.get_by_role("link", name="Audit").click()
    lines = page.get_by_role("row").filter(has_text=key.split("_")[1])
    expect(lines).to_have_count(2)
    expect(lines.nth(0)).to_contain_text("key.revoke")
    expect(lines.nth(1)).to_contain_text("key.create")
    lines.nth(1).locator("summary").click()
    expect(lines.nth(1)).to_contain_text("shop <b>backend</b>")
    with page.expect_download() as export:
        page.get_by_role("link", name="Export CSV").click()
    assert "key.revoke" in export.value.path().read_text()


def test_an_account_is_made_and_logs_in(dashboard):
    page = dashboard.log_in()
    page.get_by_role("link", name="Accounts").click()
    page.get_by_role("link", name="New account").click()
    page.get_by_label("Name").fill("grace")
    page.get_by_role("radio", name="operator").check()
    page.get_by_role("button", name="Create account").click()
    password = page.locator("#password").inner_text()
    other = dashboard.page()
    other.goto(f"{dashboard.base}/admin/login")
    other.get_by_label("Name").fill("grace")
    other.get_by_label("Password").fill(password)
    other.get_by_role("button", name="Log in").click()
    expect(other.get_by_role("link", name="Audit")).to_be_visible()
    expect(other.get_by_role("link", name="Accounts")).to_have_count(0)
    other.goto(f"{dashboard.base}/admin/settings")  # which asks for nothing by itself
    page.get_by_role("link", name="I have copied it").click()
    row = page.get_by_role("row").filter(has_text="grace")
    row.get_by_role("button", name="Disable").click()
    page.get_by_role("dialog").get_by_role("button", name="Disable").click()
    expect(page.get_by_role("status").first).to_contain_text("grace is disabled")
    other.reload()
    expect(other.get_by_role("heading", name="Log in")).to_be_visible()
    assert password != PASSWORD


def test_settings_are_searched(dashboard):
    page = dashboard.log_in()
    page.get_by_role("link", name="Settings").click()
    page.get_by_placeholder("Search keys and descriptions").fill("session gap")
    page.get_by_placeholder("Search keys and descriptions").press("Enter")
    expect(page.get_by_text("No matches")).to_be_visible()
    page.get_by_placeholder("Search keys and descriptions").fill("new session begins")
    page.get_by_placeholder("Search keys and descriptions").press("Enter")
    expect(page.get_by_text("session_gap_minutes")).to_be_visible()
