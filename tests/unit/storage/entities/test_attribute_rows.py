"""Users' attributes as rows."""

import json

import pytest

from recsys.errors import ConflictError
from recsys.ingest.user_body import check_user
from recsys.storage.entities import attribute_rows, erasure_rows, user_rows
from recsys.storage.schema.tables import users


def put(connection, mode, now_us, **attributes):
    given = [check_user(user_id, values) for user_id, values in attributes.items()]
    return attribute_rows.put_attributes(connection, given, mode, now_us)


def attributes_of(connection, user_id):
    found = attribute_rows.get_attributes(connection, user_id)
    return found and found.attributes


def test_each_mode_keeps_what_it_says(database):
    with database.begin() as connection:
        done = put(connection, "replace", 1, u={"plan": "free", "age": 31, "seen": None})
        assert (done.new, done.changed, done.unchanged, done.left_out) == (1, 0, 0, ())
        done = put(connection, "fill", 2, u={"plan": "pro", "seen": 2, "city": "Ulm"}, v={"a": [1]})
        assert (done.new, done.changed) == (1, 1)
        assert attributes_of(connection, "u") == {
            "plan": "free", "age": 31, "seen": 2, "city": "Ulm",
        }  # fmt: skip
        put(connection, "update", 3, u={"age": None, "plan": {"name": "pro"}})
        assert attributes_of(connection, "u") == {"plan": {"name": "pro"}, "seen": 2, "city": "Ulm"}
        put(connection, "replace", 4, u={"only": "this"})
        stored = attribute_rows.get_attributes(connection, "u")
        assert stored == attribute_rows.StoredAttributes("u", {"only": "this"}, 1, 4)
        assert put(connection, "replace", 5, u={"only": "this"}).unchanged == 1
        assert attribute_rows.get_attributes(connection, "u") == stored  # nothing was written
        assert attribute_rows.get_attributes(connection, "nobody") is None


def test_rows_of_one_user_come_one_after_another_and_what_is_too_large_is_told(database):
    given = [
        check_user("u", {"a": 1, "b": 1}),
        check_user("u", {"b": 2}),
        check_user("u", {"long": "x" * 8_000}),
        check_user("u", {"longer": "y" * 8_000}),
        check_user("u", {"c": 3}),
    ]
    with database.begin() as connection:
        done = attribute_rows.put_attributes(connection, given, "update", 1)
        ((index, why),) = done.left_out
        assert (done.new, index) == (1, 3)
        assert why == "attributes = '…': expected at most 8,192 bytes"
        assert attributes_of(connection, "u") == {"a": 1, "b": 2, "c": 3, "long": "x" * 8_000}
        assert attribute_rows.changes_nothing(connection, given[4:], "update").unchanged == 1
        assert attribute_rows.changes_nothing(connection, given[:1], "update") is None


def test_pages_go_by_the_bytes_of_the_ids(database):
    names = ["a", "B", "ä", "Z", "_", "b", "10", "9", "😀", "\uffee"]
    with database.begin() as connection:
        given = [check_user(name, {"name": name}) for name in names]
        assert attribute_rows.put_attributes(connection, given, "replace", 1).new == len(names)
    found, after = [], None
    with database.connect() as connection:
        while page := attribute_rows.list_attributes(connection, 3, after):
            found += [one.user_id for one in page]
            after = found[-1]
    assert found == sorted(names, key=str.encode)


def test_a_merged_users_attributes_fill_what_the_user_lacks(database):
    with database.begin() as connection:
        put(
            connection,
            "replace",
            1,
            ann={"plan": "pro", "city": None},
            guest={"plan": "free", "city": "Ulm"},
        )
        assert user_rows.merge(connection, "ann", "u:guest", 2) == ("ann", 0)
        assert attributes_of(connection, "ann") == {"plan": "pro", "city": "Ulm"}
        assert attribute_rows.get_attributes(connection, "guest").user_id == "ann"
        put(connection, "update", 3, guest={"age": 4})  # goes where the id leads
        put(connection, "replace", 3, other={"x": 1})
        user_rows.merge(connection, "empty", "u:other", 4)
        assert attributes_of(connection, "empty") == {"x": 1}
        user_rows.merge(connection, "ann", "s:tab", 5)
        assert [one.user_id for one in attribute_rows.list_attributes(connection, 9)] == [
            "ann", "empty",
        ]  # fmt: skip
        assert attributes_of(connection, "ann") == {"plan": "pro", "city": "Ulm", "age": 4}
        assert attribute_rows.merged_ids(connection, ["ann", "guest", "other"]) == {
            "guest",
            "other",
        }


def test_a_merge_tells_of_attributes_without_room(database):
    with database.begin() as connection:
        put(connection, "replace", 1, ann={"a": "x" * 5_000}, guest={"b": "y" * 5_000, "c": 1})
        assert user_rows.merge(connection, "ann", "u:guest", 2) == ("ann", 1)
        assert attributes_of(connection, "ann") == {"a": "x" * 5_000, "c": 1}


def test_an_erasure_takes_attributes_and_they_do_not_come_back(database):
    with database.begin() as connection:
        put(connection, "replace", 1, ann={"a": 1}, guest={"b": 1}, bob={"c": 1})
        user_rows.merge(connection, "ann", "u:guest", 2)
        assert erasure_rows.erase(connection, "ann", 3)["attributes"] == 1
        done = put(connection, "update", 4, ann={"a": 1}, guest={"b": 1}, bob={"c": 2})
        assert done.left_out == ((0, "the user was erased"), (1, "the user was erased"))
        assert (done.changed, attributes_of(connection, "ann")) == (1, None)
        with pytest.raises(ConflictError, match="erased"):
            user_rows.merge(connection, "bob", "u:ann", 5)


def test_an_erasure_is_made_again_where_a_backup_brought_attributes_back(database):
    with database.begin() as connection:
        put(connection, "replace", 1, ann={"a": 1})
        erasure_rows.erase(connection, "ann", 2)
        row = {"user_id": "ann", "properties": json.dumps({"a": 1})}
        connection.execute(users.insert(), {**row, "created_at_us": 1, "updated_at_us": 1})
        assert erasure_rows.erase_again(connection, 3) == 1
        assert attributes_of(connection, "ann") is None


def test_what_is_deleted_is_returned(database):
    with database.begin() as connection:
        put(connection, "replace", 1, ann={"a": 1})
        assert attribute_rows.delete_attributes(connection, "ann").attributes == {"a": 1}
        assert attribute_rows.delete_attributes(connection, "ann") is None
