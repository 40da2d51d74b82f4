"""What backups are made of, and where they are restored."""

import time
import uuid
import zipfile
from contextlib import closing
from datetime import UTC, datetime

import orjson
import pytest
from sqlalchemy import create_engine, insert, make_url, select, text

from recsys.events.times import to_us
from recsys.ingest.event_files import ReadOptions
from recsys.ops.backup import (
    MANIFEST,
    make_backup,
)
from recsys.pipeline import import_events
from recsys.serving import answering
from recsys.serving.answers import Request
from recsys.serving.recommender import Recommender
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    erasure_rows,
    item_rows,
    job_rows,
    key_rows,
    lease_rows,
)
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import events, metadata

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
    found = [answering.recommend(recommender, one, 10**15) for one in asked]
    return [[(item.item_id, item.score, item.source) for item in one.items] for one in found]


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
