"""/client.js in Chromium: pages of another origin track, show rows, and attribute clicks."""

import gzip
import json
import re
import time
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect
from sqlalchemy import select

from recsys.storage.schema.tables import impressions
from tests.integration.clients.conftest import ROOT

SCRIPT = '<script src="{url}/client.js" data-key="{key}" defer></script>'
ROW = '<div id="row" data-recsys="{list}" data-k="4" data-title="{title}" data-link="/p/{{item_id}}" data-currency="EUR" data-scenario="home"></div>'
PAGE = '<!doctype html><html lang="en"><title>Shop</title><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">{script}<main {main}><h1>Shop</h1>{body}</main></html>'

# A browser that leaves a page leaves files half sent.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def shop_page(served, site):
    """shop_page(path, main, list=…): writes a page of the site with a row."""
    key = served.page_key(site.origin)

    def write(path, main="", body=None, **row):
        row = {"list": "recommend", "title": "For you", **row}
        script = SCRIPT.format(url=served.url, key=key)
        site.pages[path] = PAGE.format(script=script, main=main, body=body or ROW.format(**row))
        return site.origin + path

    return write


@contextmanager
def visitor(browser, wrong=None, **options):
    """A page of a new visitor; what it writes to the console as an error goes to `wrong`."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
    page = context.new_page()
    if wrong is not None:
        page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
    try:
        yield page
    finally:
        context.close()


def session_of(page):
    return page.evaluate("localStorage.getItem('recsys.session')")


def until(look):
    """What `look` tells, once it is something."""
    end = time.monotonic() + 20
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_it_is_what_its_sources_build_and_small(package, served):
    committed = (ROOT / "recsys/web/static/client.js").read_bytes()
    assert (package / "dist/client.js").read_bytes() == committed, "run `make client`"
    assert len(gzip.compress(committed, 9)) <= 6 * 1024
    assert {path.name for path in package.iterdir()} == {"dist", "README.md", "package.json"}
    told = json.loads((package / "package.json").read_text())
    assert "dependencies" not in told and (package / told["types"]).is_file()


def test_any_page_may_load_it_and_browsers_keep_it(served):
    client = served.service.client
    plain = client.get("/client.js", headers={"Origin": "https://any.example"})
    assert plain.mimetype == "text/javascript" and "Content-Encoding" not in plain.headers
    assert plain.headers["Access-Control-Allow-Origin"] == "*"
    assert plain.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert plain.headers["X-Content-Type-Options"] == "nosniff"
    assert plain.headers["Cache-Control"] == "public, max-age=3600"
    packed = client.get("/client.js", headers={"Accept-Encoding": "br, gzip"})
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["ETag"] != plain.headers["ETag"]
    for one in (plain, packed):
        encoding = one.headers.get("Content-Encoding", "identity")
        kept = {"If-None-Match": one.headers["ETag"], "Accept-Encoding": encoding}
        again = client.get("/client.js", headers=kept)
        assert (again.status_code, again.data) == (304, b"")
    digest = plain.headers["ETag"].strip('"')
    fixed = client.get(f"/client.js?v={digest}")
    assert fixed.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert client.get("/client.js?v=old").headers["Cache-Control"] == "public, max-age=3600"
    assert client.get("/client.js?w=1").status_code == 422


def test_a_row_is_drawn_seen_clicked_and_the_click_attributed(browser, served, shop_page):
    home, wrong = shop_page("/"), []
    with visitor(browser, wrong) as page:
        page.goto(home)
        tiles = page.get_by_role("list", name="For you").get_by_role("listitem")
        expect(tiles).to_have_count(4)
        expect(tiles.first).to_contain_text("€")
        assert {path for method, path in served.requests if method == "OPTIONS"} == set()
        session = session_of(page)

        def reported():
            columns = impressions.c.recommendation_id, impressions.c.shown, impressions.c.scenario
            found = select(*columns).where(impressions.c.session_id == session)
            with served.database.connect() as connection:
                rows = connection.execute(found).all()
            return rows if rows and rows[0].shown else None

        (answer,) = until(reported)
        items = [tile.get_attribute("data-item") for tile in tiles.all()]
        assert (json.loads(answer.shown), answer.scenario) == (items, "home")
        chosen = items[1]
        shop_page(f"/p/{chosen}", f'data-recsys-view="{chosen}"')
        tiles.nth(1).get_by_role("link").click()
        expect(page).to_have_url(re.compile(f"/p/{chosen}$"))
        expect(tiles).to_have_count(4)
        assert chosen not in [tile.get_attribute("data-item") for tile in tiles.all()]
        assert session_of(page) == session
        page.reload()
        until(lambda: len(served.stored(session)) == 2)
        views = served.stored(session)
        assert [(one.event_type, one.item_id) for one in views] == [("view", chosen)] * 2
        assert views[0].recommendation_id == answer.recommendation_id
        # Seen on its page or in its row, the row is accessible.
        page.evaluate((ROOT / "tests/assets/axe.min.js").read_text() + "; undefined")
        problems = page.evaluate("axe.run('#row').then(result => result.violations)")
        assert [one["id"] for one in problems] == []
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert wrong == []


def test_a_picture_that_the_pages_origin_lacks_is_the_services(browser, served, shop_page):
    icon = {"item_id": "P0031", "title": "Icon", "image": "/static/admin/icon.svg"}
    gone = {"item_id": "P0032", "title": "Gone", "image": "/static/nothing.svg"}
    for item in (icon, gone):
        served.service.call("PUT", "/items", json=item)
    pins = [{"item_id": one["item_id"], "position": n} for n, one in enumerate((icon, gone), 1)]
    served.service.call("PUT", "/scenarios/pictured", json={"k": 2, "pins": pins})
    body = (
        '<div id="row" data-recsys="recommend" data-title="For you" data-scenario="pictured"></div>'
    )
    with visitor(browser) as page:
        page.goto(shop_page("/", body=body))
        tiles = page.get_by_role("list", name="For you").get_by_role("listitem")
        expect(tiles.nth(0).locator("img")).to_have_attribute("src", served.url + icon["image"])
        assert until(lambda: tiles.nth(0).locator("img").evaluate("one => one.naturalWidth"))
        expect(tiles.nth(1).locator("img")).to_have_count(0)
        expect(tiles.nth(1).locator(".recsys-picture")).to_have_text("G")


def test_a_row_of_a_scenario_shows_what_the_scenario_says(browser, served, shop_page):
    def put(**spec):
        served.service.call("PUT", "/scenarios/start", json=spec)

    put(logic="popular", k=10, pins=[{"item_id": "P0030", "position": 1}], exclude_items=["P0001"])
    body = '<div id="row" data-recsys="recommend" data-title="For you" data-link="/p/{item_id}" data-scenario="start"></div>'
    address, wrong = shop_page("/", body=body), []
    with visitor(browser, wrong) as page:
        page.goto(address)
        tiles = page.get_by_role("list", name="For you").get_by_role("listitem")
        expect(tiles).to_have_count(10)  # more than the 8 of a row without a scenario
        expect(tiles.first).to_have_attribute("data-item", "P0030")
        assert "P0001" not in [tile.get_attribute("data-item") for tile in tiles.all()]
        put(logic="latest", k=2)  # answers from the next request on
        page.reload()
        expect(tiles).to_have_count(2)
        newest = [tile.get_attribute("data-item") for tile in tiles.all()]
        assert "P0030" not in newest or newest[0] != "P0030"
        shop_page(f"/p/{newest[1]}", f'data-recsys-view="{newest[1]}"', body="a page")
        tiles.nth(1).get_by_role("link").click()
        session = session_of(page)

        def clicked():
            views = served.stored(session)
            return views[0].recommendation_id if views else None

        answer = served.service.get(f"/recommendations/{until(clicked)}")
    told = answer["session_id"], answer["scenario"], answer["scenario_version"]
    assert told == (session, "start", 2)
    assert [one["item_id"] for one in answer["items"]] == newest
    assert wrong == []


@pytest.mark.parametrize("kind", ["similar", "next", "popular"])
def test_lists_of_the_catalogue_are_drawn(browser, served, shop_page, kind):
    address, wrong = shop_page("/", 'data-recsys-view="P0001"', list=kind, title="More"), []
    with visitor(browser, wrong) as page:
        page.goto(address)
        tiles = page.get_by_role("list", name="More").get_by_role("listitem")
        expect(tiles.first).to_be_visible()
        drawn = [tile.get_attribute("data-item") for tile in tiles.all()]
    path = f"/items/{kind}?k=4" + ("" if kind == "popular" else "&item_id=P0001")
    assert drawn == [one["item_id"] for one in served.service.get(path)["items"]]
    assert wrong == []


def test_what_strangers_wrote_is_text_and_leads_nowhere(browser, served, shop_page):
    evil = {
        "item_id": "P0002",
        "title": "<img src=x onerror=alert(1)>",
        "image": "javascript:alert(2)",
        "properties": {"url": "javascript:alert(3)"},
    }
    served.service.call("PUT", "/items", json=evil)
    body = '<div id="row" data-recsys="popular" data-k="50" data-title="All"></div>'
    with visitor(browser) as page:
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        page.goto(shop_page("/", body=body))
        tile = page.locator('#row li[data-item="P0002"]')
        expect(tile.get_by_role("button")).to_be_visible()
        expect(tile.locator(".recsys-name")).to_have_text(evil["title"])
        assert page.locator("#row img, #row a").count() == 0


def test_events_at_clicks_and_calls_by_script(browser, served, shop_page):
    body = (
        '<button data-recsys-track="cart" data-item="P0003" data-value="19.5">Add</button>'
        '<div data-recsys="recommended"></div>'
    )
    wrong = []
    with visitor(browser, wrong) as page:
        page.goto(shop_page("/", body=body))
        page.get_by_role("button", name="Add").click()
        session = session_of(page)
        given = page.evaluate("""async () => {
            recsys.track("purchase", "P0003", {value: 19.5, properties: {coupon: "x"}});
            recsys.track("view", "P0004", {session_id: recsys.session, value: "much"});
            await recsys.flush();
            const similar = await recsys.similar("P0001", 3);
            const failed = await recsys.recommend({user_id: "u"}).catch((error) => error);
            return [recsys.counts, similar.items.length, failed.status, failed.message];
        }""")
    cart, purchase = served.stored(session)
    assert (cart.event_type, cart.item_id, cart.value) == ("cart", "P0003", 19.5)
    assert (purchase.event_type, json.loads(purchase.properties)) == ("purchase", {"coupon": "x"})
    counts = {"accepted": 2, "duplicates": 0, "rejected": 1, "dropped": 0, "waiting": 0}
    assert given[:3] == [counts, 3, 403] and "without user_id" in given[3]
    assert any('data-recsys="recommended": expected one of recommend' in one for one in wrong)
    assert any("value = 'much'" in one for one in wrong)


def test_a_page_that_is_refused_says_why(browser, served, site, shop_page):
    """Not "Failed to fetch": of another origin, with another key, and of a service that is away."""
    shop_page("/")
    other = site.origin.replace("127.0.0.1", "localhost")
    site.pages["/wrong-key"] = site.pages["/"].replace('data-key="rk_', 'data-key="rk_0')
    site.pages["/gone"] = site.pages["/"].replace(
        'data-key="', 'data-url="http://127.0.0.1:9" data-key="'
    )
    for address, told in (
        (f"{other}/", f"recsys: the origin '{other}' is not allowed: create a key for it"),
        (f"{site.origin}/wrong-key", "recsys: the API key is not known or was revoked"),
        (f"{site.origin}/gone", "recsys: http://127.0.0.1:9 cannot be reached"),
    ):
        wrong = []
        with visitor(browser, wrong) as page:
            page.goto(address)
            row = page.locator("#row")
            expect(row).to_have_attribute("data-recsys-state", "error")
            expect(row).to_be_hidden()
            assert any(one.startswith(told) for one in wrong), wrong


def test_what_waits_outlives_the_page_and_the_service(browser, served, shop_page):
    """Stored without an answer, refused by nobody, left behind, sent by another page: once each."""
    address = shop_page("/", body="<p></p>")
    with visitor(browser) as page:
        page.goto(address)
        session = session_of(page)
        page.evaluate("for (let n = 0; n < 20; n += 1) recsys.track('view', `P00${10 + n}`)")
        served.cut = 2
        page.evaluate("recsys.flush()")
        page.wait_for_function("recsys.counts.waiting === 0")
        assert page.evaluate("recsys.counts.duplicates") == 20
        served.stop()
        page.evaluate("for (let n = 0; n < 20; n += 1) recsys.track('view', `P00${30 + n}`)")
        page.evaluate("recsys.flush()")
        assert page.evaluate("recsys.counts.waiting") == 20
        page.goto("about:blank")
        served.start()
        page.goto(address)
        page.wait_for_function("recsys.counts.waiting === 0")
        assert (
            page.evaluate("Object.keys(localStorage).filter(one => one.includes('events'))") == []
        )
        page.evaluate("recsys.track('view', 'P0001')")
        page.goto("about:blank")  # before it was sent: by beacon
        until(lambda: len(served.stored(session)) == 41)
        page.goto(address)  # which sends it again, to be sure
        page.wait_for_function("recsys.counts.waiting === 0")
    ids = [one.item_id for one in served.stored(session)]
    assert ids == [f"P00{n}" for n in range(10, 50)] + ["P0001"]
