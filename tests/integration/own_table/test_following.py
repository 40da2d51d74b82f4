"""A table of the user's own, followed as it grows."""

import pyarrow as pa
import pytest

from recsys.errors import ConfigError
from recsys.events.fields import EVENT_SCHEMA, Event
from recsys.events.identity import hash_texts
from recsys.serving.live_state import LiveState
from recsys.storage.entities import (
    erasure_rows,
    event_rows,
    tombstone_rows,
    user_rows,
    version_rows,
)
from recsys.storage.events_source import open_events_source
from recsys.storage.external.external_following import LEAST_ROWS, LOOK_BACK_US, ExternalFollower

NOW_US = 2_000_000_000_000_000
NO_ORDER = {"order_column": ""}
BY_TIME = {
    "sqlite": 'CREATE INDEX by_time ON "Click Log" ("Wann")',
    "postgresql": 'CREATE INDEX ON "Click Log" ("Wann")',
    "mysql": "CREATE INDEX by_time ON `Click Log` (`Wann`)",
}


def some(*items, user="ada", at_us=NOW_US - 10**9, step_us=0, **more):
    rows = [
        {
            "user_id": user,
            "item_id": item,
            "event_type": "view",
            "timestamp_us": at_us + place * step_us,
            **more,
        }
        for place, item in enumerate(items)
    ]
    return pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)


def read_all(follower, now_us=NOW_US):
    items = []
    while True:
        batch = follower.read(now_us)
        items += batch.item_ids
        if not batch.more:
            return items


@pytest.fixture
def follow(own, tmp_path):
    """follow(clicks, since_us, capacity, **more): a follower of a table."""
    made = []

    def open_(clicks, since_us=0, capacity=100_000, **more):
        source = open_events_source(clicks.settings(tmp_path / "models", **more), own)
        made.append(follower := source.follow(since_us, capacity))
        made.append(source)
        return follower

    yield open_
    for one in made:
        one.close()


def test_each_row_comes_once_in_its_order(clicks, follow):
    clicks.fill(some("a", "b"))
    follower = follow(clicks)
    assert read_all(follower) == ["a", "b"]
    assert read_all(follower) == []
    clicks.fill(some("c", "d", at_us=NOW_US - 2 * 10**9), first=3)
    assert read_all(follower) == ["c", "d"]
    clicks.fill(some("e"), first=9)
    assert read_all(follower) == ["e"]
    clicks.fill(some("late"), first=6)
    assert read_all(follower) == ["late"]
    assert read_all(follower) == []


def test_rows_come_once_by_their_time(clicks, follow):
    clicks.run(BY_TIME[clicks.kind])
    clicks.fill(some("a", "b", "b"))  # equal rows are two events
    follower = follow(clicks, **NO_ORDER)
    assert sorted(read_all(follower)) == ["a", "b", "b"]
    assert read_all(follower) == []
    clicks.fill(some("b"), first=4)
    clicks.fill(some("later", at_us=NOW_US - 5), first=5)
    clicks.fill(some("ahead", at_us=NOW_US + 2_000_000), first=6)
    assert read_all(follower) == ["b", "later"]
    assert read_all(follower, NOW_US + 1_000_000) == []
    assert read_all(follower, NOW_US + 3_000_000) == ["ahead"]
    clicks.fill(some("late", at_us=NOW_US - 7), first=7)
    assert read_all(follower, NOW_US + 3_000_000) == ["late"]


@pytest.mark.parametrize("order", [{}, NO_ORDER])
def test_reading_begins_after_a_time_and_with_the_newest(clicks, follow, order):
    clicks.run(BY_TIME[clicks.kind])
    clicks.fill(some(*"abcd", at_us=NOW_US - 10**9, step_us=1))
    clicks.fill(some(*"efgh", at_us=NOW_US - 10**6, step_us=1), first=5)
    assert read_all(follow(clicks, NOW_US - 2 * 10**6, **order)) == [*"efgh"]
    assert read_all(follow(clicks, NOW_US - 2 * 10**6, 3, **order))[-3:] == [*"fgh"]
    assert read_all(follow(clicks, 0, 6, **order))[-6:] == [*"cdefgh"]
    assert read_all(follow(clicks, NOW_US, **order)) == []


@pytest.mark.parametrize("order", [{}, NO_ORDER])
def test_an_empty_table_begins_to_be_read(two_clicks, follow, order):
    two_clicks.run(BY_TIME[two_clicks.kind])
    follower = follow(two_clicks, **order)
    assert read_all(follower) == []
    two_clicks.fill(some("a"))
    assert read_all(follower) == ["a"]
    assert read_all(follower) == []


@pytest.mark.parametrize("order", [{}, NO_ORDER])
@pytest.mark.parametrize("ties", [1, 7, 5_000])
def test_reads_in_parts_lose_nothing(two_clicks, own, tmp_path, order, ties):
    two_clicks.run(BY_TIME[two_clicks.kind])
    wanted = [f"i{n}" for n in range(2_600)]
    events = some(*wanted)
    times = pa.array([NOW_US - 10**9 + n // ties for n in range(len(wanted))], pa.int64())
    events = events.set_column(EVENT_SCHEMA.get_field_index("timestamp_us"), "timestamp_us", times)
    two_clicks.fill(events)
    source = open_events_source(two_clicks.settings(tmp_path / "models", **order), own)
    follower = ExternalFollower(source, 0, 10_000, rows=1_200)
    found = read_all(follower)
    if ties < 5_000 or not order:
        assert sorted(found) == sorted(wanted)
    else:  # all at one time, more than are read at once
        assert set(found) <= set(wanted) and len(found) == len(set(found)) >= 1_200
    two_clicks.fill(some("next", at_us=NOW_US - 10), first=3_000)
    assert read_all(follower) == ["next"]
    # What is read once more is bounded, and shrinks where nothing comes.
    assert read_all(follower, NOW_US + LOOK_BACK_US + 1) == []
    assert read_all(follower, NOW_US + LOOK_BACK_US + 2) == []
    assert follower.bytes <= 300 * (LEAST_ROWS + (ties if order else 1))
    follower.close()
    source.close()


def test_rows_are_judged_hidden_and_merged_as_everywhere(two_clicks, own, follow):
    two_clicks.fill(some("a", "", "b\x01", user="ada"))
    two_clicks.fill(some("c", user="gone"), first=4)
    two_clicks.fill(some("d", user="eve", session_id="s1"), first=5)
    two_clicks.fill(some("e", user=None, session_id="s2"), first=6)
    with own.begin() as connection:
        erasure_rows.erase(connection, "gone", 1)
        user_rows.merge(connection, "ada", "s:s2", 1)
    batch = follow(two_clicks).read(NOW_US)
    assert batch.item_ids == ["a", "d", "e"]
    assert batch.owner_hashes.tolist() == hash_texts(["u:ada", "u:eve", "u:ada"]).tolist()
    assert batch.session_hashes.tolist() == [0, *hash_texts(["s1", "s2"]).tolist()]
    assert batch.of_users.all()


def test_an_event_in_both_tables_counts_once(two_clicks, own, follow):
    two_clicks.fill(some("a", "b"))  # e1, e2
    more = {"event_id_column": "eid", "accept_posts": True}
    follower = follow(two_clicks, **more)

    def post(item, event_id, user="ada"):
        with own.begin() as connection:
            event = Event(user, None, item, "view", NOW_US - 5, event_id)
            event_rows.insert_events(connection, [event], 1)

    post("a", "e1")
    post("p", "p1")
    assert read_all(follower) == ["a", "b", "p"]
    post("b", "e2")
    post("b", "e2", user="eve")  # another owner's event of that id
    assert read_all(follower) == ["b"]
    two_clicks.fill(some("p", event_id="p1"), first=3)
    two_clicks.fill(some("q", event_id="q1"), first=4)
    assert read_all(follower) == ["q"]


def test_a_live_state_follows_it_and_who_is_erased_or_allowed(
    two_clicks, own, tmp_path, version_row
):
    with own.begin() as connection:
        version_rows.add_version(connection, version_row("v1", data_end_us=1))
        version_rows.deploy(connection, "v1", 1, "test", "")
    two_clicks.fill(some("a", "b"))
    two_clicks.fill(some("c", user="eve"), first=3)
    settings = two_clicks.settings(tmp_path / "models")
    source = open_events_source(settings, own)
    live = LiveState(settings, own, source, lambda: 0.0)
    assert live.follow_once(NOW_US) == 3
    two_clicks.fill(some("d", user="eve"), first=4)
    assert live.follow_once(NOW_US) == 1
    with own.begin() as connection:
        erasure_rows.erase(connection, "ada", 1)
    assert live.follow_once(NOW_US) == 2
    assert live.log.item_ids == ["c", "d"]
    with own.begin() as connection:
        tombstone_rows.allow_again(connection, "ada")
    assert live.follow_once(NOW_US) == 4
    assert live.log.item_ids == ["a", "b", "c", "d"]
    live.stop()
    source.close()


def test_a_table_that_cannot_be_followed_says_why(two_clicks, follow):
    with pytest.raises(ConfigError, match=r"events.timestamp_column = 'Wann'.*without an index"):
        follow(two_clicks, **NO_ORDER)
