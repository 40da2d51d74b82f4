"""Erasing a user."""

import json
import threading

import numpy as np
import pytest

from recsys.events.identity import Owner, hash_texts
from recsys.ingest.event_body import check_event
from recsys.ingest.raw_rows import Rejection
from recsys.ingest.row_owners import OwnerColumns
from recsys.storage.dashboard import quality_rows
from recsys.storage.entities import (
    erasure_rows,
    event_rows,
    history_rows,
    rejected_rows,
    tombstone_rows,
    user_rows,
)
from recsys.storage.schema.tables import quality_reports, rejected_events, removed_sequences


def test_an_erasure_reads_of_the_quarantine_only_what_came_since_its_scan(database, monkeypatch):
    def reject(*users):
        with database.begin() as connection:
            rows = [Rejection(n, "bad", json.dumps({"user": user})) for n, user in enumerate(users)]
            rejected_rows.add_rejections(connection, f"of {users}", rows, 1)

    read = []
    keys = erasure_rows.owner_keys
    monkeypatch.setattr(
        erasure_rows, "owner_keys", lambda raw, columns: read.append(raw) or keys(raw, columns)
    )
    reject("u", "other", "u2")
    with database.begin() as connection:
        user_rows.merge(connection, "u", "u:u2", 1)
        until = erasure_rows.settled_quarantine(connection)
        scan = erasure_rows.scan_quarantine(connection, "u", until)
    assert len(read) == 3
    reject("u")
    with database.begin() as connection:
        assert erasure_rows.erase(connection, "u", 2, scan)["quarantine"] == 3
        assert len(read) == 4
        (left,) = rejected_rows.list_rejected(connection)
    assert json.loads(left["raw"]) == {"user": "other"}


def test_an_erasure_after_a_merge_reads_the_quarantine_anew(database):
    with database.begin() as connection:
        rows = [Rejection(0, "bad", '{"user": "u2"}')]
        rejected_rows.add_rejections(connection, "file", rows, 1)
        scan = erasure_rows.scan_quarantine(connection, "u", 10)
        user_rows.merge(connection, "u", "u:u2", 1)
        assert erasure_rows.erase(connection, "u", 2, scan)["quarantine"] == 1


def waiting(ask):
    """A thread that asks, and the list that its answer comes into."""
    found = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    return thread, found


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_scan_of_the_quarantine_waits_for_rows_under_way(database):
    def settled():
        with database.begin() as connection:
            return erasure_rows.settled_quarantine(connection)

    with database.begin() as connection:
        rejected_rows.add_rejections(connection, "file", [Rejection(0, "bad", "{}")], 1)
        thread, found = waiting(settled)
    thread.join(30)
    assert found == [1]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_an_erasure_beside_a_merge_takes_what_was_merged(database):
    def erase():
        with database.begin() as connection:
            return erasure_rows.erase(connection, "u", 2)

    with database.begin() as connection:
        one = check_event({"session_id": "s", "item_id": "i1"}, 10**15)
        event_rows.insert_events(connection, [one], 1)
    with database.begin() as connection:
        user_rows.merge(connection, "u", "s:s", 1)
        thread, found = waiting(erase)
    thread.join(30)
    assert (found[0]["events"], found[0]["aliases"]) == (1, 1)
    with database.connect() as connection:
        assert history_rows.history(connection, Owner("u"), limit=10).events == []


def posted(connection, *bodies):
    rows = [check_event({"item_id": "i", **body}, 10**15) for body in bodies]
    event_rows.insert_events(connection, rows, 1)


@pytest.mark.parametrize("asked", ["a", "b", "c"])
@pytest.mark.parametrize("merges", [("bc", "ab"), ("ab", "bc")])
def test_whoever_was_merged_goes_whichever_end_of_the_chain_is_named(database, asked, merges):
    with database.begin() as connection:
        posted(connection, *({"user_id": one} for one in "abcd"), {"session_id": "s"})
        user_rows.merge(connection, "c", "s:s", 1)
        for into, other in merges:
            user_rows.merge(connection, into, f"u:{other}", 1)
        rows = [Rejection(n, "bad", json.dumps({"who": one})) for n, one in enumerate("abcd")]
        rejected_rows.add_rejections(connection, "f", rows, 1, OwnerColumns("who"))
    with database.begin() as connection:
        keys = erasure_rows.person_keys(connection, asked)
        gone = erasure_rows.erase(connection, asked, 2)
        assert sorted(keys) == ["s:s", "u:a", "u:b", "u:c"]
        assert (gone["events"], gone["aliases"], gone["quarantine"]) == (4, 3, 3)
        assert tombstone_rows.is_erased(connection, [*keys, "u:d"]) == set(keys)
        assert user_rows.user_summary(connection, "d").events == 1


def test_only_a_row_whose_mapped_columns_name_the_user_goes(database):
    def reject(source, owners, *raws):
        with database.begin() as connection:
            rows = [Rejection(n, "bad", json.dumps(raw)) for n, raw in enumerate(raws)]
            rejected_rows.add_rejections(connection, source, rows, 1, owners)

    reject("log.csv", OwnerColumns("who", "visit"), {"who": "7", "n": 1}, {"who": "8", "n": "7"})
    reject("log.csv", OwnerColumns("who", "visit"), {"who": "8", "visit": "7"}, "7,x", "8,x")
    reject("log.json", OwnerColumns("by.id"), {"by": {"id": 7}}, {"by": {"id": 8}, "of": [7]})
    reject("items.csv", OwnerColumns(), {"item_id": "7", "price": "x"})
    reject("older.csv", None, {"who": "7"}, {"who": "8", "list": ["7"]}, {"who": "8"})
    with database.begin() as connection:
        assert erasure_rows.erase(connection, "7", 2)["quarantine"] == 5
        left = [json.loads(row["raw"]) for row in rejected_rows.list_rejected(connection)]
    assert left == [
        {"who": "8", "n": "7"},
        {"who": "8", "visit": "7"},
        "8,x",
        {"by": {"id": 8}, "of": [7]},
        {"item_id": "7", "price": "x"},
        {"who": "8"},
    ]
    reject("again.csv", OwnerColumns("who"), {"who": 7.0}, {"who": "8", "n": "7"}, ["7"])
    with database.connect() as connection:
        (kept,) = [
            row for row in rejected_rows.list_rejected(connection) if row["source"] == "again.csv"
        ]
    assert json.loads(kept["raw"]) == {"who": "8", "n": "7"}


def test_reports_of_quality_name_nobody_who_was_erased(database):
    facts = {"newest": {"busiest": [{"key": key, "events": 9} for key in ("u:a", "s:x", "u:b")]}}
    with database.begin() as connection:
        user_rows.merge(connection, "a", "s:x", 1)
        for day in range(3):
            quality_rows.put_report(connection, day * 24 * 3_600 * 10**6, facts)
    with database.begin() as connection:
        assert erasure_rows.erase(connection, "a", 2)["quality_reports"] == 3
        quality_rows.put_report(connection, 9 * 24 * 3_600 * 10**6, facts)  # begun before
        stored = connection.execute(quality_reports.select()).all()
    assert len(stored) == 4
    for row in stored:
        assert json.loads(row.facts)["newest"]["busiest"] == [{"key": "u:b", "events": 9}]


def test_what_is_kept_of_an_erased_sequence_is_a_keyed_hash(database):
    keys = ["u:a", "s:x"]
    plain = hash_texts([*keys, "u:old", "u:other"])
    with database.begin() as connection:
        user_rows.merge(connection, "a", "s:x", 1)
        older = plain[2:3].view(np.int64).item()  # as releases before wrote it down
        connection.execute(removed_sequences.insert(), {"sequence_hash": older, "removed_at_us": 1})
    last, removed = erasure_rows.removed_since(database, 0)
    assert erasure_rows.removed_test(database, removed)(plain).tolist() == [0, 0, 1, 0]
    with database.begin() as connection:
        erasure_rows.erase(connection, "a", 2)
    newest, removed = erasure_rows.removed_since(database, 0)
    assert newest == last + 2
    assert not set(removed) & set(plain.tolist())
    assert erasure_rows.removed_test(database, removed)(plain).tolist() == [1, 1, 1, 0]


def test_a_row_that_holds_half_a_character_can_be_looked_at(database):
    with database.begin() as connection:
        erasure_rows.erase(connection, "a", 1)
        rows = [Rejection(0, "bad", '{"who": "\\ud800"}'), Rejection(1, "bad", "[" * 4_000)]
        assert rejected_rows.add_rejections(connection, "f", rows, 1, OwnerColumns("who")) == 2
        assert erasure_rows.erase(connection, "b", 2)["quarantine"] == 0
        assert len(connection.execute(rejected_events.select()).all()) == 2
