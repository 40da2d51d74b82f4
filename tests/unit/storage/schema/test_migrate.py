import pytest
from sqlalchemy import inspect, select, text, update

from recsys.errors import ConfigError, InputError, RecsysError
from recsys.events.fields import EVENT_COLUMNS, Event
from recsys.events.identity import user_bucket
from recsys.storage.engine.database import Database, parse_url
from recsys.storage.entities import event_rows, job_rows, version_rows
from recsys.storage.schema import downgrades, migrate
from recsys.storage.schema.tables import accounts, events, job_runs, metadata


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


def as_stored(event):
    """An event as the columns of the oldest schema have it."""
    columns = {name: getattr(event, name) for name in EVENT_COLUMNS}
    bucket = user_bucket(event.user_id or event.session_id)
    return columns | {"user_bucket": bucket, "received_at_us": 1}


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
        for one in posted:
            connection.execute(events.insert(), as_stored(one))
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


def test_ids_are_unique_by_owner_from_0008_on_and_no_event_is_lost_on_the_way_back(empty_url):
    database = Database(empty_url)
    migrate.upgrade(database, "0007")
    same_bucket = [f"u{n}" for n in range(1_000) if user_bucket(f"u{n}") == 7][:4]
    one = as_stored(Event(same_bucket[0], None, "i", "view", 1, "x"))
    with database.begin() as connection:
        connection.execute(events.insert(), one)
        connection.execute(text("DELETE FROM events"))
        connection.execute(events.insert(), one)
        if database.dialect == "sqlite":
            connection.execute(text("CREATE VIEW of_the_shop AS SELECT item_id FROM events"))

    def rows():
        with database.connect() as connection:
            return connection.execute(
                text("SELECT id, user_id, item_id, event_id FROM events ORDER BY id")
            ).all()

    before = rows()
    migrate.upgrade(database)
    assert rows() == before
    with database.begin() as connection:
        given = [Event(user, None, "i", "view", 1, "x") for user in same_bucket]
        given.append(Event(None, same_bucket[0], "i", "view", 1, "x"))
        stored = event_rows.insert_events(connection, given, 2)
        assert [one.accepted for one in stored] == [False, True, True, True, True]
        connection.execute(text("DELETE FROM events WHERE id = (SELECT max(id) FROM events)"))
        event_rows.insert_events(connection, given, 3)
    there = rows()
    assert there[-1].id > there[-2].id + 1  # the number of a row that is gone is not given again
    migrate.downgrade(database, "0007")
    back = rows()
    assert [row[:3] for row in back] == [row[:3] for row in there]
    assert back[0].event_id == "x"
    assert len({row.event_id for row in back}) == len(back)
    migrate.upgrade(database)
    assert rows() == back
    migrate.check(database)
    assert migrate.differences(database) == []
    database.close()


def test_a_downgrade_says_what_it_would_lose_and_loses_no_more(empty_url):
    database = Database(empty_url)
    migrate.upgrade(database)
    posted = [Event(f"u{n}", None, f"i{n}", "view", n, f"e{n}", *[None] * 3) for n in range(70)]
    with database.begin() as connection:
        event_rows.insert_events(connection, posted, 1)
        for name in ("ada", "grace"):
            one = {"name": name, "password_hash": "x", "role": "admin", "created_at_us": 1}
            connection.execute(accounts.insert(), one)
        for job in ("retrain", "prune"):
            job_rows.request_run(connection, job, "cli", 1)
        connection.execute(update(job_runs).where(job_runs.c.job == "prune").values(resources="{}"))

    def rows(table):
        with database.connect() as connection:
            kept = [column for column in table.columns if column.name not in lost_columns]
            return connection.execute(select(*kept).order_by(*table.primary_key)).all()

    lost_columns = {"fencing_token", "resources", "created_at_us"}
    before = {table: rows(table) for table in (events, job_runs)}
    lost = downgrades.losses(database, "0002")
    assert lost.before == migrate.head()
    assert lost.tables["accounts"] == 2
    assert {"leases", "removed_sequences", "model_files", "quality_reports"} <= set(lost.tables)
    assert not {"events", "job_runs", "installation", "stamps"} & set(lost.tables)
    assert lost.columns["job_runs.resources"] == 1
    assert lost.columns["job_runs.fencing_token"] == 0
    assert migrate.current(database) == migrate.head()

    migrate.downgrade(database, "0002")
    with database.connect() as connection:
        assert not set(lost.tables) & set(inspect(connection).get_table_names())
        left = {column["name"] for column in inspect(connection).get_columns("job_runs")}
    assert not {name.split(".")[1] for name in lost.columns if name.startswith("job_runs.")} & left
    migrate.upgrade(database)
    migrate.check(database)
    assert {table: rows(table) for table in (events, job_runs)} == before
    with database.connect() as connection:
        assert not connection.execute(select(accounts)).all()
    database.close()


def test_only_an_older_revision_is_gone_back_to(empty_url):
    database = Database(empty_url)
    for there, asked in ((None, "0001"), ("0003", "0004"), ("0003", "head"), ("0003", "9999")):
        if there:
            migrate.upgrade(database, there)
        with pytest.raises(InputError, match=f"REVISION.*{asked}"):
            downgrades.losses(database, asked)
    assert downgrades.losses(database, "0003").tables == {}
    lost = downgrades.losses(database, "base")
    with database.connect() as connection:
        assert set(lost.tables) == downgrades.present(connection)
    database.close()


def test_the_schema_says_which_tables_are_its_own(empty_url):
    database = Database(empty_url)
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE of_the_shop (id INTEGER PRIMARY KEY)"))
    for revision in ("0002", "head"):
        migrate.upgrade(database, revision)
        with database.connect() as connection:
            assert set(downgrades.recorded(connection)) == downgrades.present(connection)
            assert "of_the_shop" not in downgrades.recorded(connection)
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
