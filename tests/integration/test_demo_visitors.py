"""The demo's simulated visitors, over the service's own REST."""

from collections import Counter
from contextlib import closing

import orjson
from sqlalchemy import func, select

from recsys.demo.demo_steering import NAME, steer
from recsys.demo.visitors import HOME, PRODUCT, Visitors
from recsys.errors import RecsysError
from recsys.storage.entities import key_rows
from recsys.storage.schema.tables import events, impressions
from recsys.web.app import create_app


def test_visitors_ask_two_scenarios_click_what_they_were_shown_and_buy(
    database, tmp_path, live_shop, publish, settings_for
):
    publish(live_shop, database, tmp_path / "models")
    with database.begin() as connection:
        key = key_rows.create_key(connection, "demo", ["admin"], 1)
    app = create_app(settings_for(tmp_path / "models"), database)
    client = app.test_client()

    def post(path, body):
        answer = client.post(f"/api/v1/{path}", json=body, headers={"X-API-Key": key})
        assert answer.status_code == 200, answer.text
        return answer.json

    for _ in range(2):  # the second run of a demo starts nothing anew
        steer(database, 1)
    with closing(app.extensions["recsys"]):
        guests = Visitors(live_shop.shop, post, 4)
        for guest in range(40):
            guests.visit(guest)
            guests.visit(guest)  # they come back
    with database.connect() as connection:
        asked = dict(
            connection.execute(
                select(impressions.c.scenario, func.count()).group_by(impressions.c.scenario)
            ).all()
        )
        done = dict(
            connection.execute(
                select(events.c.event_type, func.count())
                .where(events.c.recommendation_id.is_not(None))
                .group_by(events.c.event_type)
            ).all()
        )
        bought = connection.execute(
            select(events.c.item_id, events.c.value).where(events.c.event_type == "purchase")
        ).all()
        tried = connection.execute(select(impressions.c.scenario, impressions.c.experiments)).all()
    assert asked[HOME] == 80 and asked[PRODUCT] > 20
    assert done["view"] > done["purchase"] > 0
    prices = {item.item_id: item.price for item in live_shop.shop.items}
    assert all(value == prices[item_id] for item_id, value in bought)
    arms = Counter(
        orjson.loads(given)[NAME] for scenario, given in tried if scenario == HOME and given
    )
    assert arms.keys() == {"as-it-is", "varied"} and arms.total() == 80


def test_nobody_comes_while_the_service_is_away_and_they_stop_when_told(tiny_shop, monkeypatch):
    tries = []

    class Stopped:
        def is_set(self):
            return len(tries) == 3

        def wait(self, seconds):
            assert seconds == 1.0

    def away(path, body):
        tries.append(path)
        raise (OSError, RecsysError)[len(tries) % 2]("away")

    Visitors(tiny_shop.shop, away, 4).come(6_000, Stopped())
    assert tries == ["recommendations"] * 3
