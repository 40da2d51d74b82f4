"""The live state of a process, over both databases."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest

from recsys.config import Settings
from recsys.errors import ConflictError, StorageUnavailableError
from recsys.events.fields import Event
from recsys.events.identity import hash_texts
from recsys.events.times import DAY_US
from recsys.ingest.item_body import check_item
from recsys.models.live_log import BEGINS_US_BEFORE
from recsys.serving.live_state import AT_ONCE, LiveState
from recsys.serving.recommender import Recommender
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    erasure_rows,
    event_rows,
    import_rows,
    item_rows,
    user_rows,
    version_rows,
)
from recsys.storage.entities.event_batches import all_aliases
from recsys.storage.events_source import open_events_source

NOW_US = 1_900_000_000_000_000
DATA_END_US = NOW_US - 10 * DAY_US


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def deploy(version_row):
    """deploy(database, name, data_end_us): make a version the champion."""

    def deploy_(database, name="v1", data_end_us=DATA_END_US):
        with database.begin() as connection:
            row = version_row(name, data_end_us=data_end_us)
            version_rows.add_version(connection, row)
            version_rows.deploy(connection, name, NOW_US, "test", "")

    return deploy_


@pytest.fixture
def live_of(database, clock, deploy):
    """live_of(**settings): a live state over a database in which a version is deployed."""
    made = []
    deploy(database)

    def open_(**sections):
        settings = Settings(database={"url": str(database.url)}, **sections)
        source = open_events_source(settings, database)
        made.append(LiveState(settings, database, source, clock))
        return made[-1]

    yield open_
    for one in made:
        one.stop()


def post(database, *items, user="ada", session=None, at_us=NOW_US, kind="view", name="e"):
    events = [
        Event(user, session, item, kind, at_us + n, f"{name}-{item}-{at_us}-{n}")
        for n, item in enumerate(items)
    ]
    with database.begin() as connection:
        event_rows.insert_events(connection, events, at_us)


def held(live):
    """(owner, item, time) of what is in the log, by how often."""
    with live._lock:
        log, arrays = live.log, live.log.arrays
        owners = {code: key for key, code in log._owner_codes.items()}
        return Counter(
            (
                owners[int(arrays.owners[at])],
                log.item_ids[arrays.codes[at]],
                int(arrays.times_us[at]),
            )
            for at in range(len(log))
        )


def items(live):
    return sorted(item for (_, item, _), times in held(live).items() for _ in range(times))


def stored(database):
    """What the log is to hold, from all there is: slowly."""
    merged = all_aliases(database)
    with database.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT user_id, session_id, item_id, timestamp_us FROM events"
        ).all()
    keys = [f"u:{row[0]}" if row[0] is not None else f"s:{row[1]}" for row in rows]
    hashes = hash_texts([merged.get(key, key) for key in keys]).tolist()
    return Counter(
        (number, row[2], row[3])
        for number, row in zip(hashes, rows, strict=True)
        if row[3] > DATA_END_US - BEGINS_US_BEFORE
    )


def test_it_begins_before_the_versions_data_end_and_goes_on(database, live_of):
    post(database, "old", at_us=DATA_END_US - BEGINS_US_BEFORE - 5)
    post(database, "a", at_us=DATA_END_US - 5)
    post(database, "b")
    live = live_of()
    assert live.follow_once(NOW_US) == 2
    assert live.follow_once(NOW_US) == 0
    post(database, "c", "d")
    assert live.follow_once(NOW_US) == 2
    assert items(live) == ["a", "b", "c", "d"]
    assert held(live) == stored(database)
    again = live_of()  # a process that starts anew
    again.follow_once(NOW_US)
    assert held(again) == held(live)


def test_nothing_is_followed_where_nothing_is_deployed(database, clock):
    post(database, "a")
    settings = Settings(database={"url": str(database.url)})
    live = LiveState(settings, database, open_events_source(settings, database), clock)
    assert live.follow_once(NOW_US) == 0 and len(live.log) == 0
    assert live.degraded is None
    live.stop()


def test_a_roll_back_reads_older_events_and_a_promotion_none(database, live_of, deploy):
    post(database, "older", at_us=DATA_END_US - DAY_US)
    post(database, "a")
    live = live_of()
    live.follow_once(NOW_US)
    before = live.log
    deploy(database, "v2", NOW_US - DAY_US)
    assert live.follow_once(NOW_US) == 0 and live.log is before
    deploy(database, "v3", DATA_END_US - 2 * DAY_US)
    assert live.follow_once(NOW_US) == 2
    assert items(live) == ["a", "older"]


def test_types_that_count_are_taken_alone(database, live_of):
    post(database, "a", kind="view")
    post(database, "b", kind="cart")
    post(database, "c", kind="purchase")
    live = live_of(sequences={"input_event_types": ["view"], "target_event_types": ["purchase"]})
    live.follow_once(NOW_US)
    assert items(live) == ["a", "c"]


def test_erasure_merge_and_undo_are_followed(database, live_of, clock):
    post(database, "a", user="ada")
    post(database, "b", user="bob")
    post(database, "c", user=None, session="visit")
    live = live_of()
    live.follow_once(NOW_US)
    with database.begin() as connection:
        erasure_rows.erase(connection, "bob", NOW_US)
    assert live.follow_once(NOW_US) == 2
    assert items(live) == ["a", "c"] and held(live) == stored(database)
    clock.seconds += 1
    with database.begin() as connection:
        user_rows.merge(connection, "ada", "s:visit", NOW_US)
    post(database, "d", user=None, session="visit")
    live.follow_once(NOW_US)
    assert held(live) == stored(database)
    assert {owner for owner, _, _ in held(live)} == set(hash_texts(["u:ada"]).tolist())
    with database.begin() as connection:
        record = import_rows.OpenImport("file", NOW_US)
        number = record.begin(connection)
        connection.exec_driver_sql(f"UPDATE events SET import_id = {number} WHERE item_id = 'a'")
        connection.exec_driver_sql("UPDATE imports SET first_row = 0")
        record.reach(connection)
    with database.begin() as connection:
        one = import_rows.begin_undo(connection, number, NOW_US)
        gone, _ = import_rows.undo_rows(connection, one, 0)
        assert gone == 1
    live.follow_once(NOW_US)
    assert items(live) == ["c", "d"] and held(live) == stored(database)


def test_merges_wait_where_reading_takes_long(database, live_of, clock, monkeypatch):
    post(database, "a", user=None, session="visit")
    live = live_of()
    begin = live._source.follow

    def slowly(*asked):
        clock.seconds += 3
        return begin(*asked)

    monkeypatch.setattr(live._source, "follow", slowly)
    live.follow_once(NOW_US)
    with database.begin() as connection:
        user_rows.merge(connection, "ada", "s:visit", NOW_US)
    post(database, "b")
    assert live.follow_once(NOW_US) == 1  # goes on meanwhile
    clock.seconds += 59
    assert live.follow_once(NOW_US) == 0
    clock.seconds += 2
    assert live.follow_once(NOW_US) == 2
    assert held(live) == stored(database)


def test_events_past_retention_go(database, live_of):
    post(database, "old", at_us=NOW_US - 4 * DAY_US)
    post(database, "new")
    live = live_of(events={"retention_days": 5})
    live.follow_once(NOW_US)
    assert items(live) == ["new", "old"]
    live.follow_once(NOW_US + 3 * DAY_US)
    assert items(live) == ["new"]


def test_items_outside_the_catalogue_count_by_users_alone(database, live_of):
    live = live_of()
    post(database, "x", user=None, session="page")
    live.follow_once(NOW_US)
    assert items(live) == ["x"]  # there is no catalogue
    with database.begin() as connection:
        item_rows.put_items(connection, [check_item({"item_id": "tea", "title": "Tea"})], 1)
    post(database, "tea", "spam", user=None, session="page", name="f")
    post(database, "wild", user="ada")
    live.follow_once(NOW_US)
    assert items(live) == ["tea", "wild"]
    post(database, "wild", user=None, session="page", name="g")
    assert live.follow_once(NOW_US) == 0
    with database.begin() as connection:  # what is known of another item changes nothing here
        item_rows.put_items(connection, [check_item({"item_id": "mug", "title": "Mug"})], 1)
    assert live.follow_once(NOW_US) == 0
    with database.begin() as connection:
        item_rows.put_items(connection, [check_item({"item_id": "spam", "title": "Ham"})], 1)
    live.follow_once(NOW_US)
    assert items(live) == ["spam", "tea", "wild"]


def test_it_is_bounded(database, live_of):
    live = live_of(serving={"live_events": 1_000})
    post(database, *[f"i{n}" for n in range(1_500)])
    live.follow_once(NOW_US)
    assert 500 <= len(live.log) <= 1_000 and live.log.code("i1499") >= 0
    post(database, "last", name="l")
    live.follow_once(NOW_US)
    assert len(live.log) <= 1_000 and live.log.code("last") >= 0
    assert live.bytes >= live.log.bytes > 0


def test_an_outage_makes_it_older_and_loses_nothing(database, live_of, clock, monkeypatch):
    live = live_of()
    post(database, "a")
    live.follow_once(NOW_US)
    assert live.age_seconds == 0 and live.degraded is None

    def away():
        raise StorageUnavailableError("the database does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(database, "read", away)
        for _ in range(3):
            clock.seconds += 5
            with pytest.raises(StorageUnavailableError):
                live.follow_once(NOW_US)
        assert live.age_seconds == 15
        assert live.degraded == "what others did lately is 15 seconds old"
        assert items(live) == ["a"]
    post(database, "b")
    live.follow_once(NOW_US)
    assert live.age_seconds == 0 and live.degraded is None
    assert items(live) == ["a", "b"]


def test_readers_wait_for_a_thousand_events_at_most(database, live_of, monkeypatch):
    live = live_of()
    live.follow_once(NOW_US)
    post(database, *[f"i{n}" for n in range(2 * AT_ONCE + 1)])
    taken = []
    append = type(live.log).append

    def noted(log, owners, *more):
        taken.append((live._lock.locked(), len(owners)))
        return append(log, owners, *more)

    monkeypatch.setattr(type(live.log), "append", noted)
    live.follow_once(NOW_US)
    assert taken == [(True, AT_ONCE), (True, AT_ONCE), (True, 1)]


def test_a_thread_follows_what_another_process_stores(database, deploy, tmp_path):
    deploy(database)
    settings = Settings(
        database={"url": database.url.render_as_string(hide_password=False)},
        registry={"path": tmp_path},
        serving={"live_seconds": 0.1},
    )
    mine = Database(settings.database.url.get_secret_value())
    recommender = Recommender(settings, mine, time.monotonic)
    live = recommender.live
    live.start()
    live.start()  # once is enough
    assert sum(one.name == "live" for one in threading.enumerate()) == 1
    post(database, "a", at_us=NOW_US)
    end = time.monotonic() + 30
    while live.log.code("a") < 0 and time.monotonic() < end:
        time.sleep(0.02)
    assert live.log.code("a") >= 0
    assert recommender.cached_bytes()["live"] == live.bytes > 0
    recommender.close()
    assert not any(one.name == "live" for one in threading.enumerate())
    mine.close()


def test_it_may_be_off(database, tmp_path):
    settings = Settings(
        database={"url": str(database.url)},
        registry={"path": tmp_path},
        serving={"live_seconds": 0},
    )
    recommender = Recommender(settings, database, time.monotonic)
    assert recommender.live is None and recommender.follow_once(NOW_US) is None
    recommender.close()


@pytest.mark.parametrize("seed", range(3))
def test_after_any_changes_it_equals_the_log_read_whole(database, live_of, clock, seed):
    draw = random.Random(seed)
    live = live_of()
    users = ["ada", "bob", "eve"]
    for step in range(40):
        clock.seconds += 60
        what = draw.random()
        if what < 0.6:
            user = draw.choice([*users, None])
            session = draw.choice(["s1", "s2"]) if user is None else draw.choice([None, "s1"])
            at_us = DATA_END_US + draw.choice([-5, 1, 2]) * DAY_US
            wanted = draw.choices("abcde", k=draw.randrange(1, 4))
            post(database, *wanted, user=user, session=session, at_us=at_us, name=f"e{step}")
        elif what < 0.75:
            other = draw.choice(["s:s1", "s:s2", "u:bob", "u:eve"])
            # It may be a circle, or of who was erased.
            with suppress(ConflictError), database.begin() as connection:
                user_rows.merge(connection, draw.choice(users), other, NOW_US)
        elif what < 0.8:
            name = draw.choice(users)
            with database.begin() as connection:
                erasure_rows.erase(connection, name, NOW_US)
        if draw.random() < 0.5:
            live.follow_once(NOW_US)
            assert held(live) == stored(database), step
    live.follow_once(NOW_US)
    assert held(live) == stored(database)
