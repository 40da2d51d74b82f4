"""Stores of the tiny shop's log, and what they are held against."""

from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys import pipeline
from recsys.events import large_arrays
from recsys.events.sequences import build_sequences
from recsys.ingest.event_files import ReadOptions
from recsys.sequence_store import store as store_module
from recsys.sequence_store.segment_frame import FRAME_DTYPES
from recsys.sequence_store.store import SequenceStore
from recsys.storage.entities.event_batches import read_frame

NOW = datetime(2025, 3, 2, tzinfo=UTC)


@pytest.fixture
def load(database, tiny_shop, tmp_path):
    """load(first, last): the shop's events at those places."""

    def load(first, last):
        path = tmp_path / "part.parquet"
        pq.write_table(tiny_shop.events.slice(first, last - first), path)
        pipeline.import_events(database, path, ReadOptions(), NOW)

    return load


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "CHUNK_IDS", 700)
    monkeypatch.setattr(store_module, "LOOK_BACK", 300)
    monkeypatch.setattr(large_arrays, "CHUNK", 256)
    return SequenceStore(tmp_path / "sequences", processes=1)


def told(frame):
    """Every sequence as (item, type, time, whether a session begins), in no order of users."""
    sequences = build_sequences(frame, 1_800)
    found = []
    for number in range(len(sequences)):
        part = slice(sequences.offsets[number], sequences.offsets[number + 1])
        found.append(
            tuple(
                (frame.item_ids[item], frame.type_names[kind], int(at), bool(start))
                for item, kind, at, start in zip(
                    sequences.items[part],
                    sequences.event_types[part],
                    sequences.timestamps_us[part],
                    sequences.session_starts[part],
                    strict=True,
                )
            )
        )
    return sorted(found)


def agree(store, database, since_us=0):
    frame = store.frame(database, since_us)
    assert told(frame) == told(read_frame(database, since_us))
    # The same where it is kept in files.
    large = SequenceStore(store._folder, large_events=-1).frame(database, since_us)
    assert large.folder is not None and frame.folder is None
    for name in FRAME_DTYPES:
        np.testing.assert_array_equal(getattr(large, name), getattr(frame, name))
    assert list(large.user_keys) == list(frame.user_keys)
    assert told(large) == told(frame)
