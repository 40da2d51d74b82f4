"""Files into real databases: every row accounted for, repeatable, killed and finished."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from recsys import pipeline
from recsys.config import Settings
from recsys.errors import InputError, RecsysError
from recsys.events.identity import Owner
from recsys.events.times import to_us
from recsys.ingest.event_files import ColumnMap, ReadOptions, read_events
from recsys.ingest.item_files import ItemMap, ItemOptions
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    erasure_rows,
    event_import,
    history_rows,
    rejected_rows,
    user_rows,
)
from tests.conftest import postgresql_in_drills

NOW = datetime(2025, 1, 2, tzinfo=UTC)
OPTIONS = ReadOptions(columns=ColumnMap.parse("user=u,item=i,timestamp=t"), unit="s")


def load(database, path, options=OPTIONS):
    return pipeline.import_events(database, path, options, NOW)


def stored(database):
    query = "SELECT event_id, user_id, item_id, timestamp_us FROM events ORDER BY id"
    with database.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_a_misspelt_default_type_is_told(database, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("u,i,t,k\na,x,1600000100,play\na,y,1600000101,\nb,z,1600000102,\n")
    columns = ColumnMap.parse("user=u,item=i,timestamp=t,event_type=k")
    known = Settings().event_types()

    def notes(default_type, columns=columns):
        options = ReadOptions(columns=columns, unit="s", default_type=default_type)
        return pipeline.import_events(database, path, options, NOW, known_types=known).notes

    def told(given, near):
        return f"event_type taken as {given!r}, which is not known; did you mean {near}?"

    assert notes("pruchase") == {told("pruchase", "purchase"): 2}  # which the configuration names
    assert notes("plya") == {told("plya", "play"): 2}  # which the file has
    assert notes("veiw") == {told("veiw", "view"): 2}
    assert notes("rating") == notes("purchase") == {}  # nothing like it; known
    untyped = ColumnMap.parse("user=u,item=i,timestamp=t")
    assert notes("Play", untyped) == {told("Play", "play"): 3}  # which the log has by now
    assert notes("play", untyped) == {}


def test_repeats_are_kept_and_a_second_import_adds_nothing(database, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "u,i,t\na,x,1600000100\na,x,1600000100\na,y,1600000101\na,x,1600000100\nb,x,1600000100\n"
    )
    first = load(database, path)
    assert (first.read, first.accepted, first.repeats, first.duplicates) == (5, 5, 2, 0)
    rows = stored(database)
    assert [row[2] for row in rows] == ["x", "x", "y", "x", "x"]
    assert len({row[0] for row in rows}) == 5
    again = load(database, path)
    assert (again.accepted, again.duplicates) == (0, 5)
    assert stored(database) == rows
    # The same events in another format are the same events.
    other = tmp_path / "log.jsonl"
    lines = [{"u": "a", "i": "x", "t": 1600000100}] * 3 + [{"u": "a", "i": "z", "t": 1600000009}]
    other.write_text("\n".join(json.dumps(line) for line in lines))
    mixed = load(database, other)
    assert (mixed.accepted, mixed.duplicates) == (1, 3)


def test_a_given_event_id_that_comes_twice_is_a_duplicate(database, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("u,i,t,e\na,x,1600000100,1\na,y,1600000101,1\nb,x,1600000100,1\n")
    columns = ColumnMap.parse("user=u,item=i,timestamp=t,event_id=e")
    found = load(database, path, ReadOptions(columns=columns, unit="s"))
    assert (found.accepted, found.duplicates, found.repeats) == (2, 1, 0)


def test_bad_rows_wait_in_quarantine_once_and_can_be_replayed(database, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "u,i,t\na,x,1600000100\n,x,1600000100\na,,1600000100\na,y,2025-01-01T00:00:00Z\n"
    )
    first = load(database, path)
    assert (first.read, first.accepted, first.rejected) == (4, 1, 3)
    load(database, path)
    with database.connect() as connection:
        rows = rejected_rows.list_rejected(connection)
        assert [row["position"] for row in rows] == [1, 2, 3]
        assert "user_id" in rows[0]["reason"]
        assert rows[0]["source"] == "log.csv"
    options = ReadOptions(columns=ColumnMap.parse("user=u,item=i,timestamp=t"))
    assert pipeline.replay_rejected(database, options, None, NOW) == {
        "read": 3,
        "accepted": 1,
        "duplicates": 0,
        "rejected": 2,
        "unreadable": 0,
        "notes": {},
    }
    with database.connect() as connection:
        assert rejected_rows.count_rejected(connection) == 2


def test_a_replay_tells_what_an_import_tells(database, tmp_path):
    """As of a default type that is nearly one of the log's."""
    path = tmp_path / "log.csv"
    path.write_text("u,i,t,e\na,x,1600000100,purchase\nb,x,2025-01-01T00:00:00Z,\n")
    options = {"columns": ColumnMap.parse("user=u,item=i,timestamp=t,event_type=e")}
    load(database, path, ReadOptions(unit="s", **options))
    again = ReadOptions(default_type="purchse", **options)
    found = pipeline.replay_rejected(database, again, None, NOW)
    assert found["accepted"] == 1
    told = "event_type taken as 'purchse', which is not known; did you mean purchase?"
    assert found["notes"] == {told: 1}


def test_a_wrong_unit_stops_before_anything_is_stored(database, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("u,i,t\n" + "a,x,1592955233000\n" * 20)
    with pytest.raises(InputError, match="unit"):
        load(database, path)
    assert stored(database) == []


@pytest.mark.parametrize("content", [b"", b"u,i\na,x\n", b"\x1f\x8bnot gzip"])
def test_an_unreadable_file_is_one_line(database, tmp_path, content):
    path = tmp_path / ("log.csv.gz" if content.startswith(b"\x1f") else "log.csv")
    path.write_bytes(content)
    with pytest.raises(InputError):
        load(database, path)


def test_what_was_exported_comes_back_as_it_was(database, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("u,i,t\na,x,1600000100\na,x,1600000100\nb,é/%,1600000101\n")
    load(database, path)
    rows = stored(database)
    for ending in ("parquet", "csv", "jsonl"):
        out = tmp_path / f"out.{ending}"
        assert pipeline.export_events(Settings(), database, out, NOW) == 3
        again = pipeline.import_events(database, out, ReadOptions(), NOW)
        assert (again.accepted, again.duplicates) == (0, 3), ending
    assert stored(database) == rows


def test_every_field_of_an_event_comes_back(database, tmp_path):
    row = {"user_id": "u", "item_id": "i", "timestamp": 1600000100, "event_id": "e", "value": 1.5}
    row |= {"session_id": "s", "event_type": "cart", "recommendation_id": "r"}
    row |= {"properties": {"a": [1, 'x "y", z']}}
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(row))
    assert load(database, path, ReadOptions(unit="s")).accepted == 1
    tables = []
    for ending in ("parquet", "csv", "jsonl"):
        out = tmp_path / f"out.{ending}"
        pipeline.export_events(Settings(), database, out, NOW)
        (chunk,) = read_events(out, ReadOptions(), to_us(NOW))
        tables.append(chunk.events.to_pylist())
    assert tables[0] == tables[1] == tables[2]
    assert tables[0][0]["properties"] == '{"a":[1,"x \\"y\\", z"]}'
    assert (tables[0][0]["recommendation_id"], tables[0][0]["session_id"]) == ("r", "s")


def test_an_export_that_cannot_be_is_refused(database, tmp_path):
    with pytest.raises(InputError, match="parquet"):
        pipeline.export_events(Settings(), database, tmp_path / "out.exe", NOW)


CHILD = """
import sys, os
from datetime import datetime, UTC
from pathlib import Path
from recsys import pipeline
from recsys.config import Settings
from recsys.ingest.event_files import ColumnMap, ReadOptions, read_events
from recsys.storage.entities import event_import
from recsys.storage.engine.database import Database
event_import.MOVE_ROWS = 2_000
options = ReadOptions(columns=ColumnMap.parse("user=u,item=i,timestamp=t"), unit="s")
def on_progress(stage, rows):
    print(stage, rows, flush=True)
database = Database(sys.argv[1])
path = Path(sys.argv[2])
pipeline.import_events(database, path, options, datetime(2025, 1, 2, tzinfo=UTC), on_progress)
"""


def test_killed_halfway_and_started_again_ends_like_one_clean_run(database, tmp_path):
    path = tmp_path / "log.parquet"
    count = 60_000
    users = [f"u{n % 997}" for n in range(count)]
    names = [f"i{n * 7 % 101}" for n in range(count)]
    times = [1_700_000_000 + n // 50 for n in range(count)]
    pq.write_table(pa.table({"u": users, "i": names, "t": times}), path)
    url = database.url.render_as_string(hide_password=False)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(path)], stdout=subprocess.PIPE, text=True
    )
    for line in child.stdout:
        if line.startswith("store") and int(line.split()[1]) >= 10_000:
            os.kill(child.pid, signal.SIGKILL)
            break
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    time.sleep(0.2)
    moved = len(stored(database))
    assert 10_000 <= moved < count
    again = load(database, path)
    assert (again.accepted, again.duplicates) == (count - moved, moved)
    rows = stored(database)
    assert [row[2] for row in rows] == names
    ids = [row[0] for row in rows]
    clean = Database(f"sqlite:///{tmp_path}/clean.db")
    from recsys.storage.schema import migrate

    migrate.upgrade(clean)
    load(clean, path)
    assert ids == [row[0] for row in stored(clean)]
    clean.close()


def test_who_is_erased_during_an_import_does_not_come_back(database, tmp_path, monkeypatch):
    monkeypatch.setattr(event_import, "MOVE_ROWS", 100)
    path = tmp_path / "log.csv"
    rows = [f"{'gone' if n % 2 else 'here'},i{n},{1_700_000_000 + n}" for n in range(300)]
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]))

    def erase_meanwhile(stage, rows):
        if (stage, rows) == ("store", 200):
            with database.begin() as connection:
                assert erasure_rows.erase(connection, "gone", to_us(NOW))["events"] == 100

    options = ReadOptions(unit="s")
    summary = pipeline.import_events(database, path, options, NOW, on_progress=erase_meanwhile)
    assert (summary.read, summary.accepted, summary.skipped) == (300, 250, 50)
    with database.connect() as connection:
        assert history_rows.history(connection, Owner("gone"), limit=10).events == []
        assert user_rows.user_summary(connection, "here").events == 150


def test_a_bad_row_of_who_is_erased_while_the_file_is_read_is_not_kept(database, tmp_path):
    path = tmp_path / "log.csv"
    rows = (
        "user_id,item_id,timestamp",
        "gone,,1700000000",
        "here,,1700000000",
        "here,i,1700000000",
    )
    path.write_text("\n".join(rows))

    def chunks():
        with database.begin() as connection:
            erasure_rows.erase(connection, "gone", to_us(NOW))
        yield from read_events(path, ReadOptions(unit="s"), to_us(NOW))

    summary = event_import.import_chunks(database, chunks(), path.name, to_us(NOW))
    assert (summary.read, summary.accepted, summary.skipped, summary.rejected) == (3, 1, 1, 1)
    with database.connect() as connection:
        (left,) = rejected_rows.list_rejected(connection)
    assert "here" in left["raw"]


def test_an_import_waits_for_tables(tmp_path, empty_url):
    path = tmp_path / "log.csv"
    path.write_text("u,i,t\na,x,1600000100\n")
    bare = Database(empty_url)
    with pytest.raises(RecsysError, match="recsys db upgrade"):
        load(bare, path)
    bare.close()


def test_real_clicks_all_counted(database, data_folder):
    columns = ColumnMap.parse("session=SessionId,item=ItemId,timestamp=Time")
    options = ReadOptions(columns=columns, unit="s")
    path = data_folder / "bol_clicks.parquet"
    first = load(database, path, options)
    assert (first.read, first.accepted, first.rejected) == (116_285, 116_285, 0)
    again = load(database, path, options)
    assert (again.accepted, again.duplicates) == (0, 116_285)


@postgresql_in_drills
def test_real_purchases_with_their_dirt(database, data_folder):
    columns = ColumnMap.parse("user=CustomerID,item=StockCode,timestamp=InvoiceDate")
    options = ReadOptions(columns=columns, where=("Quantity>0",), default_type="purchase")
    found = load(database, data_folder / "online_retail.parquet", options)
    assert found.read == 541_909
    assert found.read == found.accepted + found.duplicates + found.rejected + found.skipped
    assert (found.accepted, found.rejected, found.skipped) == (397_924, 133_361, 10_624)
    assert found.repeats > 5_000


def test_real_films_as_items(database, data_folder):
    path = data_folder / "movietweetings_movies.parquet"
    columns = ItemMap.parse("item=imdb_id,title=title,categories=genres")
    found = pipeline.import_items(database, path, ItemOptions(columns), NOW)
    assert found == {"read": 12_611, "stored": 12_611, "new": 12_611, "rejected": 0}
