"""Real logs, where they are at hand: every row is accounted for."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from recsys.events.identity import content_hashes
from recsys.ingest.event_files import ColumnMap, EventChunk, ReadOptions, read_events
from recsys.ingest.item_files import ItemMap, ItemOptions, read_items

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("TEST_DATA_DIR", ROOT.parent / "shared" / "data"))
NOW_US = 1_760_000_000_000_000


def log(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{name} is not in TEST_DATA_DIR")
    return path


def read(name: str, options: ReadOptions) -> list[EventChunk]:
    chunks = list(read_events(log(name), options, NOW_US, 50_000))
    for chunk in chunks:
        assert chunk.read == chunk.events.num_rows + len(chunk.rejections) + chunk.skipped
    return chunks


def test_bol_clicks() -> None:
    columns = ColumnMap.parse("session=SessionId,item=ItemId,timestamp=Time")
    chunks = read("bol_clicks.parquet", ReadOptions(columns=columns, unit="s"))
    events = pa.concat_tables(chunk.events for chunk in chunks)
    assert sum(chunk.read for chunk in chunks) == events.num_rows == 116_285
    assert len(events["session_id"].unique()) == 24_385
    assert len(events["item_id"].unique()) == 18_009
    assert events["position"].to_pylist() == list(range(116_285))


def test_online_retail() -> None:
    columns = ColumnMap.parse("user=CustomerID,item=StockCode,timestamp=InvoiceDate")
    chunks = read("online_retail.parquet", ReadOptions(columns=columns, where=("Quantity>0",)))
    reasons = Counter(rejection.reason for chunk in chunks for rejection in chunk.rejections)
    assert sum(chunk.read for chunk in chunks) == 541_909
    assert sum(chunk.skipped for chunk in chunks) == 10_624
    assert reasons == {"user_id and session_id are both missing": 133_361}
    assert sum(chunk.events.num_rows for chunk in chunks) == 397_924


def test_movietweetings() -> None:
    columns = ColumnMap.parse("user=user_id,item=imdb_id,timestamp=ts,value=rating")
    chunks = read("movietweetings_ratings.parquet", ReadOptions(columns=columns, unit="s"))
    events = pa.concat_tables(chunk.events for chunk in chunks)
    assert events.num_rows == 141_695
    assert len(events["user_id"].unique()) == 21_081
    assert "0444778" in events["item_id"].to_pylist()[:10]  # leading zeros stay
    hashes = content_hashes(events)
    assert len(hashes) == events.num_rows

    films = ItemMap.parse("item=imdb_id,title=title,categories=genres")
    items = list(read_items(log("movietweetings_movies.parquet"), ItemOptions(films)))
    assert sum(chunk.read for chunk in items) == 12_611
    assert [rejection for chunk in items for rejection in chunk.rejections] == []
    assert items[0].items[1].categories == ("Short", "Horror", "Sci-Fi")
