"""A database of the schema before goes forward with all that is in it, while it is served."""

import itertools
import json
import shutil
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
import pytest
from sqlalchemy import MetaData, delete, insert, select, text
from werkzeug.serving import make_server

from recsys.errors import ModelFileError, RecsysError
from recsys.events.sequences import Histories
from recsys.models.batch_ranking import scores
from recsys.registry import FORMAT, read_version
from recsys.serving import answering
from recsys.serving.answers import Request
from recsys.serving.recommender import Recommender
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    erasure_rows,
    item_rows,
    job_rows,
    key_rows,
    user_rows,
    version_rows,
)
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import events

# SQLite's listing says too little of an index on an expression.
pytestmark = pytest.mark.filterwarnings("ignore:.*expression-based index")

GOLDEN = Path(__file__).parents[1] / "golden"
BEFORE = "0003"  # the schema of the release before
READ = "0017"  # the first with all that an answer reads
NOW_US = int(datetime(2025, 3, 1, tzinfo=UTC).timestamp() * 1e6)


def old_tables(connection):
    """The tables as they are now, by reflection."""
    found = MetaData()
    found.reflect(connection)
    found.remove(found.tables["alembic_version"])
    return found


def rows_of(connection, tables):
    """All rows of the tables' own columns, by table."""
    return {
        table.name: [
            dict(row._mapping)
            for row in connection.execute(select(table).order_by(*table.primary_key.columns))
        ]
        for table in tables.sorted_tables
    }


def fill(database, tiny_shop, publish, folder):
    publish(tiny_shop, database, folder)
    with database.begin() as connection:
        item_rows.put_items(connection, tiny_shop.shop.items, 1)
        key_rows.create_key(connection, "shop", ["read"], 1)
        for number in range(500):
            one = {"user_bucket": number % 64, "user_id": f"u{number % 9}", "event_id": f"{number}"}
            one |= {"item_id": f"P{number % 50:04d}", "event_type": "view"}
            one |= {"timestamp_us": NOW_US + number, "received_at_us": NOW_US}
            connection.execute(insert(events), one)
        job_rows.request_run(connection, "retrain", "cli", 1)
        user_rows.merge(connection, "u1", "s:guest", 1)
        erasure_rows.erase(connection, "u8", 1)


@pytest.fixture
def old(empty_url, tmp_path, tiny_shop, publish):
    """A database of the schema before, with something of everything; its tables."""
    with closing(Database(f"sqlite:///{tmp_path}/filled.db")) as source:
        migrate.upgrade(source)
        fill(source, tiny_shop, publish, tmp_path)
        with closing(Database(empty_url)) as database:
            migrate.upgrade(database, BEFORE)
            with database.begin() as connection, source.connect() as filled:
                tables = old_tables(connection)
                for table in reversed(tables.sorted_tables):
                    connection.execute(delete(table))
                for table in tables.sorted_tables:
                    rows = [dict(row._mapping) for row in filled.execute(select(table))]
                    if rows:
                        connection.execute(insert(table), rows)
            yield database, tables


def test_every_row_goes_forward(old):
    database, tables = old
    with database.connect() as connection:
        before = rows_of(connection, tables)
    assert sum(map(bool, before.values())) > 9
    migrate.upgrade(database)
    migrate.check(database)
    with database.connect() as connection:
        assert rows_of(connection, tables) == before


def test_what_the_release_before_reads_can_be_read_meanwhile(old):
    database, tables = old
    with database.connect() as connection:
        wanted = rows_of(connection, tables)
    seen, errors, stop = [], [], threading.Event()

    def read():
        while not stop.is_set():
            try:
                with database.connect() as connection:
                    seen.append(rows_of(connection, tables) == wanted)
            except Exception as error:  # whatever it is, the test tells of it
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    url = database.url.render_as_string(hide_password=False)
    with closing(Database(url, busy_timeout_seconds=30)) as other:
        migrate.upgrade(other)
    stop.set()
    reader.join()
    assert errors == []
    assert seen
    assert all(seen)


def test_a_service_takes_events_and_answers_while_the_newest_migrations_run(
    database, tmp_path, tiny_shop, publish, settings_for, Service
):
    """Beside migrations that add what a service of this release reads, one of the release before goes on.
    This one goes on beside those after it (0017), as the newest of them come and go, and answers all along;
    posts that meet other tables than its own are refused, to be tried again, and none that it
    acknowledged is lost.
    """
    publish(tiny_shop, database, tmp_path)
    migrate.downgrade(database, READ)
    url = database.url.render_as_string(hide_password=False)
    acknowledged, posts, reads, stop = [], [], [], threading.Event()

    with closing(Service(database, settings_for(tmp_path))) as service:
        server = make_server("127.0.0.1", 0, service.app, threaded=True)
        address = f"http://127.0.0.1:{server.port}/api/v1"
        headers = {"X-API-Key": service.keys["admin"], "Content-Type": "application/json"}

        def fetch(path, body=None):
            request = urllib.request.Request(address + path, body, headers)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.status, orjson.loads(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, {}

        def post():
            for number in itertools.count():
                event_id = f"meanwhile-{number}"
                one = {"user_id": "u1", "item_id": "P0001", "event_id": event_id}
                status, said = fetch("/events", orjson.dumps(one))
                posts.append(status)
                if said.get("accepted"):
                    acknowledged.append(event_id)
                if stop.is_set():
                    return

        def read():
            while not stop.is_set():
                reads.append(fetch("/users/u1/recommendations?k=3")[0])

        threads = [threading.Thread(target=one) for one in (server.serve_forever, post, read)]
        for thread in threads:
            thread.start()
        try:
            with closing(Database(url, busy_timeout_seconds=30)) as other:
                for _ in range(3):
                    migrate.upgrade(other)
                    seen = len(acknowledged)
                    while len(acknowledged) < seen + 3:
                        assert threads[1].is_alive()
                        time.sleep(0.01)
                    migrate.downgrade(other, READ)
                migrate.upgrade(other)
        finally:
            stop.set()
            for thread in threads[1:]:
                thread.join()
            server.shutdown()
            threads[0].join()
            server.server_close()
    migrate.check(database)
    assert set(reads) == {200}
    assert {status // 100 for status in posts} <= {2, 5}
    with database.connect() as connection:
        kept = set(connection.execute(select(events.c.event_id)).scalars())
    assert set(acknowledged) <= kept


def test_a_schema_of_a_newer_release_is_refused_by_name(database):
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RecsysError, match="9999"):
        migrate.check(database)
    with pytest.raises(RecsysError, match=r"9999.*newer"):
        migrate.upgrade(database)


@pytest.mark.parametrize("number", [1, 2])
def test_a_model_of_an_earlier_format_ranks_as_it_did_and_serves(
    number, database, tmp_path, settings_for, Service, version_row
):
    """The files were written, and the scores computed, by the releases that had the format."""
    shutil.copytree(GOLDEN / f"format_{number}", tmp_path / "models")
    said = json.loads((tmp_path / "models" / "expected.json").read_text())
    bundle = read_version(tmp_path / "models", said["version"], said["manifest_sha256"])
    histories = Histories.from_lists(said["histories"])
    for ranking, wanted in said["scores"].items():
        expected = np.array(wanted, np.float64)  # None: not a number, for what it does not rank
        if (number, ranking) == (1, "lstm"):  # it gave logits; they are softmax probabilities now
            shares = np.exp(expected)
            expected = shares / np.nansum(shares, axis=1, keepdims=True)
        found = scores(bundle, histories, ranking)
        ranks = np.isfinite(expected)
        np.testing.assert_allclose(found[ranks], expected[ranks], atol=2e-5)
        assert not np.isfinite(found[~ranks]).any()
    known = {"ranking": bundle.ranking, "facts": bundle.facts.to_json(), "size_bytes": said["size"]}
    row = version_row(said["version"], manifest_sha256=said["manifest_sha256"], **known)
    with database.begin() as connection:
        version_rows.add_version(connection, row)
        version_rows.deploy(connection, row.version, 1, "test", "of an earlier release")
    with closing(Service(database, settings_for(tmp_path / "models"))) as service:
        events = [{"item_id": item} for item in bundle.vocabulary.item_ids[2:5]]
        answer = service.post("/recommendations", {"events": events, "k": 5})
        assert answer["model_version"] == row.version
        assert len(answer["items"]) == 5


def test_a_model_of_an_unknown_format_is_refused_by_name(tmp_path, tiny_shop, rewrite_manifest):
    version, digest = rewrite_manifest(tmp_path, tiny_shop.bundle, format=FORMAT + 1)
    with pytest.raises(
        ModelFileError, match=f"{version} has format {FORMAT + 1}.*formats 1 to {FORMAT}"
    ):
        read_version(tmp_path, version, digest)


@pytest.fixture
def rewrite_manifest():
    """A version on disk with some words of its manifest changed; its name and the new hash."""
    import hashlib

    from recsys.registry import MANIFEST, write_version

    def rewrite(folder, bundle, **changes):
        write_version(folder, bundle)
        path = folder / bundle.version / MANIFEST
        data = orjson.dumps({**orjson.loads(path.read_bytes()), **changes})
        path.write_bytes(data)
        return bundle.version, hashlib.sha256(data).hexdigest()

    return rewrite


def test_the_service_goes_on_with_the_old_model_where_the_new_one_is_refused(
    database, tmp_path, tiny_shop, publish, settings_for
):
    old = publish(tiny_shop, database, tmp_path)
    recommender = Recommender(settings_for(tmp_path), database, time.monotonic)
    asked = Request(user_id="nobody", k=5)
    assert answering.recommend(recommender, asked, NOW_US).model_version == old
    new = publish(tiny_shop, database, tmp_path, "20250401-000000-abcdef")
    manifest = tmp_path / new / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"format": 3', b'"format": 4'))
    time.sleep(0.15)  # serving.reload_seconds of these settings is 0.1
    assert answering.recommend(recommender, asked, NOW_US).model_version == old
    with database.connect() as connection:
        assert version_rows.champion(connection).version == new
