"""Items as rows."""

import json
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.ingest.item_body import check_item
from recsys.ingest.item_files import ItemOptions, read_items
from recsys.storage.entities import item_rows


def test_items_are_stored_whole_and_changed_in_part(database):
    tea = check_item({"item_id": "a/b", "title": "Tea", "categories": ["drinks", "hot"]})
    with database.begin() as connection:
        assert item_rows.put_items(connection, [tea], 1) == 1
        assert item_rows.put_items(connection, [tea], 2) == 0
        assert item_rows.items_in(connection, ["hot"]) == {"a/b"}
        change = check_item({"item_id": "a/b", "available": False, "categories": ["cold"]})
        assert item_rows.put_items(connection, [change], 3) == 0
    with database.connect() as connection:
        stored = item_rows.get_items(connection, ["a/b", "x"])["a/b"]
        assert (stored.title, stored.categories, stored.available) == ("Tea", ["cold"], False)
        assert item_rows.unavailable_items(connection) == {"a/b"}
        assert item_rows.items_in(connection, ["hot"]) == set()
        assert item_rows.latest_items(connection, 5) == []
    with database.begin() as connection:
        assert item_rows.delete_item(connection, "a/b")
        assert item_rows.items_in(connection, ["cold"]) == set()
        assert not item_rows.delete_item(connection, "a/b")
        assert item_rows.get_items(connection, ["a/b"]) == {}
        assert item_rows.list_items(connection, None, None, 5) == []
        assert list(item_rows.field_values(connection, "title")) == []
        assert item_rows.unavailable_items(connection) == {
            "a/b"
        }  # in no answer as long as it is deleted
        assert item_rows.differing(connection, [check_item({"item_id": "a/b"})])
        assert item_rows.put_items(connection, [check_item({"item_id": "a/b", "price": 2})], 9) == 1
        again = item_rows.get_items(connection, ["a/b"])["a/b"]
        assert (again.title, again.price, again.available, again.created_at_us) == (
            None,
            2.0,
            True,
            9,
        )


@pytest.mark.parametrize("query", ["50%", "a_b", "\\", "'; DROP TABLE items; --"])
def test_search_takes_its_text_literally(database, query):
    rows = [check_item({"item_id": str(n), "title": t}) for n, t in enumerate([query, "other"])]
    with database.begin() as connection:
        item_rows.put_items(connection, rows, 1)
        assert [i.item_id for i in item_rows.list_items(connection, query, None, 10)] == ["0"]


NEW = {
    "title": None,
    "categories": [],
    "price": None,
    "image": None,
    "available": True,
    "properties": {},
}
parts = st.fixed_dictionaries(
    {"item_id": st.sampled_from("ab")},
    optional={
        "title": st.none() | st.sampled_from(["Tea", "Cup"]),
        "categories": st.none() | st.lists(st.sampled_from("xyz"), max_size=2, unique=True),
        "price": st.none() | st.sampled_from([0.0, 2.5]),
        "image": st.none() | st.just("i.png"),
        "available": st.none() | st.booleans(),
        "hue": st.none() | st.sampled_from(["red", "blue"]),
        "size": st.none() | st.integers(1, 3),
    },
)


def added(stored, part):
    """One part over what is stored, field by field."""
    found = {**stored, "properties": dict(stored["properties"])}
    for name, value in part.items():
        if name in ("hue", "size"):
            found["properties"].pop(name, None)
            if value is not None:
                found["properties"][name] = value
        elif name == "available":
            found[name] = stored[name] if value is None else value
        elif name != "item_id":
            found[name] = NEW[name] if value is None else value
    return found


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(parts, min_size=1, max_size=4)), min_size=1, max_size=4
    )
)
def test_what_is_not_given_stays(database, tmp_path, batches):
    run = uuid.uuid4().hex
    wanted = {}
    for from_file, batch in batches:
        own = [{**part, "item_id": f"{run}{part['item_id']}"} for part in batch]
        for part in own:
            wanted[part["item_id"]] = added(wanted.get(part["item_id"], NEW), part)
        if from_file:
            path = tmp_path / "items.jsonl"
            path.write_text("".join(json.dumps(part) + "\n" for part in own))
            (chunk,) = read_items(path, ItemOptions())
            given = chunk.items
            assert chunk.read == len(given) == len(own)
        else:
            bodies = [
                {
                    **{name: value for name, value in part.items() if name not in ("hue", "size")},
                    "properties": {name: part[name] for name in ("hue", "size") if name in part},
                }
                for part in own
            ]
            given = [check_item(body) for body in bodies]
        with database.begin() as connection:
            item_rows.put_items(connection, given, 1)
            found = item_rows.get_items(connection, sorted(wanted))
            assert not item_rows.differing(connection, given[-1:])
            for category in "xyz":
                within = {i for i, item in wanted.items() if category in item["categories"]}
                assert item_rows.items_in(connection, [category]) & set(wanted) == within
        assert {
            item_id: {name: getattr(item, name) for name in NEW} for item_id, item in found.items()
        } == wanted
