"""Add to your site: the dashboard's markup, on a page of another origin, turns its lights on."""

import html
import re

import pytest
from playwright.sync_api import expect

from recsys.storage.dashboard.page_signals import page_signals
from recsys.storage.entities import audit_rows
from tests.integration.clients.test_page_client import session_of, visitor
from tests.integration.test_admin_access import field, log_in
from tests.integration.test_dashboard import Dashboard, faults_of_pages, used

# A browser that leaves a page leaves files half sent.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def running(browser, served, add_account):
    with served.database.begin() as connection:
        add_account(connection, "root", "admin")
        add_account(connection, "looker", "viewer")
    return Dashboard(browser, None, served.url, served.database)


@pytest.fixture
def dashboard(running):
    yield from used(running)


def test_from_the_page_of_the_dashboard_to_a_click_attributed(dashboard, served, site):
    page = dashboard.log_in()
    page.get_by_role("link", name="Add to your site").click()
    page.get_by_label("Origin of your site").fill(site.origin + "/")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_text("Key created.")).to_be_visible()
    lights = page.locator("#signals li")
    expect(lights.locator(".badge")).to_have_text(["waiting"] * 3)
    page.get_by_text("A complete page to try it with").click()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy: A complete page").click()
    expect(page.locator("#toasts")).to_contain_text("Copied.")
    site.pages["/"] = page.evaluate("navigator.clipboard.readText()")
    assert f'<script src="{served.url}/client.js" data-key="rk_' in site.pages["/"]
    with visitor(dashboard.browser) as shop:
        shop.goto(site.origin)
        expect(lights.nth(1)).to_contain_text("A row came into view")
        row = shop.get_by_role("list", name="Recommended for you").get_by_role("listitem")
        chosen = row.first.get_attribute("data-item")
        row.first.get_by_role("link").click()
        expect(shop).to_have_url(re.compile(f"item={chosen}$"))
        expect(lights.nth(0)).to_contain_text(f"view of {chosen}")
        expect(lights.nth(2)).to_contain_text(f"view of {chosen}, from a recommendation")
        session = session_of(shop)
    expect(lights.locator(".badge")).to_have_text(["received"] * 3)
    assert len(served.stored(session)) == 1
    page.get_by_role("link", name="Add to your site").click()
    expect(page.locator("#script")).to_contain_text('data-key="YOUR_KEY"')
    expect(page.get_by_role("link", name=f"page {site.origin}")).to_be_visible()
    assert any(site.origin in str(line) for line in audit_of(dashboard))


def audit_of(dashboard):
    with dashboard.database.connect() as connection:
        return audit_rows.list_audit(connection, actor="root", action="key.create")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_accessible_and_fits(dashboard, theme):
    page = dashboard.log_in(color_scheme=theme, viewport={"width": 390, "height": 844})
    assert faults_of_pages(page, dashboard.base, ["site"]) == []
    page.set_viewport_size({"width": 1280, "height": 800})
    assert faults_of_pages(page, dashboard.base, ["site"]) == []


def test_origins_are_checked_and_viewers_only_look(bare, add_account):
    with bare.database.begin() as connection:
        add_account(connection, "root", "admin")
        add_account(connection, "looker", "viewer")
    client, looker = (log_in(bare, name)[0] for name in ("root", "looker"))

    def create(who, origin):
        token = field(who.get("/admin/account"))
        return who.post("/admin/site/key", data={"csrf_token": token, "origin": origin})

    for origin, status, told in (
        ("https://new.example/", 201, "Key created."),
        ("https://new.example", 409, "already named"),
        ("new.example", 422, "expected such as https://shop.example"),
        ("https://new.example/path", 422, "expected such as"),
        ("", 422, "expected such as"),
        ("https://<b>", 422, "https://&lt;b&gt;: expected such as"),
    ):
        answer = create(client, origin)
        assert (answer.status_code, told in answer.get_data(as_text=True)) == (status, True), origin
    assert create(looker, "https://other.example").status_code == 403
    shown = looker.get("/admin/site").get_data(as_text=True)
    assert "page https://new.example" in shown and "rk_" not in shown
    assert looker.get("/admin/site/signals?since=x").status_code == 422


def test_markup_in_the_catalogue_stays_text_where_the_markup_is_pasted(bare, add_account):
    with bare.database.begin() as connection:
        add_account(connection, "root", "admin")
    odd = {"item_id": 'a"><b>&', "title": "<script>alert(1)</script>"}
    bare.call("PUT", "/items", json=odd)
    shown = log_in(bare, "root")[0].get("/admin/site").get_data(as_text=True)
    for pasted in (
        '<main data-recsys-view="a&#34;&gt;&lt;b&gt;&amp;">',
        '<a href="?item=a%22%3E%3Cb%3E%26">&lt;script&gt;alert(1)&lt;/script&gt;</a>',
    ):
        assert pasted in html.unescape(shown)


def test_signals_are_of_pages_and_of_what_they_were_shown(service):
    page = {"scope": "collect", "headers": {"Origin": "https://shop.example"}}

    def signals(since=1):
        service.app.extensions["recsys"].impressions.flush()
        with service.database.connect() as connection:
            return page_signals(connection, since)

    service.post("/events", {"session_id": "s", "item_id": "P0001"})  # the shop's server
    service.post("/recommendations", {"user_id": "u"})
    found = signals()
    assert (found.event, found.answered_us, found.shown_us, found.click) == (None,) * 4
    answer = service.post("/recommendations", {"session_id": "s", "k": 3}, **page)
    items = [one["item_id"] for one in answer["items"]]
    found = signals()
    assert found.answered_us and found.shown_us is None
    own = {"session_id": "s", "recommendation_id": answer["recommendation_id"]}
    service.post("/impressions", {**own, "items": items[:1]}, **page)
    service.post("/events", {**own, "item_id": "not-shown"}, **page)
    found = signals()
    assert found.shown_us and found.event.item_id == "not-shown" and found.click is None
    service.post("/events", {**own, "item_id": items[0]}, **page)
    found = signals()
    assert (found.click.event_type, found.click.item_id) == ("view", items[0])
    late = signals(found.click.at_us + 1)
    assert (late.event, late.shown_us, late.click) == (None,) * 3
