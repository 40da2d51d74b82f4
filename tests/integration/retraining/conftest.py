"""A log to train on, and settings for small trainings."""

from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from recsys import pipeline
from recsys.config import load_settings
from recsys.ingest.event_files import ReadOptions

NOW = datetime(2025, 3, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path):
    return load_settings(
        registry={"path": tmp_path / "models"},
        sequences={"input_event_types": ["view"], "target_event_types": ["view"], "max_length": 20},
        model={"width": 16},
        training={"epochs": 4, "batch_events": 128, "threads": 1, "warm_start": False},
        evaluation={"bootstrap_draws": 100, "window_share": 0.2},
        serving={"exclude_seen": "none"},  # seen items come back here, which is what is learned
        promotion={"min_positions": 200, "learn_window": False, "guard_min_answers": 1_000},
    )


@pytest.fixture
def load(database, tiny_shop, tmp_path):
    """load(first, last): the shop's events of that share of its time."""
    events = tiny_shop.events.sort_by("timestamp_us")

    def load(first, last):
        part = events.slice(int(first * len(events)), int((last - first) * len(events)))
        path = tmp_path / "part.parquet"
        pq.write_table(part, path)
        pipeline.import_events(database, path, ReadOptions(), NOW)

    return load
