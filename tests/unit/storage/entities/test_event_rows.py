"""Events as rows."""

import pytest

from recsys.errors import InputError, StorageUnavailableError
from recsys.events.fields import Event
from recsys.events.identity import Owner
from recsys.ingest.item_body import check_item
from recsys.storage.engine.database import Database
from recsys.storage.entities import event_rows, history_rows, item_rows
from recsys.storage.entities.event_rows import PopularityQuery


def event(item: str, at: int, user: str | None = "u", session: str | None = None, **more) -> Event:
    values = {"event_type": "view", "event_id": None, "value": None}
    values |= {"recommendation_id": None, "properties": None} | more
    return Event(user_id=user, session_id=session, item_id=item, timestamp_us=at, **values)


def store(database, *events):
    with database.begin() as connection:
        return event_rows.insert_events(connection, events, 1)


def items(database, limit=50, **owner):
    with database.connect() as connection:
        found = history_rows.history(connection, Owner(**owner), limit)
        return [row.item_id for row in found.events]


def test_a_retry_is_a_duplicate_and_stores_nothing(database):
    first = store(database, event("a", 1, event_id="x"), event("a", 1, event_id="x"))
    assert [one.accepted for one in first] == [True, False]
    again = store(database, event("a", 1, event_id="x"), event("b", 2, event_id="y"))
    assert [one.accepted for one in again] == [False, True]
    assert items(database, user_id="u") == ["a", "b"]


def test_events_without_an_id_are_all_kept(database):
    stored = store(database, event("a", 1), event("a", 1))
    assert all(one.accepted for one in stored)
    assert stored[0].event_id != stored[1].event_id


def test_more_rows_than_a_statement_takes(database):
    rows = [event(f"i{n}", n) for n in range(4_007)]
    assert all(one.accepted for one in store(database, *rows))
    assert items(database, user_id="u", limit=3) == ["i4004", "i4005", "i4006"]


def test_popular_items_in_a_window(database):
    store(database, event("a", 1), event("a", 2), event("b", 50), event("c", 60), event("c", 61))
    with database.connect() as connection:
        assert event_rows.popular_items(connection, PopularityQuery(50)) == [("b", 1), ("c", 1)]
        assert event_rows.popular_items(connection, PopularityQuery(0, limit=1)) == [("a", 1)]


def owned(item_id, user_id=None, session_id=None):
    return Event(user_id, session_id, item_id, "view", 100, None, None, None, None)


def test_popular_items_count_owners_however_much_each_sends(database):
    store(
        database,
        *[owned("loud", session_id="one") for _ in range(50)],
        *[owned("liked", f"u{n}") for n in range(2)],
        owned("liked", "u1", "with a session too"),
        owned("liked", session_id="u1"),  # a session of the same name is another owner
    )
    with database.connect() as connection:
        assert event_rows.popular_items(connection, PopularityQuery(0)) == [
            ("liked", 3),
            ("loud", 1),
        ]


def test_outside_the_catalogue_users_count_alone(database):
    store(
        database,
        *[owned("any text", session_id=f"s{n}") for n in range(9)],
        owned("tea", session_id="s"),
        *[owned("too new", f"u{n}") for n in range(2)],
        *[owned("too new", session_id=f"s{n}") for n in range(9)],
    )
    hidden = check_item({"item_id": "hidden", "available": False})
    tea = check_item({"item_id": "tea", "title": "Tea"})
    with database.begin() as connection:
        everything = [("any text", 9), ("tea", 1), ("too new", 11)]
        assert (
            sorted(event_rows.popular_items(connection, PopularityQuery(0, known_only=True)))
            == everything
        )
        item_rows.put_items(connection, [hidden], 1)  # hides an item, and is no catalogue
        assert (
            sorted(event_rows.popular_items(connection, PopularityQuery(0, known_only=True)))
            == everything
        )
        item_rows.put_items(connection, [tea], 1)
        found = event_rows.popular_items(connection, PopularityQuery(0, known_only=True))
        assert found == [("too new", 2), ("tea", 1)]
        assert item_rows.outside(connection, ["tea", "hidden", "other"]) == {"other"}


def test_old_events_go_in_batches(database):
    store(database, *[event("a", n) for n in range(10)])
    with database.begin() as connection:
        assert event_rows.delete_before(connection, 8, limit=5) == 5
        assert event_rows.delete_before(connection, 8, limit=5) == 3
        assert event_rows.event_span(connection) == (2, 8, 9)


def test_a_locked_sqlite_file_is_unavailable_and_loses_nothing(tmp_path):
    from recsys.storage.schema import migrate

    url = f"sqlite:///{tmp_path}/x.db"
    holder, other = Database(url), Database(url, busy_timeout_seconds=0.1)
    migrate.upgrade(holder)
    with holder.begin() as connection:
        event_rows.insert_events(connection, [event("a", 1)], 1)
        with pytest.raises(StorageUnavailableError, match="locked"):
            store(other, event("b", 2))
    assert items(other, user_id="u") == ["a"]


def test_a_server_that_takes_no_writes_is_unavailable(database, read_only):
    store(database, event("a", 1))
    with read_only(database):
        with pytest.raises(StorageUnavailableError):
            store(database, event("b", 2))
        assert items(database, user_id="u") == ["a"]
    store(database, event("b", 2))


def test_what_the_database_cannot_hold_is_bad_input(database):
    if database.dialect == "sqlite":
        pytest.skip("SQLite holds NUL")
    with pytest.raises(InputError) as caught:
        store(database, event("hidden\0", 1))
    assert "hidden" not in str(caught.value) and "INSERT" not in str(caught.value)


def test_what_is_posted_is_stored_to_the_last_bit(database):
    given = [
        event(
            "naïve ☃ 🫖", 2**53 + 1, user=None, session="s'\"\\", value=value, event_id=str(value)
        )
        for value in (0.1 + 0.2, 5e-324, 1.7976931348623157e308)
    ]
    given.append(event("p", 1, event_id="%s ?", properties='{"a":"\\"\\\\%","b":[null,1e400]}'))
    store(database, *given)
    with database.connect() as connection:
        found = event_rows.newest_events(connection, Owner(session_id="s'\"\\"), 9)
        found += event_rows.newest_events(connection, Owner("u"), 9)
    assert sorted(map(repr, found)) == sorted(map(repr, given))


def test_an_event_id_counts_once_for_a_user_whatever_the_session(database):
    one, two = (event(s, 1, session=s, event_id="x") for s in ("s1", "s2"))
    other = event("b", 1, user="v", session="s1", event_id="x")
    alone = event("c", 1, user=None, session="s1", event_id="x")
    stored = store(database, one, two, other, alone)
    assert [one.accepted for one in stored] == [True, False, True, True]
    assert items(database, user_id="u") == ["s1"]
    again = store(database, two, event("d", 1, event_id="y"), one)
    assert [one.accepted for one in again] == [False, True, False]
