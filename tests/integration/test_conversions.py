"""Conversions and money: from answers and events to the report, the dashboard, exports and erasure."""

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import orjson
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from recsys.cli import app
from recsys.cli.register import register
from recsys.config import AttributionSettings
from recsys.events.fields import Event
from recsys.events.times import HOUR_US, rfc3339, to_us
from recsys.ops import conversions as jobs
from recsys.ops import upkeep
from recsys.storage.entities import (
    conversion_rows,
    erasure_rows,
    event_rows,
    feedback_rows,
    impression_rows,
)
from recsys.storage.entities.impression_rows import Impression
from recsys.storage.schema.tables import conversions
from recsys.storage.user_export import user_json
from tests.integration.test_admin_access import log_in

NOW = datetime.now(UTC)
NOW_US = to_us(NOW)
REFUSED = [
    ("by=scenario,price", "by[1]"),
    ("by=hour&from=2020-01-01T00:00:00Z&to=2020-03-01T00:00:00Z", "31 days"),
    ("by=arm&from=2020-01-02T00:00:00Z&to=2020-01-01T00:00:00Z", "from"),
    ("by=arm&from=1020-01-02T00:00:00Z", "from"),
    ("by=arm&from=yesterday", "from"),
    ("by=arm&since=2020-01-02T00:00:00Z", "since"),
]


@pytest.fixture
def shop(Service, settings_for, database, tmp_path):
    """A service without a model, with two answers and what was bought and returned after them."""
    settings = settings_for(tmp_path / "models").model_copy(
        update={"attribution": AttributionSettings(currency="EUR")}
    )
    items = [{"item_id": "tea", "title": "Tea", "categories": ["Drinks", "Hot"], "price": 4.5}]
    with closing(Service(database, settings)) as made:
        made.call("PUT", "/items", json=items)
        with database.begin() as connection:
            impression_rows.insert_impressions(
                connection, [answer("r1", "ann", "home"), answer("r2", "bob", "cart")]
            )
            events = [
                bought("ann", "tea", 10.0),
                bought("ann", "tea", 4.0, event_type="refund", minutes=20),
                bought("ann", "cup", 3.0, properties='{"currency":"USD"}'),
                bought("bob", "tea", 6.0, recommendation_id="r2"),
                bought("cid", "tea", 4.0),  # saw nothing
            ]
            event_rows.insert_events(connection, events, NOW_US)
        assert jobs.attribute_conversions(settings, database, NOW) == 5
        yield made


def answer(name, user, scenario):
    shown = (("tea", "lstm", 0.5), ("cup", "popular", 0.1))
    at_us = NOW_US - HOUR_US
    return Impression(name, at_us, user, None, "v1", "champion", scenario, shown)


def bought(user, item, value, *, event_type="purchase", minutes=30, **more):
    at_us = NOW_US - minutes * 60_000_000
    given = {"event_id": f"{user}-{item}-{event_type}", "value": value, **more}
    return Event(user, None, item, event_type, at_us, **given)


def rows(shop, by, **more):
    query = "".join(f"&{name}={quote(value)}" for name, value in more.items())
    return shop.get(f"/reports/conversions?by={by}{query}", scope="read")["rows"]


def test_report_by_what_answers_were(shop):
    cart, home = rows(shop, "scenario")
    assert (home["scenario"], home["shown"], home["clicks"], home["users"]) == ("home", 1, 0, 1)
    assert (home["conversions"], home["returns"], home["other_currency"]) == (2.0, 1.0, 1.0)
    assert (home["value"], home["value_per_user"]) == (6.0, 6.0)
    # One answer, with two conversions.
    assert (home["converted"], home["conversion_rate"]) == (1, 1.0)
    assert (home["conversion_rate_low"], home["conversion_rate_high"]) == (0.206549, 1.0)
    assert (cart["scenario"], cart["conversions"], cart["value"]) == ("cart", 1.0, 6.0)
    both = rows(shop, "version,arm")[0]
    assert (both["version"], both["arm"], both["value_per_user"]) == ("v1", "champion", 6.0)
    assert both["low"] == both["high"] == 6.0  # both users brought the same
    sources = {row["source"]: row for row in rows(shop, "source")}
    assert (sources["lstm"]["value"], sources["lstm"]["shown"]) == (12.0, 2)
    assert (sources["popular"]["value"], sources["popular"]["users"]) == (0.0, None)
    assert (sources["popular"]["converted"], sources["popular"]["conversion_rate"]) == (1, 0.5)
    assert {row["category"]: row["value"] for row in rows(shop, "category")} == {
        "Drinks": 12.0,
        "": 0.0,
    }
    hour = rows(shop, "hour")[0]
    assert hour["hour"] == rfc3339((NOW_US - HOUR_US) // HOUR_US * HOUR_US)
    assert rows(shop, "arm", to=(NOW - timedelta(hours=3)).isoformat()) == []
    for query, named in REFUSED:
        answered = shop.call("GET", f"/reports/conversions?{query}", scope="read", status=422)
        assert named in answered.get_data(as_text=True)


def test_conversions_that_pages_tell_of_can_be_left_out(shop, database, monkeypatch, tmp_path):
    """A page's key is public: anybody can say with it that they bought something dear."""
    claimed = bought("bob", "cup", 9_000.0, recommendation_id="r2", event_id="from-page:1")
    with database.begin() as connection:
        event_rows.insert_events(connection, [claimed], NOW_US)
    jobs.attribute_conversions(shop.app.extensions["recsys"].settings, database, NOW)
    assert [row["value"] for row in rows(shop, "scenario")] == [9_006.0, 6.0]
    assert [row["value"] for row in rows(shop, "scenario", pages="false")] == [6.0, 6.0]

    register(app)
    monkeypatch.chdir(tmp_path)
    address = database.url.render_as_string(hide_password=False)
    monkeypatch.setenv("RECSYS_DATABASE__URL", address)
    monkeypatch.setenv("RECSYS_ATTRIBUTION__CURRENCY", "EUR")

    def run(*arguments):
        return CliRunner().invoke(app, ["conversions", "--by", "scenario", *arguments])

    printed = run().output.splitlines()
    assert printed[0].startswith(
        "scenario cart: 2 conversions, 0 returns, 100.00% of what was shown"
    )
    assert "value 9,006.00 EUR, 9,006 per user" in printed[0]
    counted = orjson.loads(run("--no-pages", "--json").stdout.splitlines()[-1])
    assert [row["value"] for row in counted["rows"]] == [6.0, 6.0]
    refused = CliRunner().invoke(app, ["conversions", "--by", "price"])
    assert "--by" in str(refused.exception) and "price" in str(refused.exception)


def test_money_stands_on_the_pages(shop, add_account):
    with shop.database.begin() as connection:
        add_account(connection, "ada", "viewer")
    client = log_in(shop, "ada")[0]
    shop.call("PUT", "/scenarios/home", json={"k": 3})
    shop.call("PUT", "/scenarios/mail", json={"k": 3})
    listed = client.get("/admin/scenarios").get_data(as_text=True)
    cells = re.findall(r'data-label="Revenue" class="number">([^<]*)<', listed)
    assert cells == ["6.00 EUR", "0.00 EUR"]  # home's, without what was paid in dollars; mail's
    overview = client.get("/admin/overview").get_data(as_text=True)
    assert "Value from recommendations" in overview and "12.00 EUR" in overview
    assert "75.0% of all value" in overview  # cid's four euros came from elsewhere
    item = client.get("/admin/items/one?item_id=tea").get_data(as_text=True)
    assert "4.50 EUR" in item and "16.00 EUR in 30 days" in item and "2 of 3 conversions" in item
    assert "4.50 EUR" in client.get("/admin/items").get_data(as_text=True)


def test_an_export_tells_of_conversions_and_an_erasure_takes_them(shop):
    source = shop.app.extensions["recsys"].recommender.source
    exported = orjson.loads(b"".join(user_json(source, shop.database, "ann", NOW_US)))
    assert sorted((one["item_id"], one["value"]) for one in exported["conversions"]) == [
        ("cup", 3.0),
        ("tea", -4.0),
        ("tea", 10.0),
    ]
    with shop.database.begin() as connection:
        named = bought("bob", "cup", 8.0, recommendation_id="r1")
        event_rows.insert_events(connection, [named], NOW_US)
    settings = shop.app.extensions["recsys"].settings
    jobs.attribute_conversions(settings, shop.database, NOW)
    assert {row["scenario"]: row["value"] for row in rows(shop, "scenario")}["home"] == 14.0
    with shop.database.begin() as connection:
        erasure_rows.erase(connection, "ann", NOW_US)
    jobs.attribute_conversions(settings, shop.database, NOW)
    # What bob bought by ann's answer is what bob's own answer showed too.
    assert {row["scenario"]: row["value"] for row in rows(shop, "scenario")} == {
        "home": 0.0,
        "cart": 14.0,
    }


def test_figures_stay_when_answers_and_events_are_past_their_time(shop):
    before = rows(shop, "scenario")
    settings = shop.app.extensions["recsys"].settings
    with shop.database.begin() as connection:
        impression_rows.delete_impressions_before(connection, NOW_US, 10)
        conversion_rows.note_due(connection, ["u:ann", "u:bob"])
    jobs.attribute_conversions(settings, shop.database, NOW)
    unknown = {"users": None, "value_per_user": None, "low": None, "high": None}
    assert rows(shop, "scenario") == [{**row, **unknown} for row in before]
    kept = settings.model_copy(
        update={"events": settings.events.model_copy(update={"retention_days": 1})}
    )
    later = NOW + timedelta(days=2)
    assert jobs.forget_owners(kept, shop.database, later) == 5
    assert upkeep.prune_events(kept, shop.database, later) > 0
    assert rows(shop, "scenario") == [{**row, **unknown} for row in before]
    with shop.database.connect() as connection:
        assert set(connection.execute(select(conversions.c.owner_key)).scalars()) == {None}


def test_deleted_feedback_is_no_conversion_any_more(shop):
    one = bought("bob", "cup", 8.0)
    given = Event("bob", None, "cup", "purchase", one.timestamp_us, "gorse:1", 8.0)
    settings = shop.app.extensions["recsys"].settings
    with shop.database.begin() as connection:
        event_rows.insert_events(connection, [given], NOW_US)
    jobs.attribute_conversions(settings, shop.database, NOW)
    assert rows(shop, "scenario")[0]["value"] == 14.0
    with shop.database.begin() as connection:
        assert feedback_rows.delete_pair(connection, "bob", "cup", None, NOW_US) == 1
    assert rows(shop, "scenario")[0]["value"] == 6.0
