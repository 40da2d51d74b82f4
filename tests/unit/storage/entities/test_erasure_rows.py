"""Erasing a user."""

import json
import threading

import pytest

from recsys.ingest.event_body import check_event
from recsys.ingest.raw_rows import Rejection
from recsys.storage.entities import (
    erasure_rows,
    event_rows,
    history_rows,
    rejected_rows,
    tombstone_rows,
    user_rows,
)


def test_an_erasure_reads_of_the_quarantine_only_what_came_since_its_scan(database, monkeypatch):
    def reject(*users):
        with database.begin() as connection:
            rows = [Rejection(n, "bad", json.dumps({"user": user})) for n, user in enumerate(users)]
            rejected_rows.add_rejections(connection, f"of {users}", rows, 1)

    read = []
    values = tombstone_rows.plain_values
    monkeypatch.setattr(erasure_rows, "plain_values", lambda raw: read.append(raw) or values(raw))
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
        assert history_rows.history(connection, "u", limit=10).events == []
