"""The whole log at once, from whichever tables it lies in: as an event frame, or as rows to write out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.config import Settings
from recsys.events.fields import EVENT_COLUMNS
from recsys.events.frame import EventFrame, EventFrameBuilder
from recsys.events.identity import hash_texts, key_hashes, mixed, positions_of
from recsys.storage.engine.database import Database
from recsys.storage.entities.event_reading import (
    EXPORT_COLUMNS,
    SEQUENCE_COLUMNS,
    all_aliases,
    read_batches,
    read_frame,
)
from recsys.storage.event_source import EventSource
from recsys.storage.external.external_rows import ExternalRows

OWN_COLUMNS = f"{SEQUENCE_COLUMNS}, event_id"


def frame_since(
    settings: Settings, database: Database, now_us: int, since_us: int = 0
) -> EventFrame:
    """All events since `since_us` as an event frame; ids merged into a user count as that user.

    Raises StorageUnavailableError where a database cannot be read.
    """
    source = EventSource(settings, database)
    rows = source.rows()
    if rows is None:
        return read_frame(database, since_us=since_us)
    builder, ids = EventFrameBuilder(), _EventIds()
    for batch in _mapped_batches(source, rows, database, now_us, since_us):
        builder.append(ids.unseen(batch) if source.reads_own else batch)
    if source.reads_own:
        for batch in read_batches(database, OWN_COLUMNS, since_us):
            builder.append(ids.unseen(batch))
    frame = builder.build(all_aliases(database))
    if rows.mapping.identity == "order":
        return frame
    return replace(frame, positions=_content_positions(frame))


def export_batches(settings: Settings, database: Database, now_us: int) -> Iterator[pa.RecordBatch]:
    """Every event with all that is stored of it."""
    source = EventSource(settings, database)
    rows = source.rows()
    ids = _EventIds()
    if rows is not None:
        for batch in _mapped_batches(source, rows, database, now_us):
            kept = ids.unseen(batch) if source.reads_own else batch
            columns = [kept.column(name) for name in EVENT_COLUMNS]
            yield pa.record_batch(columns, names=EVENT_COLUMNS)
    if source.reads_own:
        for batch in read_batches(database, EXPORT_COLUMNS, in_order=True):
            yield ids.unseen(batch) if rows is not None else batch


def _mapped_batches(
    source: EventSource, rows: ExternalRows, database: Database, now_us: int, since_us: int = 0
) -> Iterator[pa.RecordBatch]:
    with database.connect() as connection:
        hidden = source.hidden(connection)
    if since_us > 0:
        yield from rows.batches(now_us, since_us=since_us, hidden=hidden)
        return
    for chunk in rows.chunks(None, rows.end()):
        yield from rows.batches(now_us, chunk, hidden=hidden)


class _EventIds:
    """Ids of events that were read, so that one which is in two tables is taken once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def unseen(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        owners = pc.coalesce(batch.column("user_id"), batch.column("session_id"))
        ids = key_hashes(batch.column("event_id"))
        hashes = np.where(ids == 0, ids, mixed(key_hashes(owners), ids)).tolist()
        kept = np.ones(len(hashes), np.bool_)
        for at, number in enumerate(hashes):
            if number and number in self._seen:
                kept[at] = False
            self._seen.add(number)
        return batch if kept.all() else batch.filter(pa.array(kept))


def _content_positions(frame: EventFrame) -> np.ndarray:
    """Positions as the sequence files have them for a table without an order column."""
    users, items = hash_texts(frame.user_keys), hash_texts(frame.item_ids)
    types = hash_texts(frame.type_names)
    hashes = mixed(
        users[frame.users],
        frame.sessions,
        items[frame.items],
        types[frame.event_types],
        frame.timestamps_us.view(np.uint64),
    )
    return positions_of(hashes, repeats=True)
