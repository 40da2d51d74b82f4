"""Visitors and the catalogue as the dashboard lists them, on both databases."""

import pytest

from recsys.errors import InputError
from recsys.ingest.event_body import check_event
from recsys.ingest.item_body import check_item
from recsys.storage.dashboard import catalogue_views, visitor_views
from recsys.storage.dashboard.catalogue_views import ItemQuery
from recsys.storage.dashboard.visitor_views import Place, recent_visitors, visitors_like
from recsys.storage.engine.short_selects import values_from
from recsys.storage.entities import event_rows, impression_rows, item_rows, user_rows
from recsys.storage.entities.impression_rows import Impression
from recsys.storage.schema.tables import events

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
    with database.begin() as connection:
        post(
            connection, ("u1", "a"), ("s1", "a"), ("u2", "a"), ("u1", "b"), ("u3", "a"), ("s1", "c")
        )
    with database.connect() as connection:
        first = recent_visitors(connection, 2)
        assert names(first.visitors) == ["s1", "u3"]
        assert (first.visitors[0].events, first.visitors[0].last_item_id) == (2, "c")
        second = recent_visitors(connection, 2, first.next_id)
        assert names(second.visitors) == ["u1", "u2"]
        third = recent_visitors(connection, 2, second.next_id)
        assert (third.visitors, third.next_id) == ([], None)  # who stood before stands once
        assert names(recent_visitors(connection, 9, kind="registered").visitors) == [
            "u3",
            "u1",
            "u2",
        ]
        assert names(recent_visitors(connection, 9, kind="anonymous").visitors) == ["s1"]


def test_ids_by_their_beginning(database):
    with database.begin() as connection:
        post(connection, *((one, "a") for one in ("user", "user-1", "user-10", "uzer", "s-user")))
        post(connection, ("u/<b>é", "a"), ("u_x", "a"))
    with database.connect() as connection:
        assert names(visitors_like(connection, "user", 10)) == ["user", "user-1", "user-10"]
        assert names(visitors_like(connection, "user-1", 10)) == ["user-1", "user-10"]
        assert names(visitors_like(connection, "s-", 10)) == ["s-user"]
        assert names(visitors_like(connection, "u/<b>", 10)) == ["u/<b>é"]
        assert visitors_like(connection, "U", 10) == []
        assert visitors_like(connection, "u%", 10) == []  # no pattern
        assert len(visitors_like(connection, "u", 3)) == 3


def test_values_are_looked_up_one_by_one(database):
    with database.begin() as connection:
        post(connection, *((f"u{number % 5}", "a") for number in range(40)))
    with database.connect() as connection:
        assert values_from(connection, events.c.user_id, "", 10) == [f"u{n}" for n in range(5)]
        assert values_from(connection, events.c.user_id, "u2", 2) == ["u2", "u3"]
        assert values_from(connection, events.c.user_id, "v", 2) == []


def test_a_time_line_with_merged_sessions(database):
    with database.begin() as connection:
        post(connection, ("u1", "a"), ("s1", "b"), ("u1", "c"), ("s2", "d"))
        user_rows.merge(connection, "u1", "s:s1", NOW)
    with database.connect() as connection:
        rows = visitor_views.time_line(connection, "u1", None, 10)
        assert [row["item_id"] for row in rows] == ["c", "b", "a"]
        before = Place(rows[0]["timestamp_us"], rows[0]["id"])
        rest = visitor_views.time_line(connection, "u1", None, 1, before)
        assert [row["item_id"] for row in rest] == ["b"]
        assert visitor_views.count_events(connection, "u1", None, 10) == 3
        assert visitor_views.count_events(connection, "u1", None, 1) == 2  # one of each id
        assert visitor_views.count_events(connection, None, "s2", 10) == 1
        assert visitor_views.merged_to(connection, "s:s1") == "u1"


ITEMS = [
    {"item_id": "a", "title": "Tea 100%", "categories": ["drinks"], "price": 2.5},
    {"item_id": "b", "title": "Cup", "categories": ["kitchen"], "price": 1},
    {"item_id": "c", "categories": ["kitchen", "drinks"], "available": False},
    {"item_id": "d_", "title": "teapot", "price": 2.5},
]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("item_id", ["a", "b", "c", "d_"]), ("-item_id", ["d_", "c", "b", "a"]),
     ("price", ["c", "b", "a", "d_"]), ("-price", ["d_", "a", "b", "c"])],
)  # fmt: skip
def test_the_catalogue_sorted_and_paged(database, sort, expected):
    with database.begin() as connection:
        item_rows.put_items(connection, [check_item(one) for one in ITEMS], NOW)
        found, after = [], None
        for _ in range(5):
            page, after = catalogue_views.list_items(connection, ItemQuery(), sort, 1, after)
            found += [item.item_id for item in page]
            if after is None:
                break
    assert found == expected


def test_the_catalogue_narrowed(database):
    def ids(**query):
        return [
            i.item_id
            for i in catalogue_views.list_items(connection, ItemQuery(**query), "title", 9)[0]
        ]

    with database.begin() as connection:
        item_rows.put_items(connection, [check_item(one) for one in ITEMS], NOW)
        assert ids(text="tea") == ["a", "d_"]
        assert ids(text="%") == ["a"] and ids(text="_") == ["d_"]
        assert ids(category="kitchen") == ["c", "b"]  # what has no title comes first
        assert ids(category="kitchen", available=True) == ["b"]
        assert ids(available=False) == ["c"]
        assert catalogue_views.categories(connection, 9) == ["drinks", "kitchen"]
        assert catalogue_views.catalogue_size(connection) == {"items": 4, "hidden": 1}
        with pytest.raises(InputError, match="cursor"):
            catalogue_views.list_items(connection, ItemQuery(), "price", 1, ("x", "a"))


def test_events_of_one_item_by_hour(database):
    hour = 3_600_000_000
    with database.begin() as connection:
        assert catalogue_views.item_events(connection, "a", hour).since_us is None
        rows = [("view", 0), ("view", 1), ("cart", 1), ("view", hour // 1_000)]
        given = [
            check_event({"user_id": "u", "item_id": "a", "event_type": k, "timestamp": t + 10**6}, NOW)
            for k, t in rows
        ]  # fmt: skip
        event_rows.insert_events(connection, given, NOW)
        post(connection, ("u", "b"))
        found = catalogue_views.item_events(connection, "a", hour)
    assert found.looked_at == 5
    assert found.steps == [(0, "cart", 1), (0, "view", 2), (hour, "view", 1)]


def test_exposure_counts_what_was_shown_and_clicked(database):
    def answer(number, items, shown=None):
        return Impression(
            f"r{number}", NOW + number, "u1", None, "v", None, None,
            tuple((item, "lstm", 0.5) for item in items), shown=shown,
        )  # fmt: skip

    with database.begin() as connection:
        assert catalogue_views.exposure(connection).answers == 0
        item_rows.put_items(connection, [check_item(one) for one in ITEMS], NOW)
        answers = [answer(1, "ab"), answer(2, "ab", shown=("a",))]
        impression_rows.insert_impressions(connection, answers)
        click = {"user_id": "u1", "item_id": "a", "recommendation_id": "r2"}
        event_rows.insert_events(connection, [check_event(click, NOW)], NOW)
        impression_rows.attribute_clicks(connection, NOW + 10, 1_000, 10)
        found = catalogue_views.exposure(connection)
        assert (found.answers, found.shown, found.clicked) == (2, {"a": 2, "b": 1}, {"a": 1})
        assert (found.since_us, found.until_us) == (NOW + 1, NOW + 2)
        unseen, after = catalogue_views.never_shown(connection, found.shown, 9)
        assert ([item.item_id for item in unseen], after) == (["d_"], None)  # c is hidden
        assert catalogue_views.never_shown(connection, (), 1)[1] == "a"
