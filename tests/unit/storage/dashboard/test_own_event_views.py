"""Visitors and their events as the dashboard lists them, on both databases."""

from recsys.events.identity import Owner
from recsys.ingest.event_body import check_event
from recsys.storage.dashboard import visitor_views
from recsys.storage.dashboard.own_event_views import OwnEventViews
from recsys.storage.dashboard.visitor_views import EventPosition, VisitorQuery
from recsys.storage.entities import event_rows, user_rows

NOW = 1_760_000_000_000_000


def post(connection, *rows):
    given = []
    for at, (owner, item_id) in enumerate(rows):
        kind = "user_id" if owner.startswith("u") else "session_id"
        given.append(check_event({kind: owner, "item_id": item_id, "timestamp": 10**12 + at}, NOW))
    event_rows.insert_events(connection, given, NOW)


def names(page):
    return [one.name for one in page]


def test_recent_visitors_page_by_page(database):
    views = OwnEventViews(database)
    with database.begin() as connection:
        post(
            connection, ("u1", "a"), ("s1", "a"), ("u2", "a"), ("u1", "b"), ("u3", "a"), ("s1", "c")
        )
    with database.connect() as connection:
        first = views.recent_visitors(connection, VisitorQuery(2, NOW))
        assert names(first.visitors) == ["s1", "u3"]
        assert (first.visitors[0].events, first.visitors[0].last_item_id) == (2, "c")
        second = views.recent_visitors(connection, VisitorQuery(2, NOW, first.next_id))
        assert names(second.visitors) == ["u1", "u2"]
        third = views.recent_visitors(connection, VisitorQuery(2, NOW, second.next_id))
        assert (third.visitors, third.next_id) == ([], None)  # who stood before stands once
        assert names(
            views.recent_visitors(connection, VisitorQuery(9, NOW, kind="registered")).visitors
        ) == [
            "u3",
            "u1",
            "u2",
        ]
        assert names(
            views.recent_visitors(connection, VisitorQuery(9, NOW, kind="anonymous")).visitors
        ) == ["s1"]


def test_ids_by_their_beginning(database):
    views = OwnEventViews(database)
    with database.begin() as connection:
        post(connection, *((one, "a") for one in ("user", "user-1", "user-10", "uzer", "s-user")))
        post(connection, ("u/<b>é", "a"), ("u_x", "a"))
    with database.connect() as connection:
        assert names(views.visitors_like(connection, "user", 10, now_us=NOW)) == [
            "user",
            "user-1",
            "user-10",
        ]
        assert names(views.visitors_like(connection, "user-1", 10, now_us=NOW)) == [
            "user-1",
            "user-10",
        ]
        assert names(views.visitors_like(connection, "s-", 10, now_us=NOW)) == ["s-user"]
        assert names(views.visitors_like(connection, "u/<b>", 10, now_us=NOW)) == ["u/<b>é"]
        assert views.visitors_like(connection, "U", 10, now_us=NOW) == []
        assert views.visitors_like(connection, "u%", 10, now_us=NOW) == []  # no pattern
        assert len(views.visitors_like(connection, "u", 3, now_us=NOW)) == 3


def test_a_time_line_with_merged_sessions(database):
    views = OwnEventViews(database)
    with database.begin() as connection:
        post(connection, ("u1", "a"), ("s1", "b"), ("u1", "c"), ("s2", "d"))
        user_rows.merge(connection, "u1", "s:s1", NOW)
    with database.connect() as connection:
        rows = views.time_line(connection, Owner("u1"), 10)
        assert [row.item_id for row in rows] == ["c", "b", "a"]
        before = EventPosition(rows[0].timestamp_us, rows[0].id)
        rest = views.time_line(connection, Owner("u1"), 1, before)
        assert [row.item_id for row in rest] == ["b"]
        assert views.count_events(connection, Owner("u1"), 10) == 3
        assert views.count_events(connection, Owner("u1"), 1) == 2  # one of each id
        assert views.count_events(connection, Owner(session_id="s2"), 10) == 1
        assert visitor_views.merged_to(connection, "s:s1") == "u1"


def test_events_of_one_item_by_hour(database):
    views, hour = OwnEventViews(database), 3_600_000_000
    start = 10**12 // (hour // 1_000) * (hour // 1_000)  # ms: the beginning of an hour
    with database.begin() as connection:
        assert views.item_events(connection, "a", hour, now_us=NOW).since_us is None
        rows = [("view", 0), ("view", 1), ("cart", 1), ("view", hour // 1_000)]
        given = [
            check_event({"user_id": "u", "item_id": "a", "event_type": k, "timestamp": t + start}, NOW)
            for k, t in rows
        ]  # fmt: skip
        event_rows.insert_events(connection, given, NOW)
        post(connection, ("u", "b"))
        found = views.item_events(connection, "a", hour, now_us=NOW)
    assert found.looked_at == 5
    first = start * 1_000
    assert found.steps == [
        (first, "cart", 1),
        (first, "view", 2),
        (first + hour, "view", 1),
    ]
