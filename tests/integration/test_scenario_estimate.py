"""What another version of a scenario would have earned, from logged answers in a real database."""

import time
from contextlib import closing
from dataclasses import replace

import orjson
import pytest

from recsys.errors import InputError, NotEnoughDataError, NotFoundError
from recsys.events.fields import Event
from recsys.models.blend import BLEND, LIVE, Blend
from recsys.registry import write_version
from recsys.serving.answering import recommend
from recsys.serving.answers import Request
from recsys.serving.recommender import Recommender
from recsys.serving.steering.scenario_estimate import EstimateLimits, estimate_scenario
from recsys.steering.scenario_spec import Explore, Rotation, ScenarioSpec
from recsys.storage.entities import event_rows, item_rows, scenario_rows, version_rows
from recsys.storage.schema.tables import attributed_clicks, conversions, impressions, model_versions

NOW_US = 1_740_800_000_000_000
VISITORS, K, EACH_US = 130, 5, 1_000_000
PRESENT = ScenarioSpec(logic="for_you", k=K)


@pytest.fixture
def shop(database, tmp_path, live_shop, publish, settings_for):
    """A recommender, and a log of VISITORS answers by version 2 of `home`, of which every third was clicked."""
    publish(live_shop, database, tmp_path / "models")
    ids = [item.item_id for item in live_shop.shop.items]
    with database.begin() as connection:
        item_rows.put_items(connection, live_shop.shop.items, 1)
        scenario_rows.add_version(connection, "home", ScenarioSpec(logic="latest"), "ada", 1)
        scenario_rows.add_version(connection, "home", PRESENT, "ada", 2)
        event_rows.insert_events(
            connection,
            [
                Event(f"u{n}", None, ids[(n + step) % len(ids)], "view", _asked_at(n) - 9 + step)
                for n in range(VISITORS)
                for step in range(3)
            ],
            NOW_US,
        )
    with closing(
        Recommender(settings_for(tmp_path / "models", live_seconds=0.0), database, time.monotonic)
    ) as recommender:
        for n in range(VISITORS):
            answer = recommend(recommender, Request(user_id=f"u{n}", scenario="home"), NOW_US)
            _log(database, f"a{n}", n, 2, [one.item_id for one in answer.items])
        with database.begin() as connection:
            # What visitors did after their answers would turn the lists, if it were read.
            later = [
                Event(f"u{n}", None, ids[(7 * n + 31) % len(ids)], "view", _asked_at(n) + 500)
                for n in range(VISITORS)
            ]
            event_rows.insert_events(connection, later, NOW_US)
        yield recommender


def _asked_at(n):
    return NOW_US - (n + 1) * EACH_US


def _log(database, name, n, version, items, arm=None):
    with database.begin() as connection:
        connection.execute(
            impressions.insert().values(
                recommendation_id=name,
                created_at_us=_asked_at(n),
                user_id=f"u{n}",
                scenario="home",
                scenario_version=version,
                arm=arm,
                items=orjson.dumps([[item_id, "lstm", 0.5] for item_id in items]).decode(),
            )
        )
        if n % 3 == 0 and arm is None:
            connection.execute(
                attributed_clicks.insert().values(
                    event_row_id=10_000 * version + n,
                    recommendation_id=name,
                    item_id=items[1],
                    rank=2,
                    source="lstm",
                    attributed_at_us=NOW_US,
                )
            )
            sold = {
                **dict.fromkeys(("source", "model_version", "arm", "currency"), ""),
                **{"item_id": items[1], "event_type": "purchase", "event_at_us": NOW_US},
                **{"share": 0.5, "via": "shown", "answered_at_us": _asked_at(n), "rank": 2},
                **{"recommendation_id": name, "scenario": "home"},
            }
            row = 10_000 * version + n
            for is_return, value in ((False, 12.5), (True, -2.5)):
                event = {"event_row_id": row + 5_000 * is_return, "is_return": is_return}
                connection.execute(conversions.insert().values(**sold, **event, value=value))


def test_the_present_version_is_estimated_as_what_it_was(shop, database):
    _log(database, "of another version", 3, 1, ["P0001", "P0002"])
    _log(database, "of an experiment's arm", 3, 2, ["P0001", "P0002"], "experiment")
    exploring = replace(PRESENT, explore=Explore(0.1), rotation=Rotation(3, 2.0))
    found = estimate_scenario(shop, "home", exploring, EstimateLimits(), NOW_US)
    clicks = -(-VISITORS // 3) / VISITORS
    assert (found.version, found.found.answers, found.found.units) == (2, VISITORS, VISITORS)
    assert found.found.overlap == 1 and found.found.decay is None
    first = found.found.rewards[0]
    assert first.candidate.mean == pytest.approx(clicks) and first.lift == (0, 0, 0)
    sold, value = found.found.rewards[1:]
    assert sold.candidate.mean == pytest.approx(clicks / 2)
    assert value.current.mean == pytest.approx(10 * clicks)
    assert found.plain["value"]["lift"] == {"mean": 0, "low": 0, "high": 0}
    assert "conversions per answer: " in found.text
    assert found.since_us == _asked_at(VISITORS - 1) and found.until_us == _asked_at(0)


def test_where_the_log_cannot_tell_it_says_so(shop):
    limits = EstimateLimits()
    with pytest.raises(NotEnoughDataError, match="never shown there"):
        estimate_scenario(shop, "home", replace(PRESENT, filter="price>30"), limits, NOW_US)
    with pytest.raises(NotFoundError, match="nowhere"):
        estimate_scenario(shop, "nowhere", PRESENT, limits, NOW_US)
    ticks = iter(range(1_000))
    with pytest.raises(NotEnoughDataError, match="worth 20 visitors"):  # 20 seconds of one each
        estimate_scenario(shop, "home", PRESENT, limits, NOW_US, clock=lambda: float(next(ticks)))
    after = NOW_US + 15 * 86_400_000_000
    with pytest.raises(NotEnoughDataError, match="version 2 of home has answered nobody"):
        estimate_scenario(shop, "home", PRESENT, limits, after)


def test_another_model_is_judged_by_answers_after_its_data(
    shop, database, live_shop, tmp_path, version_row
):
    unlike = Blend({"popular": 1.0}, 0.0, 0.0)
    other = replace(
        live_shop.bundle, blends={**live_shop.bundle.blends, BLEND: unlike, LIVE: unlike}
    )
    twin, popular = "20200101-000000-aaaaaa", "20200101-000000-bbbbbb"
    late, gone = "20200101-000000-cccccc", "20200101-000000-dddddd"
    middle_us = _asked_at(VISITORS // 2)
    for version, bundle, state, end_us in (
        (twin, live_shop.bundle, "candidate", 1),
        (popular, other, "refused", 1),
        (late, live_shop.bundle, "candidate", NOW_US),
        (gone, live_shop.bundle, "deleted", 1),
    ):
        digest, _ = write_version(tmp_path / "models", replace(bundle, version=version))
        facts = {"state": state, "data_end_us": end_us, "manifest_sha256": digest}
        with database.begin() as connection:
            version_rows.add_version(connection, version_row(version, **facts))

    def asked(version, spec=None):
        return estimate_scenario(
            shop, "home", spec, EstimateLimits(), NOW_US, model_version=version
        )

    found = asked(twin)
    assert (found.found.answers, found.found.overlap) == (VISITORS, 1)
    assert found.found.rewards[0].lift == (0, 0, 0) and found.plain["model_version"] == twin
    assert twin in found.text and shop.bundle().version != twin
    with pytest.raises(NotEnoughDataError, match="of what this version would show was never"):
        asked(popular, PRESENT)
    with pytest.raises(
        NotEnoughDataError, match=f"{late} has learned from .* answered nobody after"
    ):
        asked(late)
    with pytest.raises(InputError, match="its files were deleted"):
        asked(gone)
    with pytest.raises(InputError, match=f"model_version .* nearest: {twin}"):
        asked(twin.replace("aaaaaa", "aaaaab"))
    with database.begin() as connection:
        connection.execute(
            model_versions.update()
            .where(model_versions.c.version == twin)
            .values(data_end_us=middle_us)
        )
    with pytest.raises(NotEnoughDataError, match=f"worth {VISITORS // 2 + 1} visitors"):
        asked(twin)
