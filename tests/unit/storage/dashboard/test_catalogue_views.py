"""The catalogue as the dashboard lists it, on both databases."""

import pytest

from recsys.errors import InputError
from recsys.ingest.event_body import check_event
from recsys.ingest.item_body import check_item
from recsys.storage.dashboard import catalogue_views
from recsys.storage.dashboard.catalogue_views import ItemQuery
from recsys.storage.entities import click_rows, event_rows, impression_rows, item_rows
from recsys.storage.entities.impression_rows import Impression

NOW = 1_760_000_000_000_000


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
        click_rows.attribute_clicks(connection, NOW + 10, 1_000, 10)
        found = catalogue_views.exposure(connection)
        assert (found.answers, found.shown, found.clicked) == (2, {"a": 2, "b": 1}, {"a": 1})
        assert (found.since_us, found.until_us) == (NOW + 1, NOW + 2)
        unseen, after = catalogue_views.never_shown(connection, found.shown, 9)
        assert ([item.item_id for item in unseen], after) == (["d_"], None)  # c is hidden
        assert catalogue_views.never_shown(connection, (), 1)[1] == "a"
