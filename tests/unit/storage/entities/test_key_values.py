"""The key-value table, in both databases."""

from recsys.storage.entities import key_values
from recsys.storage.entities.key_values import InstallationKey

KEY, OTHER = InstallationKey.EVENTS_COUNTED_TO, InstallationKey.EVENTS_COUNTED_NEWEST


def test_a_value_is_put_replaced_and_forgotten(database):
    with database.begin() as connection:
        assert key_values.get_text(connection, KEY) is None
        assert key_values.get_number(connection, KEY) == 0
        key_values.put(connection, KEY, 7)
        key_values.put(connection, OTHER, "x")
        key_values.put(connection, KEY, 8)
    with database.connect() as connection:
        assert key_values.get_text(connection, KEY) == "8"
        assert key_values.get_number(connection, KEY) == 8
    with database.begin() as connection:
        key_values.forget(connection, KEY, OTHER)
        assert key_values.get_text(connection, KEY) is None
        assert key_values.get_text(connection, OTHER) is None


def test_a_value_that_is_there_is_kept(database):
    with database.begin() as connection:
        assert key_values.get_or_put(connection, KEY, lambda: "1") == "1"
        assert key_values.get_or_put(connection, KEY, lambda: "2") == "1"
