"""Imports are listed and taken back: their events, their rows in quarantine, and what follows them."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from recsys import pipeline
from recsys.commands import imports
from recsys.errors import ConflictError, NotFoundError
from recsys.events.fields import Event
from recsys.events.times import to_us
from recsys.ingest.event_files import ColumnMap, ReadOptions
from recsys.sequence_store.store import SequenceStore
from recsys.storage.dashboard import activity_rows
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    answer_count_rows,
    click_rows,
    event_rows,
    import_rows,
    impression_rows,
    rejected_rows,
)
from recsys.storage.entities.audit_rows import CLI, list_audit
from recsys.storage.entities.event_rows import PopularityQuery
from recsys.storage.entities.import_rows import OpenImport
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import events

NOW = datetime(2025, 1, 2, tzinfo=UTC)
NOW_US = to_us(NOW)
COLUMNS = ColumnMap.parse("user=u,session=s,item=i,timestamp=t,event_id=e")
OPTIONS = ReadOptions(columns=COLUMNS, unit="s")
DAY = 1_700_000_000
HEADER = "u,s,i,t,e\n"


def load(database, folder, name, lines, options=OPTIONS):
    path = folder / name
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    return pipeline.import_events(database, path, options, NOW)


def undo(database, import_id):
    return imports.undo(database, CLI, import_id, NOW_US)


def stored(database):
    with database.connect() as connection:
        rows = connection.execute(select(events).order_by(events.c.id))
        return [(row.user_id, row.session_id, row.item_id, row.event_id) for row in rows]


def waiting(database):
    with database.connect() as connection:
        return rejected_rows.count_rejected(connection)


def test_an_import_is_taken_back_alone_and_can_be_made_again(database, tmp_path, monkeypatch):
    monkeypatch.setattr(import_rows, "UNDO_ROWS", 2)  # several transactions
    posted = Event("a", None, "x", "view", DAY * 10**6, "posted")
    with database.begin() as connection:
        event_rows.insert_events(connection, [posted], NOW_US)
    mine = [f"u{n},,x,{DAY + n},{n}" for n in range(5)]
    first = load(database, tmp_path, "one.csv", [*mine, "u9,,,5,9"])
    second = load(database, tmp_path, "two.csv", [*mine, f"v,,y,{DAY},7", "u8,,,5,9"])
    assert (first.accepted, second.accepted, second.duplicates) == (5, 1, 5)
    answer = undo(database, first.import_id)
    assert answer == {"import_id": first.import_id, "source": "one.csv"} | {
        "events": 5,
        "quarantined": 1,
    }
    assert stored(database) == [("a", None, "x", "posted"), ("v", None, "y", "7")]
    assert waiting(database) == 1
    with database.connect() as connection:
        newest, oldest = import_rows.list_imports(connection)
        line = list_audit(connection)[0]
    assert (newest.state, oldest.state) == ("finished", "undone")
    assert oldest.counts["accepted"] == 5
    assert newest.options == {"columns": COLUMNS.mapped(), "unit": "s"}
    assert (line.action, line.subject) == ("import.undo", str(first.import_id))
    assert line.details == {"source": "one.csv", "events": 5, "quarantined": 1}
    again = load(database, tmp_path, "one.csv", [*mine, "u9,,,5,9"])
    assert (again.accepted, again.rejected) == (5, 1)
    with pytest.raises(ConflictError, match="undone already"):
        undo(database, first.import_id)
    with pytest.raises(NotFoundError):
        undo(database, 99)


def test_what_follows_events_follows_an_undo(database, tmp_path):
    store = SequenceStore(tmp_path / "sequences", processes=1)
    kept = load(database, tmp_path, "kept.csv", [f"a,,x,{DAY},1"])
    wrong = load(database, tmp_path, "wrong.csv", [f"a,,y,{DAY + 9 * 86_400},2", f"b,,y,{DAY},3"])
    store.update(database)
    activity_rows.count_events(database, NOW_US)
    answer = impression_rows.Impression("r", 1, "b", None, "v", None, None, (("y", "lstm", 0.5),))
    with database.begin() as connection:
        impression_rows.insert_impressions(connection, [answer])
        named = events.c.event_id == "3"
        connection.execute(events.update().where(named).values(recommendation_id="r"))
        click_rows.attribute_clicks(connection, NOW_US + 1, 0, 100)
    undo(database, wrong.import_id)
    assert store.lags_behind_removals(database)
    assert store.update(database).rebuilt
    assert len(store.frame(database)) == 1
    assert not store.update(database).rebuilt
    with database.connect() as connection:
        assert activity_rows.event_total(connection).events == 1
        assert activity_rows.users_by_day(connection, 0, NOW_US)[0][1] == 1
        assert click_rows.clicks_of(connection, "r") == []
        counted = answer_count_rows.counts(connection, 0, NOW_US, ["source"])
        whole = answer_count_rows.counts(connection, 0, NOW_US, ["arm"])
        assert [row["clicks"] for row in (*counted, *whole)] == [0, 0]
        assert event_rows.popular_items(connection, PopularityQuery(0)) == [("x", 1)]
    assert kept.import_id != wrong.import_id


def test_rows_of_a_file_that_took_two_readings_are_its_imports(database, tmp_path):
    wrong = replace(OPTIONS, unit=None, timezone="UTC")
    lines = ["a,,x,2024-01-01 00:00:00,1", f"a,,y,{DAY},2"]
    first = load(database, tmp_path, "mixed.csv", lines, wrong)
    assert (first.accepted, first.rejected) == (1, 1)
    replayed = pipeline.replay_rejected(database, OPTIONS, None, NOW)
    assert replayed["accepted"] == 1
    assert undo(database, first.import_id)["events"] == 2
    assert stored(database) == []


def test_an_import_that_is_undone_while_it_runs_stores_nothing_more(database):
    running = OpenImport("slow.csv", NOW_US)
    with database.begin() as connection:
        number = running.begin(connection)
    undo(database, number)
    with pytest.raises(ConflictError, match="undone meanwhile"), database.begin() as connection:
        running.reach(connection)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A database for many examples, SQLite."""
    opened = Database(f"sqlite:///{tmp_path_factory.mktemp('imports')}/recsys.db")
    migrate.upgrade(opened)
    yield opened
    opened.close()


names = st.sampled_from(["a", "b", "7"])
rows = st.lists(
    st.tuples(st.none() | names, st.none() | names, st.sampled_from(["x", "y", ""]), names),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=st.lists(rows, min_size=1, max_size=3), taken=st.integers(0, 2))
def test_every_row_is_accounted_for_and_an_undo_leaves_what_the_others_stored(
    shared, tmp_path_factory, files, taken
):
    """By a slow reader: a row is its owner's and its id's, and its first file's."""
    with shared.begin() as connection:
        for table in ("events", "rejected_events", "imports"):
            connection.execute(text(f"DELETE FROM {table}"))
    folder, done, owned = tmp_path_factory.mktemp("files"), [], {}
    for number, lines in enumerate(files):
        csv = [f"{u or ''},{s or ''},{i},{DAY},{e}" for u, s, i, e in lines]
        fresh = {}
        for user, session, item, event_id in lines:
            if item and (user or session):
                key = (f"u:{user}" if user else f"s:{session}", event_id)
                if key not in owned:
                    fresh[key] = owned[key] = number
        # A file of which no row is read says so; the words for that are not of interest here.
        summary = load(shared, folder, f"{number}.csv", csv)
        assert summary.accepted == len(fresh)
        assert (
            summary.read
            == len(lines)
            == sum((summary.accepted, summary.duplicates, summary.rejected, summary.skipped))
        )
        done.append(summary.import_id)
    taken = min(taken, len(files) - 1)
    undo(shared, done[taken])
    left = {(f"u:{u}" if u else f"s:{s}", e) for u, s, _, e in stored(shared)}
    assert left == {key for key, number in owned.items() if number != taken}


def test_the_command_line_lists_and_takes_back(tmp_path, capsys, monkeypatch):
    from recsys.cli import main

    monkeypatch.setenv("RECSYS_DATABASE__URL", f"sqlite:///{tmp_path}/own.db")
    database = Database(f"sqlite:///{tmp_path}/own.db")
    migrate.upgrade(database)
    load(database, tmp_path, "log.csv", [f"a,,x,{DAY},1"])
    database.close()

    def run(*words):
        monkeypatch.setattr("sys.argv", ["recsys", "events", *words, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    (one,) = run("imports")["imports"]
    assert (one["source"], one["accepted"], one["state"]) == ("log.csv", 1, "finished")
    assert run("undo", str(one["import_id"]))["events"] == 1
    assert run("imports")["imports"][0]["state"] == "undone"
