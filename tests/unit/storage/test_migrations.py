import pytest
from sqlalchemy import inspect

from recsys.errors import ConfigError, RecsysError
from recsys.storage import migrate, version_rows
from recsys.storage.database import Database, parse_url
from recsys.storage.tables import metadata


def test_up_down_up_and_tables_agree_with_the_migrations(empty_url):
    database = Database(empty_url)
    assert migrate.upgrade(database) == migrate.head()
    assert migrate.differences(database) == []
    with database.connect() as connection:
        assert set(metadata.tables) <= set(inspect(connection).get_table_names())
    migrate.downgrade(database, "base")
    with database.connect() as connection:
        assert not set(metadata.tables) & set(inspect(connection).get_table_names())
    migrate.upgrade(database)
    migrate.upgrade(database)  # repeating changes nothing
    migrate.check(database)
    database.close()


def test_a_database_without_tables_says_what_to_do(empty_url):
    database = Database(empty_url)
    with pytest.raises(RecsysError, match="recsys db upgrade"):
        migrate.check(database)
    with pytest.raises(RecsysError, match="recsys db upgrade"), database.connect() as c:
        version_rows.champion(c)
    database.close()


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "nonsense", "", "oracle://x"])
def test_other_databases_are_refused_without_showing_the_password(url):
    with pytest.raises(ConfigError) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgres://a@h/d", "postgresql://a@h/d"])
def test_postgresql_addresses_take_the_driver_of_this_project(url):
    assert parse_url(url).drivername == "postgresql+psycopg"
