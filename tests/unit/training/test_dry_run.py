"""The dry run says what is in a log, and is not fooled about its order."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.cli.dry_run_page import html_of, text_of
from recsys.config import Settings
from recsys.events.identity import hash_texts
from recsys.events.log_sample import LogSample
from recsys.ingest.event_files import ColumnMap, ReadOptions
from recsys.storage.engine.database import Database
from recsys.storage.schema import migrate
from recsys.training.dry_run import SampleSizes, check_log

WHOLE = SampleSizes()
NOW = datetime(2025, 3, 2, tzinfo=UTC)
START_US = 1_735_689_600_000_000


@pytest.fixture
def own(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/recsys.db")
    migrate.upgrade(database)
    yield database
    database.close()


def log(users=400, length=12, order=True, seed=3, items=40):
    """Walks in which each item has one follower; or the same items in no order."""
    rng = np.random.default_rng(seed)
    follower = rng.permutation(items)
    rows = []
    for user in range(users):
        item, at = int(rng.integers(items)), START_US + user * 600_000_000
        for _ in range(length):
            rows.append((f"u{user}", f"i{item}", at))
            item = int(follower[item]) if order else int(rng.integers(items))
            at += 60_000_000
    users_, items_, times = zip(*rows, strict=True)
    return pa.table({"u": users_, "i": items_, "t": times})


def report(own, tmp_path, table, sizes=WHOLE, **options):
    path = tmp_path / "log.parquet"
    pq.write_table(table, path)
    chosen = ReadOptions(columns=ColumnMap.parse("user=u,item=i,timestamp=t"), unit="us", **options)
    return check_log(Settings(), own, NOW, path, chosen, sizes=sizes)


def test_order_is_found_where_there_is_some_and_not_where_there_is_none(own, tmp_path):
    found = report(own, tmp_path, log())
    signal = found["signal"]
    assert signal["carries_signal"] is True
    assert signal["results"]["transitions"]["mrr@20"] > 0.99
    assert signal["times"] > 1.5
    assert signal["verdict"].startswith("sequences carry signal")
    assert (found["rows_read"], found["rows_dropped"], found["users"], found["items"]) == (
        4_800,
        0,
        400,
        40,
    )
    shuffled = report(own, tmp_path, log(order=False))["signal"]
    assert shuffled["carries_signal"] is False
    assert shuffled["verdict"].startswith(("no signal found", "little signal"))
    little = report(own, tmp_path, log(users=3))["signal"]
    assert little["carries_signal"] is None and "too little to say" in little["verdict"]
    assert report(own, tmp_path, log().slice(0, 1))["rows_read"] == 1


def test_figures_are_those_of_the_log(own, tmp_path):
    table = pa.table(
        {
            "u": ["a"] * 4 + ["b"] * 2 + [None] + ["bot"] * 300,
            "i": ["x", "x", "y", "x", "z", "", "y"] + ["x"] * 300,
            "t": [0, 0, 5, 86_400, 10, 20, 30] + [i // 5 for i in range(300)],
        }
    )
    table = table.set_column(2, "t", pa.array(np.array(table["t"]) * 1_000_000 + START_US))
    found = report(own, tmp_path, table)
    assert (found["rows_read"], found["rows_kept"]) == (307, 305)
    reasons = {one["reason"]: one["rows"] for one in found["dropped"]}
    assert reasons == {"item_id is missing": 1, "user_id and session_id are both missing": 1}
    sequences = found["sequences"]
    assert sequences["sequences"] == 3
    lengths = {one["length"]: one["sequences"] for one in sequences["lengths"]}
    assert (lengths["1"], lengths["3-4"], lengths["200-499"]) == (1, 1, 1)
    gaps = {one["gap"]: one["steps"] for one in sequences["gaps"]}
    assert gaps["same time"] == 1 + 240 and gaps["1 to 24 h"] == 1 and gaps["1 to 10 s"] == 1
    assert sequences["bot_like_users"] == 1
    assert sequences["same_item_again_share"] == pytest.approx(300 / 302, abs=1e-4)
    assert sequences["earlier_item_again_share"] == pytest.approx(1 / 302, abs=1e-4)
    assert [one["day"] for one in found["by_day"]] == ["2025-01-01", "2025-01-02"]


def test_a_large_log_is_judged_by_whole_users(own, tmp_path):
    whole = report(own, tmp_path, log(users=2_000))
    found = report(own, tmp_path, log(users=2_000), SampleSizes(5_000, 3_000))
    assert found["rows_kept"] == whole["rows_read"] == 24_000
    assert found["sample"]["share_of_users"] < 0.3 and found["sample"]["events"] <= 5_000
    assert found["signal"]["sample"]["events"] <= 3_000
    assert found["users_are_estimated"] and 1_500 < found["users"] < 2_500
    assert found["sequences"]["median_length"] == 12  # users are whole
    assert "sample for sequences" in text_of(found)


def test_a_sample_is_the_same_however_the_log_is_cut():
    table = log(users=500)
    names = {"u": "user_id", "i": "item_id", "t": "timestamp_us"}
    batch = table.rename_columns([names[n] for n in table.column_names]).combine_chunks()
    nothing = pa.nulls(len(batch), pa.string())
    views = pa.array(["view"] * len(batch))
    batch = batch.append_column("session_id", nothing).append_column("event_type", views)
    users = []
    for size in (100, 6_000):
        sample = LogSample(1_000)
        for at in range(0, len(batch), size):
            sample.append(batch.slice(at, size))
        frame, share = sample.frame()
        users.append((set(frame.user_keys), share))
    assert users[0] == users[1]
    known = {f"#{h:016x}" for h in hash_texts([f"u:u{n}" for n in range(500)]).tolist()}
    assert users[0][0] < known


def test_the_page_stands_alone_and_escapes_what_it_shows(own, tmp_path):
    table = log(users=300)
    table = table.set_column(
        1, "i", pa.array(["<script>x\n</script>", *table["i"].to_pylist()[1:]])
    )
    found = report(own, tmp_path, table, default_type="<b>view")
    page = html_of(found)
    assert "<script" not in page and "<b>view" not in page and "&lt;b&gt;view" in page
    assert "&lt;script&gt;" in page  # the reason shows the row's own value
    for sign in ("http://", "https://", "src=", "url(", "@import"):
        assert sign not in page
    assert page.count("<svg") >= 5 and "prefers-color-scheme: dark" in page
    assert "verdict: " in text_of(found)
