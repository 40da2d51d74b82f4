"""`recsys bench train`, simulated and on a log."""

import pyarrow.compute as pc
import pyarrow.parquet as pq


def test_each_size_of_a_catalogue_is_timed(measure):
    trained = measure("train", "--items", "500,5000", "--events", 5_000, "--epochs", 1)
    assert [run["items"] for run in trained["runs"]] == [500, 5_000]
    assert 0 < trained["share_of_limit"] < 1


def test_seconds_to_a_goal_are_told(measure, tmp_path, tiny_shop):
    events = tiny_shop.events
    views = events.filter(pc.equal(events["event_type"], "view"))
    pq.write_table(views, tmp_path / "log.parquet")
    times = sorted(views["timestamp_us"].to_pylist())
    cut = times[int(len(times) * 0.8)]
    columns = "session=session_id,item=item_id,timestamp=timestamp_us"
    fast = measure(
        *("train", "--data", "log.parquet", "--cut", cut, "--map", columns),
        *("--unit", "us", "--reach", "0.01,0.001"),
    )
    assert fast["seconds_to_goal"] == fast["curve"][0]["seconds"]
