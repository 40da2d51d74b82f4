"""Every page that links lead to, as a browser shows it: nothing clipped, one date style, accessible.

The quick form of `make screenshots`, which looks at more widths and themes, and with axe at each: one
visitor, a tiny shop, each page loaded once; axe as on a desk, layout as on a phone too.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import expect

from recsys import pipeline
from recsys.config import Settings
from recsys.events.times import HOUR_US, to_us
from recsys.ingest.event_files import ReadOptions
from recsys.ops import upkeep
from recsys.storage.dashboard import activity_rows
from recsys.storage.entities import job_rows, live_quality_rows
from recsys.storage.entities.live_quality_rows import LiveQuality
from tests.integration.test_dashboard_people import running
from tools import page_checks

__all__ = ["running"]
# A browser that leaves a page leaves files half sent.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
USER = "shopper-000005"
NAMES = (
    *("overview", "models", "jobs", "users", "items", "what-if", "scenarios", "experiments"),
    *("data-quality", "keys", "accounts", "audit", "settings"),
)


@pytest.fixture(scope="module")
def shop(running, tmp_path_factory):
    """The shop of the pages on people, with something to show in every chart and behind every link."""
    now = datetime.now(UTC)
    now_us = to_us(now)
    bad = tmp_path_factory.mktemp("bad") / "clicks.csv"
    bad.write_text("user_id,item_id,timestamp\neve,P0001,1760000000000\neve,,1760000001000\n")
    pipeline.import_events(running.database, bad, ReadOptions(unit="ms"), now)
    activity_rows.count_events(running.database, now_us)
    upkeep.report_quality(Settings(), running.database, now, lambda line: None)
    with running.database.begin() as connection:
        for back in range(1, 60):
            at_us = (now_us // HOUR_US - back) * HOUR_US
            found = LiveQuality(at_us, 500, 60, 300, 150.0, 250, 110.0, 25, 8.0)
            live_quality_rows.put_hour(connection, found)
        run = job_rows.request_run(connection, "prune", "dashboard", now_us)
        job_rows.add_line(connection, run, "12 events are gone", now_us)
        job_rows.finish_run(connection, run, "succeeded", now_us, {"events": 12})
    running.api("PUT", "/scenarios/home", {"logic": "popular", "k": 6})
    arms = [{"name": "now"}, {"name": "short", "settings": {"k": 3}}]
    running.api("POST", "/experiments", {"name": "varied", "arms": arms})
    return running


@pytest.fixture(scope="module")
def page(shop):
    """The pages of one administrator."""
    made = shop.log_in(viewport=DESK, reduced_motion="reduce")
    page_checks.watch(made.context)
    yield made
    made.context.close()


@pytest.fixture(autouse=True)
def nothing_wrong(shop):
    shop.wrong.clear()
    yield
    assert shop.wrong == []


def picture(page, path, width):
    """Keep the page's picture where SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        name = path.partition("?")[0].removeprefix("/admin").strip("/").replace("/", "-") or "start"
        page.screenshot(path=Path(folder) / f"{name}-{width}.png", full_page=True)


def test_nothing_is_clipped_cut_or_out_of_reach_on_any_page(shop, page):
    first = ["/", "/admin/overview?range=7d", f"/admin/users/one?user_id={USER}", "/admin/what-if"]
    crawl = page_checks.Crawl(shop.app, shop.base, first)
    crawl.known.add("docs")  # a page of the vendor's, slow to check: in `make screenshots` alone
    found, visited = [], []
    for path in crawl.visit(page):
        visited.append(path.partition("?")[0])
        if "/users/one" in path:
            expect(page.get_by_role("list", name="Recommended now")).to_be_visible()
        faults = page_checks.faults(page) + page_checks.axe_faults(page)
        picture(page, path, "wide")
        page_checks.resize(page, PHONE)
        faults += [f"at 390 px: {one}" for one in page_checks.faults(page, looks=False)]
        picture(page, path, "narrow")
        page.set_viewport_size(DESK)
        found += [f"{path}: {one}" for one in faults]
    print(visited)
    for name in NAMES:
        assert f"/admin/{name}" in visited, visited
    for name in ("jobs/", "models/", "experiments/", "scenarios/", "items/", "users/"):
        assert any(one.startswith(f"/admin/{name}") for one in visited), (name, visited)
    assert len(set(visited)) == len(visited)
    assert found == [], "\n".join(found)


def test_faults_are_found(shop, page):
    page.set_viewport_size(PHONE)
    page.goto(f"{shop.base}/")
    page.evaluate(
        """document.querySelector("main").innerHTML = `
          <p class="a">a long line that is cut</p>
          <div class="b"><table><td class="c">wide</table></div>
          <svg class="d" viewBox="0 0 100 20" width="100"><text x="90">beyond</text></svg>
          <canvas width="100" height="20"></canvas><p>on 2025-03-01, begun anew</p>
          <button class="e">unseen</button><img src="/favicon.ico">`
        const looks = {
          a: "width: 50px; overflow: hidden; white-space: nowrap", b: "width: 200px; overflow-x: auto",
          c: "min-width: 300px", d: "overflow: visible", e: "outline: none; border: 0; box-shadow: none",
        }
        for (const [name, style] of Object.entries(looks)) document.querySelector("." + name).style.cssText = style
        document.querySelector("canvas").getContext("2d").fillText("a label", 90, 10)"""
    )
    said = " / ".join(page_checks.faults(page) + page_checks.axe_faults(page))
    for fault in (
        'text is cut: "a long line that is cut"',
        'px wider than its window: "wide"',
        'text lies outside its box: "beyond"',
        'a chart\'s label is clipped: "a label"',
        'another style of date: "2025-03-01"',
        "ruled out: begun anew",
        'focus cannot be seen: <button class="e"> "unseen"',
        "axe: image-alt",
    ):
        assert fault in said, said


STOPS = """() => {
  const groups = new Set();
  const stops = [...document.querySelectorAll(
    "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']")]
    .filter(one => one.checkVisibility({visibilityProperty: true}) && !one.disabled && one.tabIndex >= 0)
    .filter(one => {  // of radio buttons, the one that is chosen, else the first
      if (one.type !== "radio") return true;
      const group = [...document.getElementsByName(one.name)].filter(other => other.form === one.form);
      return one === (group.find(other => other.checked) ?? group[0]);
    });
  return stops.map((one, at) => one.dataset.stop = String(at));
}"""


@pytest.mark.parametrize("name", [*NAMES, "scenarios/one/home", "account"])
def test_the_keyboard_reaches_everything_in_the_order_of_the_page(shop, page, name):
    page.set_viewport_size(DESK)
    page.goto(f"{shop.base}/admin/{name}")
    wanted, reached = page.evaluate(STOPS), []
    for _ in range(8 * len(wanted)):  # a field of a date has several stops of its own
        page.keyboard.press("Tab")
        at = page.evaluate("document.activeElement.dataset.stop ?? null")
        if at is not None and at not in reached[-1:]:
            reached.append(at)
        if at == wanted[-1]:
            break
    assert len(wanted) > 15 and reached == wanted


def test_the_first_stop_leads_past_the_navigation(shop, page):
    page.set_viewport_size(DESK)
    page.goto(f"{shop.base}/admin/models")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
