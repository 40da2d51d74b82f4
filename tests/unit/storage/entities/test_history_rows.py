"""Histories as a request reads them."""

import random

from sqlalchemy import text

from recsys.events.fields import Event
from recsys.events.identity import Owner, user_bucket
from recsys.storage.entities import event_rows, history_rows
from recsys.storage.schema.tables import aliases


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


def test_history_is_in_order_of_time_then_arrival_and_keeps_repeats(database):
    store(database, event("b", 5), event("a", 3), event("c", 5), event("a", 9), event("a", 9))
    assert items(database, user_id="u") == ["a", "b", "c", "a", "a"]
    assert items(database, user_id="u", limit=2) == ["a", "a"]
    assert items(database, user_id="nobody") == []


def test_a_session_and_a_user_of_the_same_name_are_apart(database):
    store(database, event("a", 1, user="7"), event("b", 2, user=None, session="7"))
    assert items(database, user_id="7") == ["a"]
    assert items(database, session_id="7") == ["b"]
    assert items(database, user_id="7", session_id="7") == ["a", "b"]


def test_ids_merged_into_a_user_are_read_with_it(database):
    store(
        database,
        event("a", 1, user=None, session="s"),
        event("b", 2, user="old"),
        event("c", 3),
    )
    with database.begin() as connection:
        for key in ("s:s", "u:old"):
            connection.execute(
                aliases.insert(), {"alias_key": key, "user_id": "u", "created_at_us": 0}
            )
    assert items(database, user_id="u") == ["a", "b", "c"]


def test_a_user_with_many_merged_ids_is_read_whole(database):
    rng = random.Random(5)
    users = ["u", "other", *(f"old{n}" for n in range(300))]
    sessions = ["mine", "foreign", *(f"s{n}" for n in range(600))]
    posted = [
        event(
            f"i{n}",
            rng.randrange(900),
            rng.choice([None, None, "u", "other", rng.choice(users)]),
            rng.choice(sessions),
            event_id=f"e{n:04}",
            event_type=rng.choice(["view", "purchase"]),
        )
        for n in range(3_000)
    ]
    store(database, *posted)
    merged = {*(f"u:old{n}" for n in range(300)), *(f"s:s{n}" for n in range(600))}
    with database.begin() as connection:
        for key in merged:
            connection.execute(
                aliases.insert(), {"alias_key": key, "user_id": "u", "created_at_us": 0}
            )
    wanted = [
        one
        for _, _, one in sorted((one.timestamp_us, at, one) for at, one in enumerate(posted))
        if one.user_id == "u"
        or f"u:{one.user_id}" in merged
        or (one.user_id is None and (f"s:{one.session_id}" in merged or one.session_id == "mine"))
    ]
    assert 1_500 < len(wanted) < 3_000
    with database.connect() as connection:
        for limit in (1, 70, len(wanted), len(wanted) + 1):
            found = history_rows.history(connection, Owner("u", "mine"), limit)
            assert [one.event_id for one in found.events] == [
                one.event_id for one in wanted[-limit:]
            ]
            assert found.complete == (limit > len(wanted))
        for types in (None, ["purchase"], ["view", "purchase"], []):
            assert history_rows.seen_items(connection, Owner("u", "mine"), types) == {
                one.item_id for one in wanted if types is None or one.event_type in types
            }
        assert history_rows.seen_items(connection, Owner(None, "mine"), None) == {
            one.item_id for one in posted if one.session_id == "mine"
        }


def test_seen_items_by_type(database):
    store(database, event("a", 1), event("b", 2, event_type="purchase"))
    with database.connect() as connection:
        assert history_rows.seen_items(connection, Owner("u"), ["purchase"]) == {"b"}
        assert history_rows.seen_items(connection, Owner("u"), None) == {"a", "b"}
        assert history_rows.seen_items(connection, Owner(), None) == set()


def test_the_history_query_uses_the_index(database):
    store(database, *[event(f"i{n}", n, user=f"u{n % 37}") for n in range(8_000)])
    query = (
        f"SELECT item_id FROM events WHERE user_id = 'u5' AND user_bucket IN ({user_bucket('u5')}) "
        "ORDER BY timestamp_us DESC, id DESC LIMIT 10"
    )
    with database.begin() as connection:
        connection.execute(text("ANALYZE"))
        explain = "EXPLAIN QUERY PLAN " if database.dialect == "sqlite" else "EXPLAIN "
        plan = " ".join(str(row) for row in connection.execute(text(explain + query)))
    index = {"sqlite": "ix_events_user", "postgresql": "_user_id_timestamp_us_id_idx"}
    assert plan.count(index[database.dialect]) == 1
    assert "SCAN events" not in plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan
