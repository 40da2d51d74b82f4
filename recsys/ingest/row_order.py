"""Order of a file's rows, oldest or newest first; it decides how rows of the same time follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import InputError
from recsys.ingest.event_parser import EventChunk

ORDERS = ("auto", "oldest-first", "newest-first")
_CLEAR = 9  # falling steps to one that rises


class RowOrder:
    """Positions of the rows of one file, chunk after chunk.

    Of a file whose newest row comes first, positions run backwards, from 0 down. `auto`: it is one
    where the times of each user's rows fall nine times as often as they rise, in the first chunk
    that shows either.
    """

    def __init__(self, order: str) -> None:
        if order not in ORDERS:
            raise InputError("--order", order, f"expected one of: {', '.join(ORDERS)}")
        self._auto = order == "auto"
        self._newest_first = None if self._auto else order == "newest-first"

    def applied(self, chunk: EventChunk) -> EventChunk:
        """`chunk` with the positions of its events."""
        if self._newest_first is False or not chunk.events.num_rows:
            return chunk
        notes = chunk.notes.copy()
        if self._auto:
            falling, rising = _steps(chunk.events)
            if self._newest_first is None:
                if not falling + rising:
                    return chunk
                self._newest_first = falling >= _CLEAR * max(rising, 0) and falling > 0
                if not self._newest_first:
                    return chunk
            elif rising > falling:
                notes["times rise after a beginning that falls: see --order"] += rising
        if self._auto:
            notes["newest first, so rows of one time are taken in reverse"] += chunk.events.num_rows
        at = chunk.events.schema.get_field_index("position")
        positions = pc.negate(chunk.events["position"])
        events = chunk.events.set_column(at, chunk.events.schema.field(at), positions)
        return replace(chunk, events=events, notes=notes)


def _steps(events: pa.Table) -> tuple[int, int]:
    """How often time falls and rises from a user's row to the next; of all rows if it never does."""
    owners = pc.coalesce(events["user_id"], events["session_id"]).combine_chunks()
    codes = owners.dictionary_encode().indices.to_numpy()
    times = events["timestamp_us"].to_numpy()
    order = np.argsort(codes, kind="stable")
    steps = np.diff(times[order])[np.diff(codes[order]) == 0]
    if not steps.any():
        steps = np.diff(times)
    return int((steps < 0).sum()), int((steps > 0).sum())
