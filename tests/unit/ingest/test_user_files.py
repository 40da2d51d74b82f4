"""Files of users' attributes."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import InputError
from recsys.ingest.user_body import UserAttributes
from recsys.ingest.user_files import UserMap, UserOptions, read_users


def read(path, map_=""):
    (chunk,) = read_users(path, UserOptions(UserMap.parse(map_)))
    assert chunk.read == len(chunk.users) + len(chunk.rejections)
    return chunk


def given(chunk):
    return [(one.user_id, json.loads(one.attributes)) for one in chunk.users]


def test_every_column_but_the_users_is_an_attribute(tmp_path):
    path = tmp_path / "users.csv.gz"
    path.write_bytes(gzip.compress(b"no,plan,city\n7.0, pro ,Ulm\n,free,\n8,NULL,\n"))
    chunk = read(path, "user=no")
    assert given(chunk) == [
        ("7", {"plan": "pro", "city": "Ulm"}),
        ("8", {"plan": None, "city": None}),
    ]
    assert chunk.positions == [0, 2]
    (rejection,) = chunk.rejections
    assert (rejection.position, rejection.reason[:15]) == (1, "user_id = None:")


def test_an_object_of_attributes_is_one_beside_columns(tmp_path):
    path = tmp_path / "users.jsonl"
    rows = [
        {"UserId": "ann", "Labels": {"plan": "pro", "tags": ["a"]}, "age": 31},
        {"UserId": "bob", "Labels": None},
        {"UserId": "eve", "Labels": [1]},
        {"UserId": "a\x00b", "Labels": {}},
        {"UserId": "max", "Labels": {"x" * 300: 1}},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    chunk = read(path, "user=UserId,attributes=Labels")
    assert given(chunk) == [
        ("ann", {"plan": "pro", "tags": ["a"], "age": 31}),
        ("bob", {}),
    ]
    kinds = [one.reason.partition(" ")[0] for one in chunk.rejections]
    assert kinds == ["Labels", "user_id", "attributes"]


def test_parquet_keeps_the_kinds_of_values(tmp_path):
    path = tmp_path / "users.parquet"
    columns = {
        "user_id": [1, 2],
        "age": [31, None],
        "paid": [True, False],
        "since": pa.array([0, 86_400], pa.timestamp("s", "UTC")),
        "attributes": ['{"plan": "pro"}', None],
    }
    pq.write_table(pa.table(columns), path)
    first, second = given(read(path))
    assert first[0] == "1" and second[1]["age"] is None
    assert first[1]["age"] == 31 and first[1]["paid"] is True and first[1]["plan"] == "pro"
    assert first[1]["since"].startswith("1970-01-01T00:00:00")


def test_what_cannot_be_read_is_said_at_once(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text("no,plan\n1,pro\n")
    with pytest.raises(
        InputError, match="--map = None: say which column is the user; the file has"
    ):
        read_users(path, UserOptions())
    with pytest.raises(InputError, match="--map"):
        read_users(path, UserOptions(UserMap(user="id")))
    with pytest.raises(InputError, match="usr"):
        UserMap.parse("usr=no")


def test_an_empty_object_is_no_value_to_lose(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text("user_id\nann\n")
    assert read(path).users == [UserAttributes("ann", "{}")]
