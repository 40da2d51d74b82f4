"""The storefront in a real browser over a real service."""

import re
import threading
import xml.etree.ElementTree as ElementTree
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import expect
from sqlalchemy import select
from werkzeug.serving import make_server

from recsys.config import NETWORKS
from recsys.demo.launches import FOUND_BY, launch
from recsys.demo.products import NOUNS, STYLES
from recsys.demo.storefront.pictures import picture, slug
from recsys.demo.storefront.shop_routes import SOURCES, add_storefront
from recsys.events.fields import Event
from recsys.ingest.item_body import check_item
from recsys.models.blend import COPY, TRENDING
from recsys.models.rankers import RANKERS
from recsys.storage.entities import event_rows, item_rows, key_rows
from recsys.storage.schema.tables import events, impressions
from recsys.web.app import create_app

ROOT = Path(__file__).parents[2]

# A browser that leaves a page leaves files half sent.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def shop(database, tmp_path, live_shop, publish, settings_for):
    """The address of a served shop; `app` and `key` are its attributes."""
    publish(live_shop, database, tmp_path / "models")
    server = make_server("127.0.0.1", 0, lambda environ, start: app(environ, start), threaded=True)
    base = f"http://127.0.0.1:{server.server_port}"
    with database.begin() as connection:
        item_rows.put_items(connection, live_shop.shop.catalogue.items(drawn=True), 1)
        key = key_rows.create_key(connection, "page", ["collect"], 1, [base])
    auth = {"collect_per_minute": 10_000}
    settings = settings_for(tmp_path / "models", auth, storefront_key=key)
    app = add_storefront(create_app(settings, database))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with closing(app.extensions["recsys"]):
        yield base, app
        server.shutdown()


def test_shopping_turns_the_recommendations(browser, shop, database):
    base, app = shop
    wrong = []
    page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page.on("console", lambda m: m.type == "error" and wrong.append(m.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda r: (
            r.url.startswith(("http:", "https:"))
            and not r.url.startswith(base)
            and wrong.append(r.url)
        ),
    )
    page.goto(f"{base}/shop")
    row = page.locator("#next li[data-item]")
    expect(row).to_have_count(8)
    told = page.locator("#told")
    expect(told).to_contain_text("from 0 events")

    def shown():
        return [tile.get_attribute("data-item") for tile in row.all()]

    before = shown()
    tiles = page.locator("#tiles .card")
    for number, place in enumerate((3, 11, 3), 1):
        tiles.nth(place).click()
        expect(told).to_contain_text(f"from {number} event")
    after = shown()
    assert after != before
    row.locator(".card").first.click()  # a recommended one: a click of that answer
    expect(told).to_contain_text("from 4 events")
    session = page.evaluate("JSON.parse(sessionStorage.visit).session")
    answer = app.test_client().post(
        "/api/v1/recommendations",
        json={"session_id": session, "k": 24, "exclude_seen": "all"},
        headers={"X-API-Key": key_of(page), "Origin": base},
    )
    kinds = Counter()
    mixed = []
    for item in answer.get_json()["items"]:
        kinds[kind := item["item"]["categories"][-1]] += 1
        mixed += [item["item_id"]] if kinds[kind] <= 3 else []
    assert shown() == mixed[:8]

    page.get_by_label("Why these?").check()
    expect(page.locator("#next .reasons").first).to_be_visible()
    expect(page.locator("#beside li").first).to_be_visible()  # what everyone gets
    expect(page.locator("#story")).to_contain_text("Step 3 of 3")
    with page.expect_response(lambda answer: "/shop/sequence?" in answer.url) as swapped:
        page.get_by_text("your last two clicks swapped", exact=True).click()
    ids = re.findall(r"item_id=(\w+)", swapped.value.url)
    trail = page.evaluate("JSON.parse(sessionStorage.visit).trail")
    assert ids == [*trail[:1:-1], trail[0], trail[1]]

    page.get_by_role("button", name="Add to basket").click()
    expect(page.locator("#basket-count")).to_have_text("1")
    page.locator("#open-basket").click()
    page.get_by_role("button", name="Check out").click()
    expect(told).to_contain_text("Thank you")

    page.get_by_label("Search products").fill("lamp <b>")
    expect(page.locator("#empty")).to_contain_text("lamp <b>")
    page.get_by_label("Search products").fill("")
    expect(tiles.first).to_be_visible()

    page.get_by_role("button", name="New visitor").click()
    expect(told).to_contain_text("from 0 events")
    assert page.evaluate("JSON.parse(sessionStorage.visit).session") != session
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.evaluate((ROOT / "tests/assets/axe.min.js").read_text())
    found = page.evaluate("axe.run().then(result => result.violations)")
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    page.close()
    assert wrong == []
    with database.connect() as connection:
        rows = connection.execute(
            select(events.c.event_type, events.c.recommendation_id)
            .where(events.c.session_id == session)
            .order_by(events.c.id)
        ).all()
        assert [row.event_type for row in rows] == ["view"] * 4 + ["cart", "purchase"]
        assert [row.recommendation_id is not None for row in rows] == [False] * 3 + [True] + [
            False
        ] * 2
    app.extensions["recsys"].impressions.flush()
    with database.connect() as connection:
        clicked = select(impressions.c.scenario).where(
            impressions.c.recommendation_id == rows[3].recommendation_id
        )
        assert connection.execute(clicked).scalar_one() == "shop"


def test_what_others_click_moves_an_open_window(browser, shop, database):
    base, app = shop
    with database.begin() as connection:
        made = check_item({"item_id": "brand-new", "title": "Brand New Lamp"})
        item_rows.put_items(connection, [made], 2)
    app.extensions["recsys"].recommender.live.start()
    windows = [browser.new_context(reduced_motion="reduce") for _ in range(2)]
    mine, others = (window.new_page() for window in windows)
    for page in (mine, others):
        page.goto(f"{base}/shop")
        expect(page.locator("#next li[data-item]")).to_have_count(8)
    mine.locator("#tiles .card").nth(3).click()
    expect(mine.locator("#told")).to_contain_text("from 1 event")
    new = mine.locator("#next li[data-item='brand-new']")
    expect(new).to_have_count(0)
    for _ in range(3):
        others.get_by_role("button", name="New visitor").click()
        expect(others.locator("#told")).to_contain_text("from 0 events")
        others.get_by_label("Search products").fill("")
        expect(others.locator("#tiles .card")).to_have_count(24)
        others.locator("#tiles .card").nth(3).click()
        expect(others.locator("#told")).to_contain_text("from 1 event")
        others.get_by_label("Search products").fill("Brand New Lamp")
        expect(others.locator("#tiles .card")).to_have_count(1)
        others.locator("#tiles .card").first.click()
        expect(others.locator("#told")).to_contain_text("from 2 events")
    expect(new).to_have_count(1)
    for window in windows:
        window.close()


def test_a_launch_follows_what_was_clicked_in_the_page(database, tiny_shop):
    products = {item.item_id: item for item in tiny_shop.shop.items}

    def post(item_id, session, at_us, name):
        with database.begin() as connection:
            event = Event(None, session, item_id, "view", at_us, name)
            event_rows.insert_events(connection, [event], at_us)

    assert launch(database, products, 0, 1_000) is None
    post("P0001", "somewhere-else", 500, "a")
    assert launch(database, products, 0, 1_000) is None
    post("P0002", "shop-1", 600, "b")
    post("P0003", "shop-1", 700, "c")
    made = launch(database, products, 0, 1_000)
    assert launch(database, products, 1_000, 2_000) is None
    with database.connect() as connection:
        item = item_rows.get_items(connection, [made])[made]
        found = connection.execute(
            select(events.c.item_id).where(events.c.user_id.is_not(None)).order_by(events.c.id)
        ).scalars()
        assert [*found] == ["P0003", made] * FOUND_BY
    assert item.title == f"New: {products['P0003'].title}"
    assert item.categories == [*products["P0003"].categories]


def key_of(page):
    return page.locator('meta[name="recsys-key"]').get_attribute("content")


def test_the_shops_own_routes_are_bounded(shop):
    _, app = shop
    client = app.test_client()
    page = client.get("/shop")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(
        r"<script(?![^>]*\bsrc=)|\son[a-z]+=|\sstyle=", page.get_data(as_text=True)
    )
    first = client.get("/shop/items?limit=5").get_json()
    second = client.get(f"/shop/items?limit=5&cursor={first['next_cursor']}").get_json()
    ids = [item["item_id"] for item in first["items"] + second["items"]]
    assert len(set(ids)) == 10
    assert client.get("/shop/categories").get_json()["categories"]
    for address, field in (
        ("/shop/items?limit=61", "limit"),
        (f"/shop/items?q={'x' * 101}", "q"),
        ("/shop/items?cursor=%25", "cursor"),
        ("/shop/popular?k=25", "k"),
        ("/shop/sequence", "item_id"),
        ("/shop/sequence?" + "item_id=a&" * 13, "item_id"),
        ("/shop/why?session_id=somebody-else", "session_id"),
    ):
        refused = client.get(address)
        assert refused.status_code == 422, address
        assert refused.get_json()["errors"][0]["field"] == field
    assert client.get("/shop/pictures/mug/nordic/dotted.svg").mimetype == "image/svg+xml"
    for unknown in ("dragon/nordic/dotted", "mug/gothic/dotted", "mug/nordic/furry"):
        assert client.get(f"/shop/pictures/{unknown}.svg").status_code == 404


def test_the_order_of_clicks_turns_what_the_shop_shows(shop):
    client = shop[1].test_client()

    def after(*ids):
        query = "&".join(f"item_id={one}" for one in ids)
        return [one["item_id"] for one in client.get(f"/shop/sequence?{query}").get_json()["items"]]

    one, other = after("P0000", "P0001"), after("P0001", "P0000")
    assert one != other
    assert not {"P0000", "P0001"} & {*one, *other}  # what was looked at is not shown


def test_every_source_of_an_item_has_words_for_shoppers():
    assert {*NETWORKS, *RANKERS, COPY, TRENDING, "latest"} <= SOURCES.keys()
    assert (SOURCES["copy"], SOURCES["trending"]) == ("seen before", "trending now")


def test_without_a_key_there_is_no_shop(bare):
    assert bare.client.get("/shop").status_code == 404
    assert bare.client.get("/shop/items").status_code == 404


def test_every_product_of_the_simulated_shop_has_a_picture(tiny_shop):
    seen = set()
    for noun in NOUNS:
        for style in STYLES:
            drawn = picture(slug(noun), slug(style), "dotted")
            ElementTree.fromstring(drawn)
            seen.add(drawn)
            assert len(drawn) < 6_000
    assert len(seen) == len(NOUNS) * len(STYLES)
    for item in tiny_shop.shop.catalogue.items(drawn=True):
        assert picture(*item.image.removeprefix("/shop/pictures/").removesuffix(".svg").split("/"))
