"""Users, Items and What-if in a real browser, over a real service with a model that has learned.

No page may write an error to the console or ask another host for anything.
"""

import re
import threading
import time

import pytest
from playwright.sync_api import expect
from werkzeug.serving import make_server

from recsys.events.identity import Owner
from recsys.ingest.event_body import check_event
from recsys.storage.engine.database import Database
from recsys.storage.entities import click_rows, event_rows, history_rows, item_rows, key_rows
from recsys.storage.schema import migrate
from recsys.web.app import create_app
from tests.integration.test_dashboard import used

NOW = 1_760_000_000_000_000

# A browser that leaves a page leaves files half sent.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Desk:
    """A running service and what a test does in the browser and over REST."""

    def __init__(self, app, base, browser, database, password):
        self.app, self.base, self.browser, self.database = app, base, browser, database
        self.password = password
        self.wrong, self.contexts = [], []
        with database.begin() as connection:
            self.key = key_rows.create_key(connection, "test", ["admin"], 1)

    def log_in(self, name="admin", **options):
        context = self.browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        self.contexts.append(context)
        page = context.new_page()

        def route(route):
            if route.request.url.startswith(self.base):
                route.continue_()
            else:
                self.wrong.append(f"asked {route.request.url}")
                route.abort()

        context.route(re.compile("^https?://"), route)
        page.on("console", lambda m: m.type == "error" and self.wrong.append(m.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: self.wrong.append(f"ran {dialog.message}"))
        page.goto(f"{self.base}/admin/login?next=/admin/what-if")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(self.password)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="What-if", exact=True)).to_be_visible()
        page.wait_for_load_state("load")
        return page

    def api(self, method, path, body=None):
        answer = self.app.test_client().open(
            f"/api/v1{path}", method=method, json=body, headers={"X-API-Key": self.key}
        )
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return answer.get_json()

    def returning(self):
        """A user to whom the model recommends, unless told otherwise, what that user has seen."""
        for number in range(40):
            user_id = f"shopper-{number:06d}"
            seen = {one["item_id"] for one in self.api("GET", f"/users/{user_id}/events")["events"]}
            if seen.intersection(self.next_items(user_id, 10)):
                return user_id
        raise AssertionError("nobody is recommended what they have seen")

    def next_items(self, user_id, k=5):
        found = self.api("GET", f"/users/{user_id}/recommendations?k={k}&exclude_seen=none")
        return [one["item_id"] for one in found["items"]]


@pytest.fixture(scope="module")
def running(browser, tiny_shop, publish, tmp_path_factory, add_account, settings_for):
    folder = tmp_path_factory.mktemp("people")
    database = Database(f"sqlite:///{folder}/recsys.db")
    migrate.upgrade(database)
    publish(tiny_shop, database, folder / "models")
    rows = [row for row in tiny_shop.events.to_pylist() if row["user_id"] < "shopper-000040"]
    with database.begin() as connection:
        item_rows.put_items(connection, tiny_shop.shop.items, NOW)
        given = [{"user_id": row["user_id"], "item_id": row["item_id"], "event_id": str(at),
                  "event_type": row["event_type"], "timestamp": row["timestamp_us"] // 1_000}
                 for at, row in enumerate(rows)]  # fmt: skip
        event_rows.insert_events(connection, [check_event(one, NOW) for one in given], NOW)
        for role in ("admin", "operator", "viewer"):
            add_account(connection, role, role)
    app = create_app(settings_for(folder / "models"), database)
    # Answers follow the live log from the first one on, and never tell of its age.
    live = app.extensions["recsys"].recommender.live
    live.follow_once(time.time_ns() // 1_000)
    live.start()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    yield Desk(app, base, browser, database, add_account.password)
    server.shutdown()
    app.extensions["recsys"].close()
    database.close()


@pytest.fixture
def desk(running):
    yield from used(running)


def listed(page, name="Next items"):
    """Titles of a ranked list."""
    return page.get_by_role("list", name=name).locator(".item-title").all_inner_texts()


def test_what_if_changes_the_list_at_each_step(desk, tiny_shop):
    page = desk.log_in()
    before = listed(page)
    first, second = tiny_shop.shop.items[3], tiny_shop.shop.items[8]
    box = page.get_by_role("combobox", name="Add an item")
    box.fill(first.title)
    expect(page.get_by_role("option").first).to_contain_text(first.title)
    box.press("ArrowDown")
    expect(page.get_by_role("option").first).to_have_attribute("aria-selected", "true")
    box.press("Enter")
    expect(page.get_by_text("1 of 50 steps")).to_be_visible()
    after_one = listed(page)
    assert after_one != before
    assert page.get_by_role("list", name="Next items").get_by_text("new", exact=True).count()
    box = page.get_by_role("combobox", name="Add an item")
    expect(box).to_be_focused()
    box.fill(second.item_id)
    page.get_by_role("option").filter(has_text=second.title).click()
    expect(page.get_by_text("2 of 50 steps")).to_be_visible()
    after_two = listed(page)
    assert after_two != after_one
    expect(page.get_by_text("because of").first).to_be_visible()

    page.locator(".step .rank").first.drag_to(page.locator(".step").last)
    expect(page.locator(".step .item-title").first).to_have_text(second.title)
    page.get_by_role("button", name="Move step 2 up").click()
    expect(page.locator(".step .item-title").first).to_have_text(first.title)
    page.get_by_role("button", name="Move step 1 down").click()
    expect(page.locator(".step .item-title").first).to_have_text(second.title)
    expect(page).to_have_url(re.compile(f"item={second.item_id}.*item={first.item_id}"))
    turned = listed(page)
    page.get_by_label("Time since the step before, step 2").select_option("1 week later")
    expect(page.get_by_text("new session")).to_be_visible()
    expect(page).to_have_url(re.compile("gap=604800"))
    shared = page.url
    page.get_by_role("button", name="Remove step 1").click()
    expect(page.get_by_text("1 of 50 steps")).to_be_visible()
    assert listed(page) == after_one
    page.go_back()
    expect(page.get_by_text("2 of 50 steps")).to_be_visible()
    other = desk.log_in("viewer")
    other.goto(shared)  # the address holds the sequence
    expect(other.get_by_text("2 of 50 steps")).to_be_visible()
    assert turned and listed(other) == listed(page)


def test_a_hidden_item_leaves_the_api(desk):
    best = desk.next_items("shopper-000001")[0]
    page = desk.log_in("operator")
    page.get_by_role("link", name="Items", exact=True).click()
    page.get_by_placeholder("Title or ID").fill(best)
    page.get_by_placeholder("Title or ID").press("Enter")
    page.get_by_role("row").filter(has_text=best).get_by_role("link").first.click()
    page.get_by_role("button", name="Hide from answers").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("is left out of every answer")
    dialog.get_by_role("button", name="Hide", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("is hidden from all answers")
    assert best not in desk.next_items("shopper-000001", 50)
    page.goto(f"{desk.base}/admin/users/one?user_id=shopper-000001&exclude_seen=none")
    expect(page.get_by_text("not available")).to_be_visible()
    page.goto(f"{desk.base}/admin/items/one?item_id={best}")
    page.get_by_role("button", name="Show again").click()
    page.get_by_role("dialog").get_by_role("button", name="Show again").click()
    expect(page.get_by_role("status").first).to_contain_text("can be recommended again")
    assert desk.next_items("shopper-000001")[0] == best


def test_an_answer_is_replayed_with_its_click(desk):
    answer = desk.api("GET", "/users/shopper-000002/recommendations?k=4&explain=true")
    clicked = answer["items"][1]
    event = {"user_id": "shopper-000002", "item_id": clicked["item_id"]}
    desk.api("POST", "/events", {**event, "recommendation_id": answer["recommendation_id"]})
    desk.app.extensions["recsys"].impressions.flush()
    with desk.database.begin() as connection:
        click_rows.attribute_clicks(connection, 2**53, 2**52, 100)
    page = desk.log_in("viewer")
    page.get_by_role("link", name="Users").click()
    page.get_by_placeholder("recommendation_id").fill(answer["recommendation_id"])
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("row").filter(has_text=clicked["item"]["title"]).last).to_contain_text(
        "view"
    )
    expect(page.get_by_text("shown, no click").first).to_be_visible()
    page.get_by_role("link", name="shopper-000002").first.click()
    expect(page.get_by_role("link", name="from a recommendation").first).to_be_visible()
    expect(page.get_by_role("list", name="Recommended now")).to_be_visible()
    page.get_by_label("Exclude seen items of type").select_option("all")
    page.goto(f"{desk.base}/admin/users/one?user_id={desk.returning()}&exclude_seen=all")
    expect(page.get_by_text("already seen").first).to_be_visible()


def test_a_user_is_erased_for_good(desk):
    page = desk.log_in()
    page.get_by_role("link", name="Users").click()
    page.get_by_placeholder("User or session ID").fill("shopper-000003")
    page.get_by_placeholder("User or session ID").press("Enter")
    page.get_by_role("link", name="shopper-000003").click()
    page.get_by_role("button", name="Erase", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This cannot be undone")
    expect(dialog).to_contain_text(re.compile(r"\d+ events"))
    dialog.get_by_role("button", name="Erase permanently").click()
    expect(page.get_by_role("heading", name="Erasure receipt")).to_be_visible()
    with desk.database.connect() as connection:
        assert not history_rows.history(connection, Owner("shopper-000003")).events
    page.goto(f"{desk.base}/admin/users?q=shopper-000003")
    expect(page.get_by_text("No matches")).to_be_visible()


def test_markup_in_ids_is_shown_and_not_run(desk):
    name = "<img src=x onerror=alert(1)>"
    with desk.database.begin() as connection:
        event = check_event({"user_id": name, "item_id": name, "event_type": "<i>x</i>"}, NOW)
        event_rows.insert_events(connection, [event], NOW)
    page = desk.log_in()
    page.goto(f"{desk.base}/admin/users")
    page.get_by_role("link", name=name).first.click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_role("list", name="Recommended now")).to_be_visible()
    page.get_by_role("button", name="Erase", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text(name)
    page.goto(f"{desk.base}/admin/what-if")
    page.get_by_role("combobox", name="Add an item").fill(name)
    expect(page.get_by_role("option").first).to_contain_text("No matches for")
    assert page.locator("main img").count() == 0
