"""Versions kept in the database or in an object store, and instances that begin with an empty disk."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from recsys import pipeline
from recsys.config import Settings, load_settings
from recsys.errors import ConfigError, ModelFileError, StorageUnavailableError
from recsys.ingest.event_files import ReadOptions
from recsys.registry import keep_version, read_version, write_version
from recsys.serving import answering
from recsys.serving.active_model import ActiveModel
from recsys.serving.recommender import Recommender
from recsys.storage.entities import model_files, version_rows
from recsys.storage.entities.model_files import DatabaseFiles, ObjectFiles, open_model_files
from recsys.training.run import Run

EXTRA_VERSION = "20250301-000000-0a0a0a"


@pytest.fixture(scope="module")
def object_store():
    """Address of a server that speaks S3's protocol, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        address = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.1)
        yield address
        process.kill()


@pytest.fixture
def bucket(object_store, monkeypatch):
    """Name of an empty bucket."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_store)
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import boto3

    name = f"models-{os.getpid()}-{time.time_ns()}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


OTHERS = (("sqlite", "database"), ("postgresql", "s3"))


@pytest.fixture(params=["database", "s3"])
def settings(request, tmp_path):
    store = request.param
    if store == "s3":
        store = f"s3://{request.getfixturevalue('bucket')}/shop/versions"
    return Settings(registry={"path": tmp_path / "models", "store": store})


@pytest.fixture
def files(settings, database, monkeypatch):
    monkeypatch.setattr(model_files, "PART_BYTES", 5_000)  # so that files have many parts
    return open_model_files(settings, database)


def test_an_instance_with_an_empty_folder_takes_the_version(
    files, tiny_shop, tmp_path, database, settings
):
    bundle = tiny_shop.bundle
    digest, _ = write_version(tmp_path / "models", bundle)
    keep_version(tmp_path / "models", bundle.version, files)
    keep_version(tmp_path / "models", bundle.version, files)  # repeating it changes nothing
    taken = read_version(tmp_path / "other", bundle.version, digest, files)
    assert taken.vocabulary.item_ids == bundle.vocabulary.item_ids
    for path in (tmp_path / "models" / bundle.version).iterdir():
        assert (tmp_path / "other" / bundle.version / path.name).read_bytes() == path.read_bytes()
    files.delete(bundle.version)
    read_version(tmp_path / "other", bundle.version, digest, files)  # from the disk
    with pytest.raises(ModelFileError, match=r"manifest\.json is not in the"):
        read_version(tmp_path / "third", bundle.version, digest, files)
    assert list((tmp_path / "third").iterdir()) == []
    active = ActiveModel(tmp_path / "fourth", 1.0, time.monotonic, files=files)
    assert active.current(lambda: [(bundle.version, digest)]).champion is None
    assert active.refused == bundle.version


def test_what_was_changed_in_the_store_is_refused(files, tiny_shop, tmp_path, database):
    bundle = tiny_shop.bundle
    folder = tmp_path / "models"
    digest, _ = write_version(folder, bundle)
    for name, change in {
        "manifest.json": "not the one that was registered",
        "rankers.safetensors": "rankers.safetensors is damaged",
    }.items():
        path = folder / bundle.version / name
        right = path.read_bytes()
        path.write_bytes(bytes([right[0] ^ 1]) + right[1:])
        keep_version(folder, bundle.version, files)
        with pytest.raises(ModelFileError, match=change):
            read_version(tmp_path / "other", bundle.version, digest, files)
        path.write_bytes(right + b"x" * 10)
        files.delete(bundle.version)
        keep_version(folder, bundle.version, files)
        with pytest.raises(ModelFileError, match=r"damaged|larger|not the one"):
            read_version(tmp_path / "other", bundle.version, digest, files)
        path.write_bytes(right)
        files.delete(bundle.version)
        assert list((tmp_path / "other").iterdir()) == []


def test_versions_without_a_row_are_swept_once_they_are_old(files, tiny_shop, tmp_path):
    for bundle in (tiny_shop.bundle, replace(tiny_shop.bundle, version=EXTRA_VERSION)):
        write_version(tmp_path / "models", bundle)
        keep_version(tmp_path / "models", bundle.version, files)
    registered = {tiny_shop.bundle.version}
    assert files.sweep(registered, 1_000_000) == 0
    assert files.sweep(registered, time.time_ns() // 1_000 + 60_000_000) == 1
    assert b"".join(files.get(tiny_shop.bundle.version, "manifest.json"))
    with pytest.raises(ModelFileError):
        b"".join(files.get(EXTRA_VERSION, "manifest.json"))


def test_what_is_not_a_version_in_a_shared_bucket_stays(bucket, tiny_shop, tmp_path):
    import boto3

    foreign = ["photos/cat.jpg", "cat.jpg", f"photos/{EXTRA_VERSION}/cat.jpg"]
    foreign += [f"{EXTRA_VERSION}/photos/cat.jpg", f"/{EXTRA_VERSION}/cat.jpg"]
    for key in foreign:
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"cat")
    files = ObjectFiles(bucket, "")
    write_version(tmp_path / "models", tiny_shop.bundle)
    keep_version(tmp_path / "models", tiny_shop.bundle.version, files)
    assert files.sweep(set(), time.time_ns() // 1_000 + 60_000_000) == 1
    left = boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    assert {one["Key"] for one in left} == set(foreign)


def test_a_serving_process_forgets_what_it_fetched_and_was_deleted(
    files, settings, database, tiny_shop, publish, tmp_path
):
    gone, *kept = (
        publish(tiny_shop, database, tmp_path / "models", f"2099010{n}-000000-aaaaaa")
        for n in (1, 2, 3)
    )
    with database.begin() as connection:
        version_rows.set_state(connection, gone, "deleted")
    old = (time.time() - 2 * 86_400,) * 2
    for folder in (tmp_path / "models").iterdir():
        os.utime(folder, old)
    (tmp_path / "models" / EXTRA_VERSION).mkdir()  # a training may be about to register it
    for store, left in (("disk", {gone, *kept}), (settings.registry.store, set(kept))):
        registry = settings.registry.model_copy(update={"store": store})
        chosen = settings.model_copy(update={"registry": registry})
        Recommender(chosen, database, time.monotonic).tidy_cache()
        found = {path.name for path in (tmp_path / "models").iterdir()}
        assert found == {EXTRA_VERSION, *left}


@pytest.mark.parametrize(
    ("database_url", "settings"),
    [
        ("sqlite", "s3"),
        ("postgresql", "database"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in OTHERS),
    ],
    indirect=True,
)
def test_a_training_keeps_its_version_before_the_row_names_it(
    database, tiny_shop, tmp_path, settings
):
    now = datetime(2025, 3, 1, tzinfo=UTC)
    pq.write_table(tiny_shop.events, tmp_path / "events.parquet")
    pipeline.import_events(database, tmp_path / "events.parquet", ReadOptions(), now)
    chosen = tiny_shop.settings.model_copy(update={"registry": settings.registry})
    trained = pipeline.train(chosen, database, Run(now), force=True)
    elsewhere = chosen.registry.model_copy(update={"path": tmp_path / "elsewhere"})
    there = chosen.model_copy(update={"registry": elsewhere})
    assert answering.recommend_all(there, database, 5, tmp_path / "all.parquet", now) > 0
    assert (tmp_path / "elsewhere" / trained.version / "manifest.json").is_file()


def test_a_store_that_is_away_is_said_in_one_line(tmp_path, monkeypatch):
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    files = ObjectFiles("bucket", "")
    with pytest.raises(StorageUnavailableError, match="model store cannot be reached"):
        b"".join(files.get("v", "manifest.json"))


def test_the_store_is_named_well_or_refused(tmp_path):
    for store in ("ftp://x", "s3://", "disks", ""):
        with pytest.raises(ConfigError, match=r"registry\.store"):
            load_settings(registry={"store": store})


def test_rows_hold_parts_of_bounded_size(database, tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "PART_BYTES", 1_000)
    path = tmp_path / "file.bin"
    files = DatabaseFiles(database)
    for size in (0, 999, 1_000, 2_500):
        path.write_bytes(os.urandom(size))
        files.put(f"v{size}", path)
        assert b"".join(files.get(f"v{size}", "file.bin")) == path.read_bytes()
    query = "SELECT max(length(content)), count(*) FROM model_files"
    with database.connect() as connection:
        assert tuple(connection.execute(text(query)).one()) == (1_000, 7)
