"""Users' attributes through REST, merges and erasures."""

from urllib.parse import quote

import pytest

from tests.integration.test_rest import ODD_IDS

PLAN = {
    "plan": "pro",
    "age": 31,
    "paid": True,
    "left": None,
    "tags": ["a", {"b": [1.5]}],
    "ü": "😀",
}


@pytest.mark.parametrize("user_id", ["ann", *ODD_IDS], ids=range(len(ODD_IDS) + 1))
def test_attributes_are_put_shown_and_deleted(bare, user_id):
    path = f"/users/{quote(user_id, safe='')}/attributes"
    if user_id == "..":  # a path cannot carry it
        path = "/users/attributes?user_id=.."
    bare.call("GET", path, status=404)
    stored = bare.call("PUT", path, json=PLAN, scope="write").get_json()
    assert (stored["user_id"], stored["attributes"]) == (user_id, PLAN)
    assert bare.get(path, scope="read") == stored
    assert bare.get(f"/users/attributes?user_id={quote(user_id, safe='')}") == stored
    replaced = bare.call("PUT", path, json={"plan": "free"}).get_json()
    assert replaced["attributes"] == {"plan": "free"}
    assert replaced["created_at"] == stored["created_at"] <= replaced["updated_at"]
    assert bare.call("DELETE", path, scope="write").get_json() == replaced
    bare.call("DELETE", path, status=404)
    assert "no attributes of user" in bare.call("GET", path, status=404).get_json()["detail"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ([1], "dictionary"),
        ("pro", "dictionary"),
        ({str(number): 1 for number in range(101)}, "at most 100 items"),
        ({"": 1}, "at least 1 character"),
        ({"x" * 257: 1}, "at most 256 characters"),
        ({"a\x00b": 1}, "holds a control character"),
        ({"a": "b\x00"}, "holds a NUL character"),
        ({"a": "x" * 8_200}, "expected at most 8,192 bytes"),
        ({"a": [[[[[[[[1]]]]]]]]}, "expected at most 8 levels"),
    ],
)
def test_what_is_no_object_of_attributes_is_refused(bare, body, detail):
    answer = bare.call("PUT", "/users/ann/attributes", json=body, status=422).get_json()
    assert detail in str(answer["errors"]) and len(str(answer)) < 1_000
    bare.call("GET", "/users/ann/attributes", status=404)


def test_a_key_that_stands_twice_and_no_json_are_refused(bare):
    for body in ('{"plan": "pro", "plan": "free"}', "{", ""):
        status = 422
        bare.call(
            "PUT",
            "/users/ann/attributes",
            data=body,
            content_type="application/json",
            status=status,
        )


def test_reading_takes_the_scope_read_and_writing_write(bare):
    path = "/users/ann/attributes"
    bare.call("PUT", path, json={}, scope="read", status=403)
    bare.call("DELETE", path, scope="read", status=403)
    bare.call("PUT", path, json={}, scope=None, status=401)
    assert bare.call("PUT", path, json={}, scope="write").get_json()["attributes"] == {}
    assert bare.get(path, scope="read")["attributes"] == {}
    assert bare.get("/users/ann")["events"] == 0  # a user of whom that alone is known


def test_a_merged_users_attributes_are_found_under_either_id(bare):
    bare.call("PUT", "/users/ann/attributes", json={"plan": "pro"})
    bare.call("PUT", "/users/guest/attributes", json={"plan": "free", "city": "Ulm"})
    bare.post("/users/ann/merge", {"from": "guest"})
    found = bare.get("/users/guest/attributes")
    assert found == bare.get("/users/ann/attributes")
    assert (found["user_id"], found["attributes"]) == ("ann", {"plan": "pro", "city": "Ulm"})


def test_an_erasure_takes_the_attributes_and_refuses_new_ones(bare):
    bare.call("PUT", "/users/ann/attributes", json={"plan": "pro"})
    bare.post("/users/ann/merge", {"from": "guest"})
    receipt = bare.call("DELETE", "/users/ann").get_json()
    assert receipt["removed"]["attributes"] == 1
    for user_id in ("ann", "guest"):
        path = f"/users/{user_id}/attributes"
        bare.call("GET", path, status=404)
        refused = bare.call("PUT", path, json={"plan": "pro"}, status=409).get_json()
        assert refused["detail"] == "the user was erased"
