"""Items as rows."""

import pytest

from recsys.ingest.item_body import check_item
from recsys.storage.entities import (
    item_rows,
)


def test_items_are_stored_whole_and_changed_in_part(database):
    tea = check_item({"item_id": "a/b", "title": "Tea", "categories": ["drinks", "hot"]})
    with database.begin() as connection:
        assert item_rows.put_items(connection, [tea], 1) == 1
        assert item_rows.put_items(connection, [tea], 2) == 0
        assert item_rows.items_in(connection, ["hot"]) == {"a/b"}
        changes = {"available": False, "categories": ("cold",)}
        assert item_rows.update_item(connection, "a/b", changes, 3)
        assert not item_rows.update_item(connection, "nothing", {"available": True}, 3)
    with database.connect() as connection:
        stored = item_rows.get_items(connection, ["a/b", "x"])["a/b"]
        assert (stored.title, stored.categories, stored.available) == ("Tea", ["cold"], False)
        assert item_rows.unavailable_items(connection) == {"a/b"}
        assert item_rows.items_in(connection, ["hot"]) == set()
        assert item_rows.latest_items(connection, 5) == []
    with database.begin() as connection:
        assert item_rows.delete_item(connection, "a/b")
        assert item_rows.items_in(connection, ["cold"]) == set()


@pytest.mark.parametrize("query", ["50%", "a_b", "\\", "'; DROP TABLE items; --"])
def test_search_takes_its_text_literally(database, query):
    rows = [check_item({"item_id": str(n), "title": t}) for n, t in enumerate([query, "other"])]
    with database.begin() as connection:
        item_rows.put_items(connection, rows, 1)
        assert [i.item_id for i in item_rows.list_items(connection, query, None, 10)] == ["0"]
