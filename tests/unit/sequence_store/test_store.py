"""Sequence files say what the database says, whatever happened in between; on both databases."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import pipeline
from recsys.config import Settings
from recsys.errors import ConflictError, SequenceFileError, TrainingError
from recsys.events.time_split import cut_for_share
from recsys.events.times import to_us
from recsys.ingest.event_body import check_event
from recsys.ingest.event_files import ReadOptions
from recsys.ingest.gorse_objects import feedback_event
from recsys.sequence_store import segment_building
from recsys.sequence_store import store as store_module
from recsys.sequence_store.segments import read_manifest, read_segment
from recsys.sequence_store.store import SequenceStore
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Database
from recsys.storage.entities import erasure_rows, event_rows, feedback_rows, user_rows
from recsys.training.data_checks import check_frame
from recsys.training.evaluate import window_positions
from recsys.training.event_log import make_log
from recsys.training.fit import fit_model
from recsys.training.run import Run
from tests.conftest import postgresql_in_drills
from tests.unit.sequence_store.conftest import NOW, agree


def test_files_say_what_the_database_says_and_new_rows_are_read_alone(
    store, database, load, monkeypatch
):
    assert store.update(database).rows == 0
    assert len(store.frame(database)) == 0
    load(0, 2_000)
    first = store.update(database)
    assert (first.new_rows, first.rows) == (2_000, 2_000)
    agree(store, database)
    load(2_000, 2_100)
    asked = []
    real = segment_building.read_batches
    monkeypatch.setattr(
        segment_building,
        "read_batches",
        lambda *given, ids, **more: asked.append(ids) or real(*given, ids=ids, **more),
    )
    second = store.update(database)
    assert (second.new_rows, second.rows, second.rebuilt) == (100, 2_100, False)
    assert min(first for first, _ in asked) > 1_600  # the look-back and what is new
    agree(store, database)
    assert store.update(database).new_rows == 0
    middle = int(np.median(store.frame(database).timestamps_us))
    agree(store, database, middle)


def test_rows_that_commit_late_under_lower_ids_are_found(store, database, load):
    load(0, 900)
    with database.begin() as connection:
        held = (
            connection.exec_driver_sql("SELECT * FROM events WHERE id > 800 AND id <= 820")
            .mappings()
            .all()
        )
        connection.exec_driver_sql("DELETE FROM events WHERE id > 800 AND id <= 820")
    assert store.update(database).rows == 880
    from recsys.storage.schema.tables import events

    with database.begin() as connection:
        connection.execute(events.insert(), [dict(row) for row in held])
    assert store.update(database).new_rows == 20
    agree(store, database)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_slow_writer_of_low_ids_is_waited_for(store, database, load, tiny_shop):
    load(0, 900)
    store.update(database)
    slow, found = check_event({"user_id": "slow", "item_id": "P0001"}, to_us(NOW)), []
    with database.begin() as connection:
        advisory_lock.lock_shared(connection)
        event_rows.insert_events(connection, [slow], to_us(NOW))
        load(900, 1_900)  # many more ids than are looked back at
        reading = threading.Thread(target=lambda: found.append(store.update(database).new_rows))
        reading.start()
        reading.join(0.5)
        assert reading.is_alive()
    reading.join(30)
    assert found == [1_001]
    agree(store, database)


def test_merged_and_erased_users_are_followed(store, database, load):
    load(0, 2_000)
    store.update(database)
    with database.connect() as connection:
        users = [
            row[0]
            for row in connection.exec_driver_sql(
                "SELECT user_id FROM events WHERE user_id IS NOT NULL "
                "GROUP BY user_id ORDER BY count(*) DESC LIMIT 3"
            )
        ]
    with database.begin() as connection:
        user_rows.merge(connection, users[0], f"u:{users[1]}", 1)
    agree(store, database)
    with database.begin() as connection:
        erasure_rows.erase(connection, users[0], 2)
        erasure_rows.erase(connection, users[2], 3)
    assert store.lags_behind_removals(database)
    before = len(store.frame(database))
    store.update(database)
    assert not store.lags_behind_removals(database)
    assert len(store.frame(database)) < before
    agree(store, database)


def test_feedback_that_was_deleted_leaves_the_files(store, database, load):
    load(0, 500)
    given = [
        feedback_event({"FeedbackType": "like", "UserId": user, "ItemId": item}, to_us(NOW) - n)
        for n, (user, item) in enumerate([("w", "c"), ("u", "a"), ("u", "b"), ("v", "a")])
    ]
    with database.begin() as connection:
        feedback_rows.write_feedback(connection, given, False, to_us(NOW))
    assert store.update(database).rows == 504
    with database.begin() as connection:
        assert feedback_rows.delete_pair(connection, "u", "a", None, 1) == 1
        assert feedback_rows.delete_of_item(connection, "c", 1) == 1
    assert store.lags_behind_removals(database)
    done = store.update(database)
    assert (done.rows, done.rebuilt) == (502, False)
    assert not store.lags_behind_removals(database)
    agree(store, database)


@postgresql_in_drills
def test_damaged_and_foreign_files_are_built_anew(store, database, load, tmp_path, subtests):
    load(0, 1_500)
    store.update(database)
    folder = tmp_path / "sequences"
    manifest, _ = read_manifest(folder)
    name = manifest.segments[0].name

    def flip(path):
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)

    damages = {
        "a column is gone": lambda: (folder / name / "users.npy").unlink(),
        "no manifest": lambda: (folder / "manifest.json").write_text("{}"),
        "items": lambda: flip(folder / f"items-{manifest.item_count}.json"),
        "another format": lambda: (folder / "manifest.json").write_text(
            (folder / "manifest.json").read_text().replace('"format":2', '"format":1')
        ),
        "a cut file": lambda: os.truncate(folder / name / "positions.npy", 200),
    }
    for what, damage in damages.items():
        with subtests.test(what):
            damage()
            said = []
            done = store.update(database, said.append)
            assert done.rebuilt
            assert done.new_rows == 1_500
            assert "built anew" in said[0]
            agree(store, database)
            manifest, _ = read_manifest(folder)
            name = manifest.segments[0].name
    flip(folder / name / "items.npy")  # looks whole, so that only its hash can tell
    assert not store.update(database).rebuilt
    with pytest.raises(SequenceFileError, match="items was changed"):
        store.frame(database)
    store.forget()
    assert store.update(database).rebuilt
    agree(store, database)
    other = Database(f"sqlite:///{tmp_path}/other.db")
    from recsys.storage.schema import migrate

    migrate.upgrade(other)
    assert store.update(other).rebuilt
    assert len(store.frame(other)) == 0
    other.close()


def test_many_updates_are_compacted_and_leave_nothing_behind(
    store, database, load, tmp_path, monkeypatch
):
    monkeypatch.setattr(store_module, "MAX_SEGMENTS", 6)
    for at in range(0, 2_000, 100):
        load(at, at + 100)
        store.update(database)
    manifest, _ = read_manifest(tmp_path / "sequences")
    assert len(manifest.segments) <= 6
    assert manifest.rows == 2_000
    agree(store, database)
    left = {entry.name for entry in (tmp_path / "sequences").iterdir()}
    named = {segment.name for segment in manifest.segments}
    assert left == named | {"manifest.json", "lock", f"items-{manifest.item_count}.json"}


@postgresql_in_drills
def test_two_processes_make_the_same_files_as_one(database, load, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "CHUNK_IDS", 500)
    load(0, 2_000)
    for processes in (1, 2):
        SequenceStore(tmp_path / str(processes), processes).update(database)
    one, two = (read_manifest(tmp_path / str(processes))[0] for processes in (1, 2))
    assert [s.sha256 for s in one.segments] == [s.sha256 for s in two.segments]
    assert len(one.segments) == 4
    segment = one.segments[0]
    whole = read_segment(tmp_path / "1", segment)
    buckets = [segment.bucket(tmp_path / "1", number) for number in range(64)]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([b[name] for b in buckets]), values)


def test_one_process_at_a_time(store, database, load):
    load(0, 100)
    store.update(database)
    with store._locked(), pytest.raises(ConflictError, match="another process"):
        store.update(database)


def build_slowly(url, folder):
    store_module.CHUNK_IDS = 100
    real = store_module.build_segment

    def slow(*arguments, **more):
        time.sleep(0.1)
        return real(*arguments, **more)

    store_module.build_segment = slow
    SequenceStore(folder, processes=1).update(Database(url))


def test_a_killed_build_goes_on(database, database_url, load, tmp_path):
    load(0, 2_000)
    folder = tmp_path / "killed"
    process = multiprocessing.get_context("fork").Process(
        target=build_slowly, args=(database_url, folder)
    )
    process.start()
    while not (folder / "manifest.json").exists():
        time.sleep(0.02)
    time.sleep(0.25)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    part = read_manifest(folder)[0].rows
    assert 0 < part < 2_000
    store = SequenceStore(folder, processes=1)
    done = store.update(database)
    assert not done.rebuilt
    assert (done.rows, done.new_rows) == (2_000, 2_000 - part)
    agree(store, database)


@pytest.mark.slow
def test_a_killed_reader_ends_the_build_and_the_next_one_goes_on(
    database, database_url, load, tmp_path
):
    load(0, 2_000)
    SequenceStore(tmp_path / "whole", processes=1, chunk_ids=100).update(database)
    store = SequenceStore(tmp_path / "killed", processes=2, chunk_ids=100)
    killed = []

    def kill():
        while not killed:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(TrainingError, match="a process that read events was lost"):
        store.update(database)
    killer.join()
    assert store.update(database).rows == 2_000
    agree(store, database)
    whole, again = (read_manifest(tmp_path / name)[0] for name in ("whole", "killed"))
    assert [s.sha256 for s in whole.segments] == [s.sha256 for s in again.segments]


def test_columns_of_a_table_without_anonymous_rows_are_read_too(store, database, tmp_path):
    table = pa.table(
        {
            "user_id": ["a", "a", "b"],
            "item_id": ["x", "y", "x"],
            "timestamp": pa.array([1_600_000_001, 1_600_000_002, 1_600_000_003], pa.int64()),
        }
    )
    path = tmp_path / "plain.parquet"
    pq.write_table(table, path)
    pipeline.import_events(database, path, ReadOptions(unit="s"), NOW)
    assert store.update(database).rows == 3
    agree(store, database)


def test_ids_that_lie_far_apart_are_read_in_a_bounded_number_of_ranges(
    store, database, load, monkeypatch
):
    load(0, 500)
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE events SET id = id + 1000000000000 WHERE id > 400")
    monkeypatch.setattr(store_module, "MAX_RANGES", 20)
    asked = []
    real = segment_building.read_batches
    monkeypatch.setattr(
        segment_building,
        "read_batches",
        lambda *given, ids, **more: asked.append(ids) or real(*given, ids=ids, **more),
    )
    assert store.update(database).rows == 500
    assert len(asked) <= 21
    agree(store, database)


def test_a_log_kept_in_files_trains_the_same_network(store, database, load):
    load(0, 2_000)
    store.update(database)
    settings = Settings(
        model={"width": 8},
        training={"epochs": 2, "min_events": 100, "ranker_events": 1_000, "threads": 1},
        sequences={"max_user_events": 40, "input_event_types": ["view", "cart"]},
    )

    def trained(large_events):
        frame = SequenceStore(store._folder, large_events=large_events).frame(database)
        checks = [str(check) for check in check_frame(frame, settings, None)]
        log = make_log(frame, settings)
        cut_us = cut_for_share(log.sequences, 0.2)
        fitted = fit_model(log, settings, "v", cut_us, Run(NOW))
        positions = window_positions(log, fitted.bundle, cut_us)
        return frame, checks, fitted.bundle, positions

    before = {path.name for path in store._folder.iterdir()}
    inside, checks, one, positions = trained(10_000)
    large, checks_2, other, positions_2 = trained(-1)
    assert inside.folder is None and large.folder == store._folder
    assert checks == checks_2
    assert len(positions) > 50
    np.testing.assert_array_equal(positions.targets, positions_2.targets)
    for name, values in one.network.state_dict().items():
        assert np.array_equal(values.numpy(), other.network.state_dict()[name].numpy()), name
    for name, ranker in one.rankers.items():
        for key, values in ranker.arrays().items():
            np.testing.assert_array_equal(values, other.rankers[name].arrays()[key])
    assert {path.name for path in store._folder.iterdir()} == before  # nothing is left behind


def test_no_room_for_a_large_log_is_said_and_not_a_crash(store, database, load):
    load(0, 2_000)
    store.update(database)
    code = (
        "import resource, signal, sys; from pathlib import Path;"
        "from recsys.sequence_store.store import SequenceStore;"
        "from recsys.storage.engine.database import Database;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "database = Database(sys.argv[1]);"
        "store = SequenceStore(Path(sys.argv[2]), large_events=-1);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096));"
        "store.frame(database)"
    )
    url = database.url.render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-c", code, url, str(store._folder)], capture_output=True, text=True
    )
    assert "TrainingError: the disk has no room for" in done.stderr, done.stderr
