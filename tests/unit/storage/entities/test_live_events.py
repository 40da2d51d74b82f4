"""The event log as it grows, in both databases."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import text

from recsys.events.fields import Event
from recsys.events.identity import hash_texts
from recsys.storage.entities import event_rows, user_rows
from recsys.storage.entities.live_events import GRACE_US, MAX_GAPS, OwnFollower

SECOND_US = 1_000_000


def post(database, *items, user="ada", at_us=SECOND_US, session=None):
    events = [
        Event(user, session, item, "view", at_us + place, f"{item}-{at_us}-{place}")
        for place, item in enumerate(items)
    ]
    with database.begin() as connection:
        event_rows.insert_events(connection, events, at_us)


def read_all(follower, now_us=0):
    items = []
    while True:
        batch = follower.read(now_us)
        items += batch.item_ids
        if not batch.more:
            return items


def test_each_event_comes_once_in_the_order_of_arrival(database):
    post(database, "a", "b", at_us=9 * SECOND_US)
    follower = OwnFollower(database, 0, 100, rows=2)
    assert read_all(follower) == ["a", "b"]
    assert read_all(follower) == []
    post(database, "c", at_us=SECOND_US)
    post(database, "d", "e", "f", "g")
    assert read_all(follower) == ["c", "d", "e", "f", "g"]
    assert read_all(follower) == []


def test_a_batch_says_whose_events_are(database):
    post(database, "a", session="visit")
    post(database, "b", user=None, session="visit")
    post(database, "c", user=None, session="other")
    with database.begin() as connection:
        user_rows.merge(connection, "eve", "s:other", 1)
    batch = OwnFollower(database, 0, 100).read(0)
    assert batch.item_ids == ["a", "b", "c"]
    assert batch.owner_hashes.tolist() == hash_texts(["u:ada", "s:visit", "u:eve"]).tolist()
    assert batch.of_users.tolist() == [True, False, True]
    assert batch.session_hashes.tolist() == hash_texts(["visit", "visit", "other"]).tolist()
    assert batch.times_us.tolist() == [SECOND_US] * 3
    assert batch.event_types == ["view"] * 3


def test_reading_begins_after_a_time_and_with_the_newest(database):
    post(database, *"abcd", at_us=SECOND_US)
    post(database, *"efgh", at_us=5 * SECOND_US)
    assert read_all(OwnFollower(database, 4 * SECOND_US, 100)) == [*"efgh"]
    assert read_all(OwnFollower(database, 4 * SECOND_US, 3)) == [*"fgh"]
    assert read_all(OwnFollower(database, 0, 6)) == [*"cdefgh"]
    late = OwnFollower(database, 9 * SECOND_US, 100)
    assert read_all(late) == []
    post(database, "old", at_us=SECOND_US)
    post(database, "new", at_us=10 * SECOND_US)
    assert read_all(late) == ["new"]
    with database.begin() as connection:
        connection.execute(text("DELETE FROM events"))
    empty = OwnFollower(database, 0, 100)
    assert read_all(empty) == []
    post(database, "first", at_us=SECOND_US)
    assert read_all(empty) == ["first"]


def needs_postgresql(database):
    if database.dialect != "postgresql":
        pytest.skip("SQLite has one writer at a time")


def test_what_commits_late_under_lower_ids_comes_once(database):
    needs_postgresql(database)
    follower = OwnFollower(database, 0, 100)
    assert read_all(follower) == []
    with database.begin() as slow:
        late = [Event("bob", None, f"late{n}", "view", n + 1, f"late{n}") for n in range(3)]
        event_rows.insert_events(slow, late, 1)
        post(database, "a", "b")
        assert read_all(follower, 0) == ["a", "b"]
        # However long it takes: its transaction is still there.
        for minutes in range(1, 90, 7):
            assert read_all(follower, minutes * 60 * SECOND_US) == []
        post(database, "c")
        assert read_all(follower, 90 * 60 * SECOND_US) == ["c"]
    assert read_all(follower, 91 * 60 * SECOND_US) == ["late0", "late1", "late2"]
    assert read_all(follower, 92 * 60 * SECOND_US) == []
    assert follower.bytes == 0


def test_ids_that_never_come_are_given_up(database):
    needs_postgresql(database)
    post(database, "a", "b")
    post(database, "b", "a")  # other ids of events
    follower = OwnFollower(database, 0, 100)
    assert read_all(follower) == ["a", "b", "b", "a"]
    for _ in range(3):
        post(database, "a", "b")  # duplicates, for which ids are used up
    with database.begin() as connection:  # given back by nobody
        connection.execute(text("SELECT nextval(pg_get_serial_sequence('events', 'id'))"))
    post(database, "c")
    assert read_all(follower, 0) == ["c"]
    assert follower.bytes > 0
    assert read_all(follower, SECOND_US) == []  # which transactions ran then is known
    now_us, end = 2 * SECOND_US, time.monotonic() + 120
    while follower._gaps[0].settled_us is None and time.monotonic() < end:
        assert read_all(follower, now_us) == []  # one of another database may run still
        time.sleep(0.05)
    assert read_all(follower, now_us + GRACE_US - 1) == []
    assert follower.bytes > 0
    assert read_all(follower, now_us + GRACE_US) == []
    assert follower.bytes == 0


def test_a_long_gap_is_read_in_parts(database):
    needs_postgresql(database)
    follower = OwnFollower(database, 0, 100, rows=4)
    assert read_all(follower) == []
    with database.begin() as slow:
        late = [Event("bob", None, f"late{n}", "view", 1, f"late{n}") for n in range(11)]
        event_rows.insert_events(slow, late, 1)
        post(database, "a")
        assert read_all(follower) == ["a"]
    post(database, "b")
    found = read_all(follower)
    assert sorted(found) == sorted(["b", *(f"late{n}" for n in range(11))])
    assert read_all(follower) == []


def test_missing_ids_are_bounded(database):
    needs_postgresql(database)
    follower = OwnFollower(database, 0, 10_000)
    read_all(follower)
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO events (id, user_bucket, user_id, item_id, event_type, timestamp_us,"
                " event_id, received_at_us) SELECT 2 * n, 1, 'u', 'i', 'view', 1, n, 1"
                " FROM generate_series(1, :n) AS n"
            ),
            {"n": MAX_GAPS + 50},
        )
    assert len(read_all(follower)) == MAX_GAPS + 50
    assert follower.bytes == 200 * MAX_GAPS


def test_writers_at_once_lose_nothing(database):
    follower = OwnFollower(database, 0, 100_000, rows=7)
    found = read_all(follower)
    wanted = [f"{writer}-{n}" for writer in range(4) for n in range(25)]

    def write(writer):
        for n in range(25):
            post(database, f"{writer}-{n}", user=f"u{writer}", at_us=n + 1)

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for one in writers:
        one.start()
    while any(one.is_alive() for one in writers):
        found += read_all(follower)
    found += read_all(follower, 1) + read_all(follower, 2)
    assert sorted(found) == sorted(wanted)
    assert [one for one in found if one.startswith("0-")] == wanted[:25]


@pytest.mark.parametrize("name", ["_newest", "_late"])
def test_no_read_goes_through_the_table(database, name):
    if name == "_late":
        needs_postgresql(database)
    numbers = "SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < 30000"
    with database.begin() as connection:
        connection.execute(
            text(
                f"WITH RECURSIVE numbers AS ({numbers}) INSERT INTO events (user_bucket, user_id,"
                " item_id, event_type, timestamp_us, event_id, received_at_us)"
                " SELECT n % 64, n, 'i', 'view', n, n, 1 FROM numbers"
            )
        )
    with database.engine.connect() as connection:
        connection.execute(text("ANALYZE"))
        connection.commit()
    follower = OwnFollower(database, 0, 100)
    read_all(follower)
    statement = getattr(follower, name)._statement
    values = {"last": 29_990} if name == "_newest" else {"firsts": [3, 9], "lasts": [4, 9]}
    with database.connect() as connection:
        compiled = statement.compile(dialect=connection.dialect)
        explain = "EXPLAIN QUERY PLAN" if database.dialect == "sqlite" else "EXPLAIN"
        given = compiled.construct_params(values)
        if compiled.positional:
            given = tuple(given[key] for key in compiled.positiontup)
        plan = "\n".join(
            str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {compiled}", given)
        )
    assert "Seq Scan on events" not in plan, plan
    assert "SCAN events" not in plan, plan
