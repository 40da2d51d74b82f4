"""Feedback of Gorse clients: what is stored, and that its lists are read through their indexes."""

from dataclasses import replace

import pytest
from sqlalchemy import event, text

from recsys.ingest.gorse_objects import feedback_event
from recsys.storage.entities import erasure_rows, feedback_rows, feedback_views
from recsys.storage.entities.feedback_views import Key

NOW_US = 10**15


def given(type="like", user="u", item="i", at_us=NOW_US, **more):
    row = {"FeedbackType": type, "UserId": user, "ItemId": item, **more}
    return replace(feedback_event(row, NOW_US), timestamp_us=at_us)


@pytest.fixture
def write(database):
    def write(*events, overwrite=False, now_us=NOW_US):
        with database.begin() as connection:
            return feedback_rows.write_feedback(connection, events, overwrite, now_us)

    return write


def test_every_row_is_accounted_for(database, write):
    with database.begin() as connection:
        erasure_rows.erase(connection, "gone", 1)
    later = NOW_US + 10**9
    first = write(given(), given(Value=9), given(item="j", at_us=later), given(user="gone"))
    assert (len(first.accepted), first.deferred, first.duplicates, first.rejected) == (1, 1, 0, 1)
    one = given(item="k", Value=1)
    assert len(write(one, overwrite=True).accepted) == 1
    assert write(one, overwrite=True).duplicates == 1
    assert write(one, overwrite=True, now_us=NOW_US + 5).duplicates == 1
    with database.begin() as connection:
        erasure_rows.erase(connection, "u", 2)
        assert feedback_views.of_pair(connection, "u", "j") == []  # what was deferred is gone too
        assert feedback_rows.enter_due(connection, later) == 0


def test_what_is_deferred_of_somebody_erased_meanwhile_does_not_enter(database, write):
    write(given(at_us=NOW_US + 10**9))
    with database.begin() as connection:
        waiting = feedback_views.of_pair(connection, "u", "i")
        erasure_rows.erase(connection, "u", 2)
        feedback_rows._defer(connection, [given(at_us=NOW_US + 10**9)])
        assert len(waiting) == 1
        assert feedback_rows.is_due(connection, NOW_US + 10**9, "u")
        assert feedback_rows.enter_due(connection, NOW_US + 10**9) == 0
        assert not feedback_rows.is_due(connection, NOW_US + 10**9)


def test_pages_join_without_a_gap(database, write):
    keys = sorted(Key(t, u, i) for t in ("a", "b") for u in ("u", "v") for i in ("1", "10", "2"))
    write(*(given(*key) for key in keys[::-1]))
    write(*(given(*key, Value=2) for key in keys))
    with database.connect() as connection:
        for size in (1, 5, 12):
            found, start = [], None
            while True:
                rows, start = feedback_views.page(connection, size, start)
                found += rows
                if start is None:
                    break
            assert [row.key for row in found] == keys
            assert {row.value for row in found} == {2.0}
        of_b, _ = feedback_views.page(connection, 2, Key("b", "v", "1"), "b")
        assert [row.key for row in of_b] == [Key("b", "v", "1"), Key("b", "v", "10")]


def test_lists_are_read_through_their_indexes(database, write):
    write(*(given(user=f"u{n % 7}", item=f"i{n}") for n in range(50)))
    seen = []

    def note(_connection, _cursor, statement, parameters, *_more):
        if "substr(event_id" in statement:
            seen.append((statement, parameters))

    key = Key("like", "u1", "i1")
    with database.connect() as connection:
        event.listen(database.engine, "before_cursor_execute", note)
        try:
            feedback_views.page(connection, 10, key)
            feedback_views.page(connection, 10, None, "like")
            feedback_views.of_item(connection, "i5")
            feedback_views.of_user(connection, "u5")
            feedback_views.of_pair(connection, "u5", "i5")
            feedback_rows._newest_ids(connection, [key])
        finally:
            event.remove(database.engine, "before_cursor_execute", note)
    assert len(seen) == 8
    explain = "EXPLAIN QUERY PLAN" if database.dialect == "sqlite" else "EXPLAIN"
    with database.begin() as connection:
        if database.dialect == "postgresql":  # it reads so few rows as they lie
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        for statement, parameters in seen:
            plan = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
            words = "\n".join(str(row[-1]) for row in plan)
            assert "SCAN events" not in words and "Seq Scan on events" not in words, words
            assert "INDEX" in words.upper()
