"""A table of the user's own is read as the service's would be."""

import pickle
from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys import pipeline
from recsys.config import Settings
from recsys.errors import ConfigError, ConflictError
from recsys.ingest.event_files import ReadOptions
from recsys.sequence_store import store
from recsys.sequence_store.segments import read_manifest
from recsys.sequence_store.store import SequenceStore
from recsys.storage.entities import erasure_rows
from recsys.storage.external import external_rows
from recsys.storage.external.external_events import ExternalEvents
from recsys.training.run import Run

NOW = datetime(2025, 3, 2, tzinfo=UTC)


def files(folder):
    """Everything that the sequence files hold, columns by their hashes."""
    manifest, items = read_manifest(folder)
    return items, manifest.type_names, [segment.sha256 for segment in manifest.segments]


def test_files_are_the_same_whoever_reads_the_ranges(
    two_clicks, own, tiny_shop, tmp_path, monkeypatch
):
    """As a cluster's tasks read them: functions that were pickled, in the order they were given."""
    monkeypatch.setattr(external_rows, "CHUNK_ROWS", 500)
    two_clicks.index()
    two_clicks.fill(tiny_shop.events.slice(0, 2_000))
    asked = []

    def elsewhere(reads):
        asked.append(len(reads))
        return (pickle.loads(pickle.dumps(read))() for read in reads)

    for folder, read_ranges in ((tmp_path / "here", None), (tmp_path / "elsewhere", elsewhere)):
        rows = ExternalEvents(two_clicks.settings(folder), own).rows()
        assert SequenceStore(folder, 1, rows, read_ranges).update(own).rows == 2_000
    assert files(tmp_path / "here") == files(tmp_path / "elsewhere")
    assert asked == [4] and len(files(tmp_path / "here")[2]) == 4


@pytest.fixture
def load(own, tiny_shop, tmp_path):
    """The shop's log in the service's own table."""
    path = tmp_path / "log.parquet"
    pq.write_table(tiny_shop.events, path)
    pipeline.import_events(own, path, ReadOptions(), NOW)


def test_the_same_log_gives_the_same_bytes_in_every_database(
    click_tables, store_of, tmp_path, own, load, tiny_shop, monkeypatch
):
    monkeypatch.setattr(external_rows, "CHUNK_ROWS", 1_000)
    monkeypatch.setattr(store, "CHUNK_IDS", 1_000)
    SequenceStore(tmp_path / "own", 1).update(own)
    expected = files(tmp_path / "own")
    assert len(expected[2]) == -(-tiny_shop.events.num_rows // 1_000)
    for kind in ("sqlite", "postgresql", "mysql"):
        with click_tables(kind) as clicks:
            # The order in which rows lie in the table is not that of their numbers.
            shuffled = np.random.default_rng(5).permutation(tiny_shop.events.num_rows)
            clicks.fill(tiny_shop.events.take(shuffled), numbers=[int(n) + 1 for n in shuffled])
            settings = clicks.settings(tmp_path / kind)
            store_of(settings, own, processes=2 if kind == "postgresql" else 1).update(own)
            assert files(tmp_path / kind / ".sequences") == expected, kind


@pytest.mark.parametrize(
    "two_clicks", [pytest.param("sqlite", marks=pytest.mark.slow), "postgresql"], indirect=True
)
def test_metrics_are_those_of_the_own_table(own, load, two_clicks, tmp_path, tiny_shop):
    two_clicks.fill(tiny_shop.events)
    theirs = two_clicks.settings(tmp_path / "theirs", tiny_shop)
    ours = two_clicks.settings(tmp_path / "ours", tiny_shop)
    ours = ours.model_copy(update={"events": Settings().events})
    first = pipeline.train(ours, own, Run(NOW), promote=False)
    second = pipeline.train(theirs, own, Run(NOW), promote=False)
    assert first.evaluation.metrics == second.evaluation.metrics
    assert first.facts.window == second.facts.window


def test_what_is_new_is_read_alone_and_late_rows_are_found(
    tmp_path, own, tiny_shop, clicks, store_of
):
    clicks.fill(tiny_shop.events.slice(0, 2_000))
    store = store_of(clicks.settings(tmp_path / "models", look_back_rows=500), own)
    assert store.update(own).new_rows == 2_000
    assert store.update(own).new_rows == 0
    clicks.fill(tiny_shop.events.slice(2_100, 900), first=2_101)
    assert store.update(own).new_rows == 900
    clicks.fill(tiny_shop.events.slice(2_000, 100), first=2_001)  # late, under lower numbers
    assert store.update(own).new_rows == 0  # further back than 500 rows ...
    wider = store_of(clicks.settings(tmp_path / "models", look_back_rows=1_500), own)
    assert wider.update(own).new_rows == 100  # ... and found with a longer look-back
    assert len(wider.frame(own)) == 3_000


def test_without_an_order_column_the_time_tells_what_is_new(
    tmp_path, own, tiny_shop, clicks, store_of, monkeypatch
):
    monkeypatch.setattr(external_rows, "CHUNK_ROWS", 700)
    settings = clicks.settings(tmp_path / "models", order_column="", look_back_seconds=7_200)
    store = store_of(settings, own)
    events = tiny_shop.events.sort_by("timestamp_us")
    clicks.fill(events.slice(0, 2_000))
    assert store.update(own).new_rows == 2_000
    assert store.update(own).new_rows == 0
    clicks.fill(events.slice(2_000, 500), first=2_001)
    clicks.fill(events.slice(2_480, 20), first=5_001)  # said twice: a repeat, and it counts
    assert store.update(own).new_rows == 520
    clicks.fill(events.slice(2_499, 1), first=6_001)
    assert store.update(own).new_rows == 1
    whole = store.frame(own)
    fresh = store_of(
        clicks.settings(tmp_path / "anew", order_column="", look_back_seconds=7_200), own
    )
    fresh.update(own)
    for name in ("timestamps_us", "positions"):
        found = [np.sort(getattr(frame, name)) for frame in (whole, fresh.frame(own))]
        assert (found[0] == found[1]).all()
    assert len(np.unique(whole.positions)) == len(whole) == 2_521


def test_a_table_that_was_emptied_is_read_anew(tmp_path, own, tiny_shop, two_clicks, store_of):
    two_clicks.fill(tiny_shop.events.slice(0, 100))
    store = store_of(two_clicks.settings(tmp_path / "models"), own)
    store.update(own)
    two_clicks.run('DELETE FROM "Click Log"')
    two_clicks.fill(tiny_shop.events.slice(100, 30))
    lines = []
    done = store.update(own, lines.append)
    assert (done.rebuilt, done.rows) == (True, 30)
    assert "less than was read" in lines[0]


def test_an_order_that_is_not_unique_stops_the_reading(tmp_path, own, tiny_shop, store_of, clicks):
    quote = "`" if clicks.kind == "mysql" else '"'
    clicks.fill(tiny_shop.events.slice(0, 50))
    clicks.run(
        f"CREATE VIEW twice AS SELECT * FROM {quote}Click Log{quote} UNION ALL "
        f"SELECT * FROM {quote}Click Log{quote}"
    )
    store = store_of(clicks.settings(tmp_path / "models", table="twice"), own)
    with pytest.raises(
        ConfigError, match=r"events\.order_column = 'No': 1 stands in more than one"
    ):
        store.update(own)


def test_an_erased_user_is_hidden_from_training_and_exports(
    tmp_path, own, tiny_shop, clicks, store_of
):
    clicks.fill(tiny_shop.events)
    settings = clicks.settings(tmp_path / "models")
    store = store_of(settings, own)
    store.update(own)
    gone = tiny_shop.events["user_id"].drop_null()[0].as_py()
    rows = tiny_shop.events["user_id"].to_pylist().count(gone)
    with own.begin() as connection:
        erasure_rows.erase(connection, gone, 1)
    store.update(own)
    assert len(store.frame(own)) == tiny_shop.events.num_rows - rows
    store.forget()  # built anew from the table, which still holds the rows
    store.update(own)
    assert len(store.frame(own)) == tiny_shop.events.num_rows - rows
    out = tmp_path / "out.parquet"
    assert pipeline.export_events(settings, own, out, NOW) == tiny_shop.events.num_rows - rows
    assert gone not in pq.read_table(out)["user_id"].to_pylist()


def test_posts_beside_the_table_count_once(tmp_path, own, load, tiny_shop, two_clicks, store_of):
    """The own table holds all of the log, the mapped one its first half under the same event ids."""
    with own.connect() as connection:
        known = connection.exec_driver_sql("SELECT event_id FROM events ORDER BY id").scalars()
        ids = list(known)
    half = tiny_shop.events.slice(0, 2_000)
    place = half.schema.get_field_index("event_id")
    half = half.set_column(place, "event_id", [ids[:2_000]])
    two_clicks.fill(half)
    both = {"event_id_column": "eid", "accept_posts": True}
    store = store_of(two_clicks.settings(tmp_path / "models", **both), own)
    assert store.update(own).rows == tiny_shop.events.num_rows
    settings = two_clicks.settings(tmp_path / "models", **both)
    out = tmp_path / "out.parquet"
    assert pipeline.export_events(settings, own, out, NOW) == tiny_shop.events.num_rows


def test_imports_are_refused_where_they_would_not_count(own, two_clicks, tmp_path):
    from recsys.storage.external.external_events import ExternalEvents

    with pytest.raises(ConflictError, match=r"events\.accept_posts"):
        ExternalEvents(two_clicks.settings(tmp_path / "models"), own).check_writable()
