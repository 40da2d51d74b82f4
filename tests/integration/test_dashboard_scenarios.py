"""The editor of scenarios in a real browser: completion, the live preview, saving, going back.

No page may write an error to the console or ask another host for anything.
"""

import pytest
from playwright.sync_api import expect

from tests.integration.test_dashboard import used
from tests.integration.test_dashboard_people import running

__all__ = ["running"]
# A browser that leaves a page leaves files half sent.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def desk(running):
    yield from used(running)


def editor(desk, name, **spec):
    """The editor of a scenario that says `spec`."""
    desk.api("PUT", f"/scenarios/{name}", spec)
    page = desk.log_in("operator")
    page.goto(f"{desk.base}/admin/scenarios/one/{name}")
    return page


def listed(page, title):
    """The items of one of the preview's lists."""
    return page.get_by_role("list", name=title).get_by_role("listitem")


def count(page):
    return page.get_by_role("spinbutton", name="Number of items", exact=True)


def offered(page):
    return page.locator("#rule-words option").evaluate_all("all => all.map(one => one.value)")


def test_names_of_properties_and_categories_are_offered_while_a_rule_is_typed(desk, tiny_shop):
    page = desk.log_in("operator")
    page.goto(f"{desk.base}/admin/scenarios/new")
    rule = page.get_by_label("Filter")
    rule.press_sequentially("pri")
    assert offered(page) == ["price"]
    rule.fill("price<50 && cat")
    assert offered(page) == ["price<50 && category"]
    category = sorted(tiny_shop.shop.items[0].categories)[0]
    rule.fill(f"category={category[:2].lower()}")
    assert f"category={category}" in offered(page)
    page.get_by_label("Boost 1: what it is for").fill("item.pr")
    assert offered(page) == ["item.price"]
    page.get_by_text("More: rotation").click()
    page.get_by_label("Order by").fill("chance * item.pr")
    assert offered(page) == ["chance * item.price"]


def test_a_scenario_is_edited_beside_its_preview_saved_and_gone_back_from(desk, tiny_shop):
    page = desk.log_in("operator")
    page.goto(f"{desk.base}/admin/scenarios/new?name=front")
    page.locator("select[name=logic]").select_option("popular")
    expect(listed(page, "As edited")).to_have_count(12)
    expect(listed(page, "Without a scenario")).to_have_count(12)
    best = page.get_by_role("list", name="As edited").locator("a").first.inner_text()
    price = next(one.price for one in tiny_shop.shop.items if one.title == best)
    page.get_by_label("Filter").fill(f"price<{price}")
    gone = page.locator("details.held")
    expect(gone).to_contain_text("left out by the rules")
    expect(gone).to_contain_text(best)
    assert best not in page.get_by_role("list", name="As edited").inner_text()
    page.get_by_label("Filter").fill("prise<3")
    expect(page.locator("#preview")).to_contain_text("nearest: price")
    page.get_by_label("Filter").fill(f"price<{price}")
    page.get_by_role("button", name="Create scenario").click()
    expect(page.get_by_text("Version 1 of front answers from the next request on.")).to_be_visible()
    assert desk.api("GET", "/scenarios/front")["spec"]["filter"] == f"price<{price}"

    count(page).fill("3")
    expect(listed(page, "As edited")).to_have_count(3)
    expect(listed(page, "Version 1")).to_have_count(12)
    assert desk.api("GET", "/scenarios/front")["version"] == 1  # nobody sees it yet
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.get_by_text("Version 2 of front answers from the next request on.")).to_be_visible()
    versions = page.get_by_role("row")
    expect(versions.filter(has=page.get_by_text("answers", exact=True))).to_contain_text("2")
    versions.nth(2).get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.get_by_text("is answered as version 1 says, now version 3")).to_be_visible()
    expect(count(page)).to_have_value("")
    expect(page.get_by_text("rollback to 1")).to_be_visible()
    assert "k" not in desk.api("GET", "/scenarios/front")["spec"]


def test_what_a_browser_sends_of_an_unchanged_form_changes_nothing(desk):
    page = editor(
        desk,
        "fine",
        boosts=[{"when": "price<50", "factor": 1.23456789012345}],
        promote={"when": "price<20", "share": 0.070000000001},
        rotation={"shown": 3, "hours": 0.1 + 0.2},
        explore={"share": 1e-07},
        exclude_items=["P0001", "P0002"],
        diversity=1 / 3,
    )
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.get_by_text("Nothing was changed.")).to_be_visible()
    assert desk.api("GET", "/scenarios/fine")["version"] == 1


def test_who_saves_over_somebody_elses_change_is_asked_first(desk):
    page = editor(desk, "shared", logic="popular", k=4)
    count(page).fill("5")
    desk.api("PUT", "/scenarios/shared", {"logic": "popular", "k": 6})
    page.get_by_role("button", name="Save as version 2").click()
    told = page.get_by_role("alert")
    expect(told).to_contain_text("saved version 2")
    expect(count(page)).to_have_value("5")
    assert desk.wrong == [one for one in desk.wrong if "409" in one]
    desk.wrong.clear()  # which is how Chromium tells of the status
    told.get_by_role("link", name="See what changed").click()
    expect(page.locator("tr:target")).to_contain_text("k 4 6")
    page.get_by_role("button", name="Save as version 3").click()
    expect(
        page.get_by_text("Version 3 of shared answers from the next request on.")
    ).to_be_visible()
    assert desk.api("GET", "/scenarios/shared")["spec"]["k"] == 5
