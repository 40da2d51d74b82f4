"""A backup holds all of one moment, and what is restored from it answers as before."""

import json
import threading
import uuid
from contextlib import closing

import pytest
from sqlalchemy import create_engine, func, insert, inspect, make_url, select, text

from recsys.commands import credentials, user_data
from recsys.errors import ConflictError
from recsys.ingest.event_body import check_event
from recsys.ingest.raw_rows import Rejection
from recsys.ingest.row_owners import OwnerColumns
from recsys.ops.backup import (
    make_backup,
    verify_backup,
)
from recsys.ops.backup import restore_backup as restore
from recsys.registry import keep_version
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    account_rows,
    audit_rows,
    erasure_rows,
    event_rows,
    job_rows,
    key_rows,
    lease_rows,
    rejected_rows,
    tombstone_rows,
    user_rows,
    version_rows,
)
from recsys.storage.entities.audit_rows import CLI
from recsys.storage.entities.key_values import database_id
from recsys.storage.entities.model_files import DatabaseFiles
from recsys.storage.entities.passwords import hash_password, is_password
from recsys.storage.entities.stamps import read_stamps
from recsys.storage.schema import downgrades, migrate
from recsys.storage.schema.tables import events, metadata
from tests.integration.backup.conftest import NOW, NOW_US, answers, rows

# SQLite's listing says too little of an index on an expression.
pytestmark = pytest.mark.filterwarnings("ignore:.*expression-based index")
SETTLED = {"stamps", "leases", "job_runs", "installation", "audit_log"}


def test_a_restored_service_answers_as_before(filled, target, tmp_path):
    database, settings = filled
    before = answers(database, settings)
    assert any(before)
    path, made = make_backup(settings, database, tmp_path / "kept.zip", NOW)
    assert path.stat().st_mode & 0o777 == 0o600
    assert verify_backup(path) == made
    elsewhere = settings.model_copy(
        update={"registry": settings.registry.model_copy(update={"path": tmp_path / "other"})}
    )
    restore(elsewhere, target, path, NOW)
    assert answers(target, elsewhere) == before
    for table in metadata.sorted_tables:
        if table.name not in SETTLED:
            assert rows(target, table.name) == rows(database, table.name), table.name
    assert migrate.current(target) == migrate.head()
    # Numbers go on where they were, an erased user stays away, nobody leads and nothing runs.
    with target.begin() as connection:
        top = connection.execute(select(func.max(events.c.id))).scalar_one()
        new = {"user_bucket": 1, "user_id": "n", "item_id": "i", "event_type": "view"}
        new |= {"timestamp_us": 9, "event_id": "n", "received_at_us": 9}
        made_id = connection.execute(insert(events).values(new).returning(events.c.id)).scalar_one()
        assert made_id == top + 1
        assert tombstone_rows.is_erased(connection, ["u:shopper-000009"])
        assert lease_rows.read_lease(connection, lease_rows.SCHEDULER).holder is None
        assert [run.state for run in job_rows.list_runs(connection)] == ["failed"]
        assert min(read_stamps(connection)) > max(rows(database, "stamps")[0])
    assert database_id(target) != database_id(database)


def test_what_is_there_is_kept_unless_told(filled, tmp_path):
    database, settings = filled
    path, _ = make_backup(settings, database, tmp_path / "kept.zip", NOW)
    with pytest.raises(ConflictError, match="already exists"):
        make_backup(settings, database, path, NOW)
    with database.begin() as connection:
        key_rows.create_key(connection, "later", ["read"], 2)
        stamps = read_stamps(connection)
    with pytest.raises(ConflictError, match="--replace"):
        restore(settings, database, path, NOW)
    before = answers(database, settings)
    restore(settings, database, path, NOW, replace=True)
    assert answers(database, settings) == before
    with database.connect() as connection:
        assert [key.name for key in key_rows.list_keys(connection)] == ["shop"]
        assert min(read_stamps(connection)) > max(stamps)
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


@pytest.fixture
def inhabited(database, tmp_path, settings_for):
    """A database with keys, accounts, a session and users, without models; its backup; its keys."""
    settings = settings_for(tmp_path / "models")
    hashed = hash_password("an old password")
    with database.begin() as connection:
        keys = {
            name: key_rows.create_key(connection, name, ["read"], 1) for name in ("kept", "leaked")
        }
        for name in ("root", "left", "changed"):
            account_rows.create_account(connection, name, hashed, "admin", 1)
        sessions = [account_rows.begin_session(connection, "root", None, NOW_US)]
        given = [
            {"user_id": "gone", "session_id": "g", "item_id": "i"},
            {"session_id": "guest", "item_id": "i"},
            {"user_id": "stays", "item_id": "gone"},
        ]
        event_rows.insert_events(connection, [check_event(one, 10**15) for one in given], 1)
        bad = [Rejection(n, "bad", json.dumps({"who": who})) for n, who in enumerate(["gone", "x"])]
        rejected_rows.add_rejections(connection, "f", bad, 1, OwnerColumns("who"))
        tombstone_rows.pseudonym(connection, "x")  # makes the installation's key
    path, _ = make_backup(settings, database, tmp_path / "kept.zip", NOW)
    return settings, path, keys, sessions


def test_a_restore_gives_back_no_right_that_was_taken_away_since(inhabited, database):
    settings, path, keys, sessions = inhabited
    later = NOW_US + 1
    credentials.revoke_key(database, CLI, key_rows.key_id_of(keys["leaked"]), later)
    credentials.set_disabled(database, CLI, "left", True, later)
    credentials.set_password(database, CLI, "changed", "a new password", later)
    credentials.set_role(database, CLI, "changed", "viewer", later)
    with database.begin() as connection:
        user_rows.merge(connection, "gone", "s:guest", later)
        sessions.append(account_rows.begin_session(connection, "root", None, later))
    user_data.erase(settings, database, CLI, "gone", later)
    _, carried = restore(settings, database, path, NOW, replace=True)
    assert (carried.keys_revoked, carried.accounts_kept) == (1, 2)
    assert (carried.users_erased, carried.erasures_unknown) == (2, 0)
    assert [key["name"] for key in carried.active_keys] == ["kept"]
    assert carried.active_admins == ["root"]
    with database.connect() as connection:
        assert key_rows.find_key(connection, keys["leaked"]) is None
        assert key_rows.find_key(connection, keys["kept"]) is not None
        for token in sessions:
            found = account_rows.find_session(connection, token, later, 10**15, 10**15)
            assert found is None
        assert account_rows.password_hash(connection, "left") is None
        assert is_password("a new password", account_rows.password_hash(connection, "changed"))
        assert account_rows.get_account(connection, "changed").role == "viewer"
        left = connection.execute(select(events.c.user_id, events.c.session_id)).all()
        assert [tuple(row) for row in left] == [("stays", None)]
        waiting = [json.loads(row["raw"]) for row in rejected_rows.list_rejected(connection)]
        assert waiting == [{"who": "x"}]
        erased = tombstone_rows.is_erased(connection, ["u:gone", "s:guest", "u:stays"])
        assert erased == {"u:gone", "s:guest"}
        lines = [line.action for line in audit_rows.list_audit(connection)]
    assert lines == [
        *("backup.restore", "user.erase", "account.role"),
        *("account.password", "account.disable", "key.revoke"),
    ]
    _, again = restore(settings, database, path, NOW, replace=True, revoke_keys=True)
    assert again.active_keys == []
    with database.connect() as connection:
        assert key_rows.find_key(connection, keys["kept"]) is None
        lines = [line.action for line in audit_rows.list_audit(connection)]
    assert lines.count("backup.restore") == 2 and lines.count("key.revoke") == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_restore_elsewhere_says_who_may_come_in_and_whom_it_cannot_know(inhabited, target):
    settings, path, _, sessions = inhabited
    migrate.upgrade(target)
    with target.begin() as connection:
        erasure_rows.erase(connection, "gone", 1)  # under a key of another installation
    _, carried = restore(settings, target, path, NOW, replace=True)
    assert (carried.users_erased, carried.erasures_unknown) == (0, 1)
    assert {key["name"] for key in carried.active_keys} == {"kept", "leaked"}
    assert carried.active_admins == ["changed", "left", "root"]
    with target.connect() as connection:
        assert account_rows.find_session(connection, sessions[0], NOW_US, 10**15, 10**15) is None


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_of_two_restores_into_an_empty_database_one_is_refused(inhabited, postgres_server):
    settings, path, *_ = inhabited
    server, name = make_url(postgres_server), f"recsys_{uuid.uuid4().hex[:12]}"
    engine = create_engine(
        server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    outcomes = []

    def run():
        url = server.set(database=name).render_as_string(hide_password=False)
        with closing(Database(url)) as empty:
            barrier.wait(30)
            try:
                outcomes.append(restore(settings, empty, path, NOW)[0].champion)
            except ConflictError as error:
                outcomes.append(error)

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()
    assert sorted(type(one).__name__ for one in outcomes) == ["ConflictError", "NoneType"]


def test_a_backup_of_an_older_schema_goes_forward(empty_url, tmp_path, monkeypatch, settings_for):
    """Made where 0002 was the newest schema, restored here."""
    from sqlalchemy import MetaData

    with closing(Database(empty_url)) as database:
        migrate.upgrade(database, "0002")
        old = MetaData()
        with database.begin() as connection:
            old.reflect(connection)
            old.remove(old.tables["alembic_version"])
            connection.execute(text("UPDATE stamps SET items = 41"))
            connection.execute(
                text("INSERT INTO items (item_id, created_at_us, updated_at_us) VALUES ('a', 1, 2)")
            )
        monkeypatch.setattr("recsys.storage.schema.table_copy.COPIED", old.sorted_tables)
        monkeypatch.setattr("recsys.storage.schema.migrate.head", lambda: "0002")
        settings = settings_for(tmp_path / "models")
        path, _ = make_backup(settings, database, tmp_path / "old.zip", NOW)
    monkeypatch.undo()
    with closing(Database(f"sqlite:///{tmp_path}/new.db")) as target:
        restore(settings, target, path, NOW)
        migrate.check(target)
        with target.connect() as connection:
            assert read_stamps(connection).items == 42
            assert connection.execute(text("SELECT item_id FROM items")).scalar_one() == "a"


@pytest.fixture
def newer(filled, tmp_path):
    """A backup, and its database taken on by a newer release, which has tables of its own by now;
    another's table is beside them.
    """
    database, settings = filled
    path, _ = make_backup(settings, database, tmp_path / "kept.zip", NOW)
    with database.begin() as connection:
        for name, columns in (
            ("of_the_shop", "id INTEGER PRIMARY KEY"),
            ("novelties", "id INTEGER PRIMARY KEY"),
            ("novelty_parts", "id INTEGER PRIMARY KEY, novelty INTEGER REFERENCES novelties"),
        ):
            connection.execute(text(f"CREATE TABLE {name} ({columns})"))
            connection.execute(text(f"INSERT INTO {name} (id) VALUES (1)"))
        connection.execute(text("ALTER TABLE items ADD COLUMN novelty INTEGER"))
        names = [*downgrades.recorded(connection), "novelties", "novelty_parts"]
        connection.execute(
            text("UPDATE installation SET value = :names WHERE name = 'tables'"),
            {"names": json.dumps(names)},
        )
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    return database, settings, path


def tables_of(database):
    with database.connect() as connection:
        return set(inspect(connection).get_table_names())


def test_the_way_back_from_a_newer_release(newer, tiny_shop):
    database, settings, path = newer
    with pytest.raises(ConflictError, match=r"9999.*--replace"):
        restore(settings, database, path, NOW)
    assert "novelties" in tables_of(database)
    stamps = max(rows(database, "stamps")[0])
    restore(settings, database, path, NOW, replace=True)
    migrate.check(database)
    assert {"novelties", "novelty_parts"} & tables_of(database) == set()
    assert len(rows(database, "events")) > tiny_shop.events.num_rows * 0.9
    assert min(rows(database, "stamps")[0][1:]) > stamps
    assert any(answers(database, settings))
    with database.connect() as connection:
        assert connection.execute(text("SELECT id FROM of_the_shop")).scalars().all() == [1]


def test_a_newer_release_that_does_not_name_its_tables_is_left_as_it_is(newer):
    database, settings, path = newer
    with database.begin() as connection:
        connection.execute(text("DELETE FROM installation WHERE name = 'tables'"))
    before = tables_of(database)
    with pytest.raises(ConflictError, match="restore into an empty database"):
        restore(settings, database, path, NOW, replace=True)
    assert tables_of(database) == before


def test_what_something_else_needs_is_not_dropped(newer):
    database, settings, path = newer
    with database.begin() as connection:
        connection.execute(
            text("CREATE TABLE guests (id INTEGER PRIMARY KEY, n INTEGER REFERENCES novelties)")
        )
        connection.execute(text("INSERT INTO guests VALUES (1, 1)"))
    with pytest.raises(ConflictError, match="restore into an empty database"):
        restore(settings, database, path, NOW, replace=True)
    assert {"novelties", "guests"} <= tables_of(database)
    assert migrate.current(database) == "9999"


def test_tables_of_others_in_the_database_are_no_hindrance(filled, tmp_path):
    database, settings = filled
    path, _ = make_backup(settings, database, tmp_path / "kept.zip", NOW)
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE of_the_shop (id INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO of_the_shop VALUES (1)"))
    before = answers(database, settings)
    restore(settings, database, path, NOW, replace=True)
    assert answers(database, settings) == before
    with database.connect() as connection:
        assert connection.execute(text("SELECT id FROM of_the_shop")).scalars().all() == [1]


def test_versions_kept_in_the_database_travel_as_files_and_are_kept_again(filled, target, tmp_path):
    database, settings = filled
    stored = settings.registry.model_copy(update={"store": "database"})
    with database.connect() as connection:
        version = version_rows.champion(connection).version
    keep_version(settings.registry.path, version, DatabaseFiles(database))
    empty = stored.model_copy(update={"path": tmp_path / "empty"})
    path, made = make_backup(
        settings.model_copy(update={"registry": empty}), database, tmp_path / "kept.zip", NOW
    )
    assert version in made.versions
    there = stored.model_copy(update={"path": tmp_path / "there"})
    restore(settings.model_copy(update={"registry": there}), target, path, NOW)
    found = b"".join(DatabaseFiles(target).get(version, "manifest.json"))
    assert found == (settings.registry.path / version / "manifest.json").read_bytes()
