"""The locks by which SQLite tells processes of each other outlive every way in which events are read.

They are the process's, not a connection's: whoever opens the same file by other means and closes it drops
them all, and the next process that comes takes itself for the only one.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from recsys.ingest.event_body import check_event
from recsys.storage.engine.database import Database
from recsys.storage.entities import event_batches, event_rows
from recsys.storage.external.external_database import ExternalDatabase
from recsys.storage.external.mapped_column import MappedColumn
from recsys.storage.schema import migrate

LOCKS = Path("/proc/locks")
NOW = 1_760_000_000_000_000

pytestmark = pytest.mark.skipif(not LOCKS.exists(), reason="the system does not list its locks")


def is_held(file):
    """Whether this process has a lock on the memory that SQLite shares beside a file in WAL mode."""
    inode = Path(f"{file}-shm").stat().st_ino
    locks = (line.split()[-5:] for line in LOCKS.read_text().splitlines())
    return any(
        pid == str(os.getpid()) and where.endswith(f":{inode}") for _, pid, where, _, _ in locks
    )


def need_listing(file):
    if not is_held(file):
        pytest.skip("this file system lists its locks under another number")


def test_the_own_table(tmp_path):
    file = tmp_path / "recsys.db"
    with closing(Database(f"sqlite:///{file}")) as database:
        migrate.upgrade(database)
        given = [{"user_id": "u", "item_id": f"i{n}", "timestamp": n + 1_700_000_000_000}
                 for n in range(9)]  # fmt: skip
        with database.begin() as connection:
            events = [check_event(one, NOW) for one in given]
            event_rows.insert_events(connection, events, NOW)
        need_listing(file)
        assert len(event_batches.read_frame(database).timestamps_us) == 9
        event_batches.read_sample(database, 5, 9)
        event_batches.read_newest(database, 3)
        assert is_held(file)


def test_an_external_table(tmp_path):
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as owner:
        owner.execute("PRAGMA journal_mode=WAL")
        owner.execute("CREATE TABLE clicks (n)")
        owner.execute("INSERT INTO clicks VALUES (1), (2)")
        owner.commit()
        source = ExternalDatabase(f"sqlite:///{file}")
        try:
            with source.read() as connection:
                connection.exec_driver_sql("SELECT n FROM clicks").all()
            need_listing(file)
            columns = {"order": MappedColumn("n", "integer")}
            batches = source.batches("SELECT n FROM clicks", columns)
            assert [row for batch in batches for row in batch["order"].to_pylist()] == [1, 2]
            assert is_held(file)
        finally:
            source.close()
