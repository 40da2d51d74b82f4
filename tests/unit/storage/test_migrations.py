import pytest
from sqlalchemy import inspect, text

from recsys.data.event_check import Event
from recsys.errors import ConfigError, RecsysError
from recsys.storage import event_rows, migrate, version_rows
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


def test_partitioning_keeps_every_row_and_goes_back(empty_url):
    database = Database(empty_url)
    migrate.upgrade(database, "0003")
    posted = [
        Event(
            f"u{n % 90}" if n % 3 else None, f"s{n % 40}", f"i{n}", "view", n, f"e{n}", *[None] * 3
        )
        for n in range(500)
    ]
    with database.begin() as connection:
        event_rows.insert_events(connection, posted, 1)
        connection.execute(text("DELETE FROM events WHERE id > 490"))

    def rows():
        with database.connect() as connection:
            return connection.execute(text("SELECT * FROM events ORDER BY id")).all()

    before = rows()
    assert len(before) == 490
    for revision in ("0005", "0003", "0005"):
        (migrate.upgrade if revision == "0005" else migrate.downgrade)(database, revision)
        assert rows() == before
    migrate.upgrade(database)
    with database.begin() as connection:
        again = event_rows.insert_events(connection, [posted[0], posted[499]], 2)
        assert [one.accepted for one in again] == [False, True]
    assert rows()[-1].id > (500 if database.dialect == "postgresql" else 490)
    if database.dialect == "postgresql":
        of_user = text("EXPLAIN SELECT * FROM events WHERE user_id = 'u1' AND user_bucket = 5")
        with database.connect() as connection:
            parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass"
            assert connection.execute(text(parts)).scalar() == 8
            plan = "\n".join(connection.execute(of_user).scalars())
        assert "events_p0" in plan
        assert "events_p1" not in plan
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
