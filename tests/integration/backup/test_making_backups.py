"""Backups are of one moment, whole, and made by the clock."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from sqlalchemy import insert

from recsys.errors import ModelFileError, RecsysError
from recsys.ops.backup import (
    backup_name,
    make_backup,
    making,
    prune_backups,
    verify_backup,
)
from recsys.ops.backup import restore_backup as restore
from recsys.registry import delete_version
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    job_rows,
    version_rows,
)
from recsys.storage.schema import table_copy
from recsys.storage.schema.tables import events, tombstones
from tests.conftest import postgresql_in_drills
from tests.integration.backup.conftest import NOW

# SQLite's listing says too little of an index on an expression.
pytestmark = pytest.mark.filterwarnings("ignore:.*expression-based index")


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


@postgresql_in_drills
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
