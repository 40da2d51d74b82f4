"""A backup holds all of one moment, and what is restored from it answers as before."""

import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from contextlib import closing
from datetime import UTC, datetime

import orjson
import pytest
from sqlalchemy import create_engine, func, insert, inspect, make_url, select, text

from recsys import pipeline
from recsys.commands import credentials, user_data
from recsys.errors import BackupError, ConflictError, ModelFileError, RecsysError
from recsys.events.times import to_us
from recsys.ingest.event_body import check_event
from recsys.ingest.event_files import ReadOptions
from recsys.ingest.raw_rows import Rejection
from recsys.ingest.row_owners import OwnerColumns
from recsys.ops.backup import (
    MANIFEST,
    backup_name,
    make_backup,
    making,
    prune_backups,
    verify_backup,
)
from recsys.ops.backup import restore_backup as restore
from recsys.pipeline import import_events
from recsys.registry import delete_version, keep_version
from recsys.serving.answers import Request
from recsys.serving.recommender import Recommender
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    account_rows,
    audit_rows,
    erasure_rows,
    event_rows,
    item_rows,
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
from recsys.storage.entities.passwords import is_password
from recsys.storage.entities.stamps import read_stamps
from recsys.storage.schema import downgrades, migrate, table_copy
from recsys.storage.schema.tables import events, metadata, tombstones

# SQLite's listing says too little of an index on an expression.
pytestmark = pytest.mark.filterwarnings("ignore:.*expression-based index")

NOW = datetime(2025, 3, 2, 9, 30, tzinfo=UTC)
NOW_US = to_us(NOW)


@pytest.fixture
def filled(database, tmp_path, tiny_shop, publish, settings_for):
    """A service's database and models with something of everything."""
    import pyarrow.parquet as pq

    path = tmp_path / "log.parquet"
    pq.write_table(tiny_shop.events, path)
    import_events(database, path, ReadOptions(), NOW)
    publish(tiny_shop, database, tmp_path / "models")
    with database.begin() as connection:
        item_rows.put_items(connection, tiny_shop.shop.items, 1)
        key_rows.create_key(connection, "shop", ["read"], 1)
        erasure_rows.erase(connection, "shopper-000009", 1)
        job_rows.request_run(connection, "retrain", "cli", 1)
        seen = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
        lease_rows.take_lease(connection, seen, "elsewhere:1:x", 1)
        strange = {"user_bucket": 1, "user_id": "", "session_id": None, "item_id": 'a"b,\n\\.'}
        strange |= {"event_type": "view", "timestamp_us": 5, "event_id": "ß\u2028", "value": 0.1}
        connection.execute(insert(events), {**strange, "received_at_us": 5, "properties": ""})
    return database, settings_for(tmp_path / "models")


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request, tmp_path):
    """An empty database of each kind, whatever the source is."""
    if request.param == "sqlite":
        with closing(Database(f"sqlite:///{tmp_path}/restored/recsys.db")) as made:
            yield made
        return
    server = make_url(request.getfixturevalue("postgres_server"))
    name = f"recsys_{uuid.uuid4().hex[:12]}"
    engine = create_engine(
        server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = server.set(database=name).render_as_string(hide_password=False)
    with closing(Database(url)) as made:
        yield made
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


def rows(database, name):
    table = metadata.tables[name]
    with database.connect() as connection:
        found = connection.execute(select(table).order_by(*table.primary_key.columns))
        return [tuple(row) for row in found]


def answers(database, settings):
    """Top ten with scores for some users and a session."""
    recommender = Recommender(settings, database, time.monotonic)
    asked = [Request(user_id=f"shopper-{number:06d}", k=10) for number in range(1, 8)]
    asked.append(Request(session_id="shopper-000003-0", k=10))
    found = [pipeline.recommend(recommender, one, 10**15) for one in asked]
    return [[(item.item_id, item.score, item.source) for item in one.items] for one in found]


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


def test_it_is_of_one_moment_while_events_come_in(filled, tmp_path):
    database, settings = filled
    stop = threading.Event()

    def post():
        number = 0
        while not stop.is_set():
            with database.begin() as connection:  # an event, and a word about it in another table
                one = {"user_bucket": 2, "user_id": "w", "item_id": "i", "event_type": "view"}
                one |= {"timestamp_us": number, "event_id": f"w{number}", "received_at_us": 1}
                connection.execute(insert(events), one)
                connection.execute(
                    insert(tombstones), {"user_hash": f"w{number}", "erased_at_us": 1}
                )
            number += 1

    writer = threading.Thread(target=post)
    writer.start()
    try:
        for number in range(3):
            time.sleep(0.05)
            with table_copy.snapshot(database) as read:
                told = sum(batch.num_rows for batch in read(tombstones))
                time.sleep(0.05)
                posted = [row for batch in read(events) for row in batch.to_pylist()]
            assert sum(row["user_id"] == "w" for row in posted) == told - 1  # one was erased
            make_backup(settings, database, tmp_path / f"{number}.zip", NOW)
    finally:
        stop.set()
        writer.join()


def test_what_is_there_is_kept_unless_told(filled, tmp_path):
    database, settings = filled
    path, _ = make_backup(settings, database, tmp_path / "kept.zip", NOW)
    with pytest.raises(ConflictError, match="exists already"):
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
    with database.begin() as connection:
        keys = {
            name: key_rows.create_key(connection, name, ["read"], 1) for name in ("kept", "leaked")
        }
        for name in ("root", "left", "changed"):
            account_rows.create_account(connection, name, "an old password", "admin", 1)
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


def test_a_restore_that_fails_changes_nothing(filled, tmp_path):
    database, settings = filled
    path, _ = make_backup(settings, database, tmp_path / "kept.zip", NOW)
    before = {name: rows(database, name) for name in metadata.tables}
    changed = tmp_path / "changed.zip"
    rewritten(path, changed, lambda said: said["rows"].update(api_keys=7))
    with pytest.raises(BackupError, match="api_keys"):
        restore(settings, database, changed, NOW, replace=True)
    assert {name: rows(database, name) for name in metadata.tables} == before


def rewritten(path, to, change, drop=()):
    """The backup with another manifest, its other members as they were."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename in drop:
                continue
            if entry.filename == MANIFEST:
                said = orjson.loads(data)
                change(said)
                data = orjson.dumps(said)
            new.writestr(entry.filename, data)


@pytest.fixture
def kept(tmp_path, tiny_shop, publish, settings_for):
    """A backup, in SQLite: what is refused does not depend on the database."""
    with closing(Database(f"sqlite:///{tmp_path}/x.db")) as database:
        migrate.upgrade(database)
        publish(tiny_shop, database, tmp_path / "models")
        path, _ = make_backup(settings_for(tmp_path / "models"), database, tmp_path / "b.zip", NOW)
    return path


def test_a_damaged_backup_is_refused_by_name(kept, tmp_path):
    data, rng = kept.read_bytes(), random.Random(1)
    broken = tmp_path / "broken.zip"
    whole = verify_backup(kept)
    for number in range(150):
        changed = bytearray(data)
        if number % 3 == 0:
            changed = changed[: rng.randrange(len(changed))]
        else:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        broken.write_bytes(changed)
        try:
            found = verify_backup(broken)
        except BackupError as error:
            found, reason = None, str(error)
        # A bit of the container may say nothing: all that is held is whole then.
        assert found == whole or (found is None and "broken.zip" in reason)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: said.update(format=2), "format 2"),
        (lambda said: said.update(kind="other"), "not a backup of recsys"),
        (lambda said: said.update(revision="9999"), "newer release"),
        (lambda said: said.pop("rows"), "cannot be read"),
        (lambda said: said.update(rows={"events": "x"}), "cannot be read"),
        (lambda said: said["members"].update({"tables/more.parquet": {}}), "cannot be read"),
        (
            lambda said: said["members"].update({"tables/m.parquet": {"bytes": 0, "sha256": ""}}),
            "members",
        ),
        (lambda said: said["members"]["tables/events.parquet"].update(sha256="0"), "events"),
    ],
)
def test_a_foreign_or_newer_backup_is_refused_by_name(kept, tmp_path, change, words):
    to = tmp_path / "foreign.zip"
    rewritten(kept, to, change)
    with pytest.raises(BackupError, match=words) as caught:
        verify_backup(to)
    assert "foreign.zip" in str(caught.value)


@pytest.mark.parametrize("name", ["../../evil", "models/../../evil", "/etc/evil", "tables/../x"])
def test_a_name_that_leaves_the_folder_is_refused(kept, tmp_path, name):
    to = tmp_path / "odd.zip"
    said = {
        "bytes": 1,
        "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
    }
    rewritten(kept, to, lambda manifest: manifest["members"].update({name: said}))
    with zipfile.ZipFile(to, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(BackupError, match="names"):
        verify_backup(to)


def test_other_files_are_no_backups(tmp_path):
    for data in (b"", b"PK\x05\x06" + bytes(18), b"SQLite format 3\0", os.urandom(5_000)):
        path = tmp_path / "x.zip"
        path.write_bytes(data)
        with pytest.raises(BackupError, match=r"x\.zip"):
            verify_backup(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(MANIFEST, b"0" * 10_000_000)
    with pytest.raises(BackupError, match="packed otherwise"):
        verify_backup(path)
    with pytest.raises(BackupError, match="cannot be read"):
        verify_backup(tmp_path / "absent.zip")


def test_damaged_models_stop_a_backup_or_are_left_out(filled, tmp_path, tiny_shop, publish):
    database, settings = filled
    old = tiny_shop.bundle.version
    new = publish(tiny_shop, database, tmp_path / "models", "20250401-000000-abcdef")
    (tmp_path / "models" / old / "vocabulary.json").write_text("{}")
    path, made = make_backup(settings, database, tmp_path / "b.zip", NOW)
    assert list(made.left_out) == [old]
    assert list(made.versions) == [new]
    with closing(Database(f"sqlite:///{tmp_path}/r.db")) as target:
        restore(settings, target, path, NOW)
        with target.connect() as connection:
            assert version_rows.get_version(connection, old).state == "deleted"
    (tmp_path / "models" / new / "vocabulary.json").unlink()
    with pytest.raises(ModelFileError, match="vocabulary"):
        make_backup(settings, database, tmp_path / "c.zip", NOW)
    assert not list(tmp_path.glob("*c.zip*")) + list(tmp_path.glob(".*part"))


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


def test_a_version_that_goes_while_it_is_copied_is_left_out(
    filled, tmp_path, tiny_shop, publish, monkeypatch
):
    database, settings = filled
    newer = publish(tiny_shop, database, tmp_path / "models", "20990101-000000-aaaaaa")
    older = tiny_shop.bundle.version
    checked = making.verified_files

    def then_deleted(root, version, digest):
        found = checked(root, version, digest)
        if version == older:
            delete_version(root, version)
        return found

    monkeypatch.setattr(making, "verified_files", then_deleted)
    _, made = make_backup(settings, database, tmp_path / "x.zip", NOW)
    assert set(made.versions) == {newer} and set(made.left_out) == {older}
    assert verify_backup(tmp_path / "x.zip").champion == newer


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


def test_the_newest_are_kept_and_parts_swept(tmp_path):
    for day in range(1, 6):
        (tmp_path / backup_name(NOW.replace(day=day))).write_text("x")
    (tmp_path / "other.zip").write_text("not ours")
    half = tmp_path / ".recsys-20250301-000000.zip.999999999.abc.part"
    half.write_text("half")
    os.utime(half, (NOW.timestamp() - 7_200,) * 2)
    mine = tmp_path / f".recsys-20250301-000000.zip.{os.getpid()}.abc.part"
    mine.write_text("being written")
    assert prune_backups(tmp_path, 2, NOW) == 3
    names = ["other.zip", "recsys-20250304-093000.zip", "recsys-20250305-093000.zip"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [mine.name, *names]


def test_from_the_command_line_and_by_the_clock(filled, tmp_path, capsys, monkeypatch):
    from recsys.cli import main

    database, _ = filled
    url = database.url.set(drivername=database.dialect).render_as_string(hide_password=False)
    monkeypatch.setenv("RECSYS_DATABASE__URL", url)
    monkeypatch.setenv("RECSYS_REGISTRY__PATH", str(tmp_path / "models"))

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["recsys", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as end:
            main()
        out = capsys.readouterr().out
        return end.value.code or 0, json.loads(out.splitlines()[-1]) if out else None

    folder = tmp_path / "kept"
    folder.mkdir()
    status, made = run("backup", folder)
    assert status == 0
    assert run("backup", "--verify", made["path"]) == (0, {**made, "whole": True})
    assert run("restore", made["path"])[0] == 1
    assert run("restore", made["path"], "--replace")[0] == 0

    with database.begin() as connection:
        run_id = job_rows.request_run(connection, "backup", "cli", 1)
    by_clock = {
        **os.environ,
        "RECSYS_SCHEDULE__BACKUP_PATH": str(folder),
        "RECSYS_SCHEDULE__BACKUP_KEEP": "1",
    }
    launched = [sys.executable, "-m", "jobs", "run", str(run_id)]
    subprocess.run(launched, env=by_clock, cwd=tmp_path, check=True)
    with database.connect() as connection:
        outcome = job_rows.get_run(connection, run_id).outcome
    assert outcome["pruned"] == 1
    assert [path.name for path in folder.iterdir()] == [outcome["file"]]


def test_it_needs_the_present_schema(empty_url, tmp_path, settings_for):
    with closing(Database(empty_url)) as database, pytest.raises(RecsysError, match="db upgrade"):
        make_backup(settings_for(tmp_path), database, tmp_path / "b.zip", NOW)


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
