"""Retention: what goes, and what must not."""

from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest

from jobs import prune
from recsys.config import Settings
from recsys.errors import ConflictError
from recsys.events.times import to_us
from recsys.ingest.event_body import check_event
from recsys.ingest.user_body import check_user
from recsys.ops import upkeep
from recsys.storage.entities import (
    attribute_rows,
    click_rows,
    event_rows,
    impression_rows,
    user_rows,
    version_rows,
)
from recsys.storage.entities.event_batches import id_span
from recsys.storage.entities.impression_rows import Impression

NOW = datetime.now(UTC)
FIRST, SECOND, THIRD = (f"20250101-00000{n}-abcdef" for n in (1, 2, 3))
CANDIDATES = [f"20250102-00000{n}-abcdef" for n in range(4)]


class Quiet:
    """A run's log that nobody reads."""

    def at(self, stage, share):
        pass


@pytest.fixture
def settings(tmp_path):
    return Settings(
        registry={"path": tmp_path / "models", "keep": 2}, events={"retention_days": 30}
    )


@pytest.fixture
def versions(database, settings, version_row):
    """Three champions one after the other, and candidates that came later; all with files."""
    for name in (FIRST, SECOND, THIRD, *CANDIDATES):
        (settings.registry.path / name).mkdir(parents=True)
        with database.begin() as connection:
            version_rows.add_version(connection, version_row(name))
            if name not in CANDIDATES:
                version_rows.deploy(connection, name, 1, "test", "better")


def folders(settings):
    return sorted(path.name for path in settings.registry.path.iterdir())


def test_what_a_roll_back_wants_is_kept_after_a_roll_back_too(database, settings, versions):
    with database.begin() as connection:
        version_rows.roll_back(connection, 2, "test", "worse")
    assert upkeep.prune_versions(settings, database) == 3
    assert folders(settings) == [FIRST, SECOND, *CANDIDATES[2:]]
    assert upkeep.prune_versions(settings, database) == 0
    with database.begin() as connection:
        assert [name for name, _ in version_rows.deployed_names(connection)] == [SECOND, FIRST]
        assert version_rows.roll_back(connection, 3, "test", "worse still") == FIRST
        with pytest.raises(ConflictError, match="was deleted"):
            version_rows.deploy(connection, THIRD, 4, "test", "again")


def test_a_version_that_is_promoted_meanwhile_stays(database, settings, versions):
    with database.begin() as connection:
        version_rows.deploy(connection, CANDIDATES[0], 2, "admin", "by hand")
        pruning = Thread(target=upkeep.prune_versions, args=(settings, database))
        pruning.start()
        pruning.join(0.5)
        assert pruning.is_alive()
    pruning.join(20)
    assert folders(settings) == [THIRD, CANDIDATES[0], *CANDIDATES[2:]]
    with database.connect() as connection:
        assert version_rows.champion(connection).version == CANDIDATES[0]


def test_the_job_prunes_events_answers_and_versions(database, settings, versions):
    with database.begin() as connection:
        for days in (40, 31, 29):
            then = NOW - timedelta(days=days)
            at = to_us(then)
            click = {"user_id": "u", "item_id": f"i{days}", "timestamp": then.isoformat()}
            event_rows.insert_events(connection, [check_event(click, to_us(NOW))], at)
            impression_rows.insert_impressions(connection, [answer(f"r{days}", at)])
    _, last = id_span(database)
    outcome = prune.run(settings, database, Quiet()).to_json()
    assert outcome == {"events": 2, "attributes": 0, "answers": 2, "versions": 3, "runs": 0}
    assert id_span(database) == (last, last)


def answer(name, at_us):
    return Impression(name, at_us, "u", None, "v", None, None, (("a", "lstm", 0.5),))


def test_clicks_that_come_from_no_known_answer_hold_nothing_up(database, monkeypatch):
    monkeypatch.setattr(upkeep, "ATTRIBUTION_ROWS", 10)
    now_us = to_us(NOW)
    strays = [
        {"user_id": "u", "item_id": f"i{n}", "recommendation_id": "nobody's"} for n in range(25)
    ]
    click = {"user_id": "u", "item_id": "a", "recommendation_id": "r1"}
    with database.begin() as connection:
        impression_rows.insert_impressions(connection, [answer("r1", now_us)])
        given = [check_event(one, now_us) for one in (*strays, click, *strays)]
        event_rows.insert_events(connection, given, now_us)
    assert upkeep.attribute_clicks(database, NOW) == 51
    assert upkeep.attribute_clicks(database, NOW) == 50  # those of the overlap, once more
    with database.connect() as connection:
        assert [click["item_id"] for click in click_rows.clicks_of(connection, "r1")] == ["a"]


def test_attributes_of_users_without_an_event_go_with_their_time(database, settings, monkeypatch):
    monkeypatch.setattr(upkeep, "PRUNE_ROWS", 2)
    old, now = to_us(NOW - timedelta(days=40)), to_us(NOW)
    with database.begin() as connection:
        some = [check_user(name, {"a": 1}) for name in ("active", "gone", "idle", "merged", "z")]
        attribute_rows.put_attributes(connection, some, "replace", old)
        attribute_rows.put_attributes(connection, [check_user("new", {"a": 1})], "replace", now)
        events = [{"user_id": "active", "item_id": "i"}, {"session_id": "tab", "item_id": "i"}]
        event_rows.insert_events(connection, [check_event(one, now) for one in events], now)
        user_rows.merge(connection, "merged", "s:tab", now)
        user_rows.merge(connection, "idle", "s:nothing", now)
    never = settings.model_copy(update={"events": Settings().events})
    assert upkeep.prune_attributes(never, database, NOW) == 0
    assert upkeep.prune_attributes(settings, database, NOW) == 3
    with database.connect() as connection:
        left = [one.user_id for one in attribute_rows.list_attributes(connection, 10)]
    assert left == ["active", "merged", "new"]
