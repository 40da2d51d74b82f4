"""Item metadata copied from the user's own database by the refresh job."""

from datetime import UTC, datetime

import pytest

from recsys.commands.catalogue import set_availability
from recsys.errors import ConfigError
from recsys.ops import upkeep
from recsys.storage.entities import item_rows
from recsys.storage.entities.audit_rows import CLI
from recsys.storage.entities.stamps import read_stamps

NOW = datetime(2025, 3, 2, tzinfo=UTC)
QUERY = (
    "SELECT no AS item_id, name AS title, kinds AS categories, price, stock > 0 AS available, hue"
)


def test_items_are_copied_and_only_what_changed_is_written_again(clicks, own, tmp_path):
    clicks.run(
        "CREATE TABLE products (no INTEGER, name VARCHAR(40), kinds VARCHAR(40), "
        "price DECIMAL(8, 2), stock INTEGER, hue VARCHAR(10))",
        "INSERT INTO products VALUES (1, 'Tea', 'drinks|hot', 3.5, 4, 'green'), "
        "(2, 'Cup', 'ware', 7, 0, NULL), (3, 'Odd', 'ware', -1, 1, NULL)",
    )
    settings = clicks.settings(tmp_path / "models", items_query=f"{QUERY} FROM products")
    lines = []
    assert upkeep.copy_items(settings, own, NOW, lines.append) == 2
    assert len(lines) == 1 and lines[0].startswith("1 of 3 items left out; the first: price = -1")
    with own.connect() as connection:
        found = item_rows.get_items(connection, ["1", "2", "3"])
        before = read_stamps(connection).items
    assert (found["1"].title, found["1"].categories, found["1"].price) == (
        "Tea",
        ["drinks", "hot"],
        3.5,
    )
    assert (found["1"].available, found["2"].available) == (True, False)
    assert found["1"].properties == {"hue": "green"} and "3" not in found
    assert upkeep.copy_items(settings, own, NOW, lines.append) == 0
    with own.connect() as connection:
        assert read_stamps(connection).items == before  # nothing kept in memory is read anew
    clicks.run("UPDATE products SET stock = 9 WHERE no = 2")
    assert upkeep.copy_items(settings, own, NOW, lines.append) == 1


def test_a_query_that_says_nothing_of_availability_leaves_the_switch(clicks, own, tmp_path):
    clicks.run(
        "CREATE TABLE products (no INTEGER, name VARCHAR(40))",
        "INSERT INTO products VALUES (1, 'Tea')",
    )
    query = "SELECT no AS item_id, name AS title FROM products"
    settings = clicks.settings(tmp_path / "models", items_query=query)
    assert upkeep.copy_items(settings, own, NOW, print) == 1
    set_availability(own, CLI, "1", False, 1)
    assert upkeep.copy_items(settings, own, NOW, print) == 0
    clicks.run("UPDATE products SET name = 'Cup'")
    assert upkeep.copy_items(settings, own, NOW, print) == 1
    with own.connect() as connection:
        item = item_rows.get_items(connection, ["1"])["1"]
    assert (item.title, item.available) == ("Cup", False)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT 1 AS sku", r"events\.items_query = .*expected a column named item_id"),
        ("DELETE FROM products", r"events\.items_query = .*expected a SELECT"),
        ("SELECT x AS item_id FROM nowhere", r"events\.items_query = .*the database refuses it"),
    ],
)
def test_a_wrong_query_is_named(two_clicks, own, tmp_path, query, expected):
    settings = two_clicks.settings(tmp_path / "models", items_query=query)
    with pytest.raises(ConfigError, match=expected):
        upkeep.copy_items(settings, own, NOW, print)
