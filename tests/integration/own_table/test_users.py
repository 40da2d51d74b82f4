"""Users' attributes copied from the user's own database by the refresh job."""

from datetime import UTC, datetime

import pytest

from recsys.errors import ConfigError
from recsys.ops import upkeep
from recsys.storage.entities import attribute_rows, erasure_rows, user_rows

NOW = datetime(2025, 3, 2, tzinfo=UTC)
QUERY = "SELECT no AS user_id, plan, age, score FROM customers"


@pytest.fixture
def customers(clicks):
    clicks.run(
        "CREATE TABLE customers (no VARCHAR(40), plan VARCHAR(40), age INTEGER, "
        "score DECIMAL(8, 2))",
        "INSERT INTO customers VALUES ('1', 'pro', 31, 2.5), ('2', 'free', NULL, NULL), "
        "('', 'free', 1, 1), ('4', 'free', 4, 4), ('5', 'pro', 5, 5)",
    )
    return clicks


def stored(database):
    with database.connect() as connection:
        return {
            one.user_id: one.attributes for one in attribute_rows.list_attributes(connection, 10)
        }


def test_attributes_are_copied_and_only_what_changed_is_written_again(customers, own, tmp_path):
    settings = customers.settings(tmp_path / "models", users_query=QUERY)
    with own.begin() as connection:
        erasure_rows.erase(connection, "4", 1)
        user_rows.merge(connection, "1", "u:5", 1)
    lines = []
    assert upkeep.copy_users(settings, own, NOW, lines.append) == 2
    assert len(lines) == 1 and lines[0].startswith("1 of 5 users left out; the first: user_id = ")
    assert stored(own) == {
        "1": {"plan": "pro", "age": 31, "score": 2.5},
        "2": {"plan": "free"},
    }
    assert upkeep.copy_users(settings, own, NOW, lines.append) == 0  # nor does 5 take turns with 1
    customers.run("UPDATE customers SET plan = NULL, age = 32 WHERE no = '1'")
    assert upkeep.copy_users(settings, own, NOW, lines.append) == 1
    assert stored(own)["1"] == {"age": 32, "score": 2.5}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT 1 AS no", r"events\.users_query = .*expected a column named user_id"),
        ("DELETE FROM customers", r"events\.users_query = .*expected a SELECT"),
    ],
)
def test_a_wrong_query_is_named(two_clicks, own, tmp_path, query, expected):
    settings = two_clicks.settings(tmp_path / "models", users_query=query)
    with pytest.raises(ConfigError, match=expected):
        upkeep.copy_users(settings, own, NOW, print)
