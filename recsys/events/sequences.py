"""Event frame -> one time-ordered sequence of item codes for each user or session.

Legend: E events, N sequences, B histories.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recsys.events.array_types import BoolArray, Int16Array, Int32Array, Int64Array
from recsys.events.frame import EventFrame
from recsys.events.large_arrays import (
    allocate,
    chunks,
    compress,
    kth_smallest,
    look_up,
    select_keys,
)


@dataclass(frozen=True)
class Sequences:
    """N sequences laid end to end; sequence n is the slice offsets[n]:offsets[n + 1]."""

    offsets: Int64Array  # (N + 1,)
    items: Int32Array  # (E,) item codes of the frame, or item indices once encoded
    event_types: Int16Array  # (E,) codes into EventFrame.event_types
    timestamps_us: Int64Array  # (E,)
    session_starts: BoolArray  # (E,) True at the first event of each session
    keys: Sequence[str]  # (N,) 'u:<user_id>' or 's:<session_id>'
    folder: Path | None = None  # where arrays made from these go; None = into memory

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> Int32Array:
        return self.items[self.offsets[number] : self.offsets[number + 1]]

    @property
    def lengths(self) -> Int64Array:
        return np.diff(self.offsets)

    @property
    def event_count(self) -> int:
        return len(self.items)

    def owners(self) -> Int64Array:
        """The sequence number of each event; shape (E,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def keep(self, mask: BoolArray) -> Sequences:
        """Keep the events where `mask` (E,) is True; sequences left empty are dropped."""
        counts = np.zeros(0, np.int64)
        if len(self):
            counts = np.add.reduceat(mask, self.offsets[:-1], dtype=np.int64)
        kept = np.flatnonzero(counts)
        return Sequences(
            offsets=np.concatenate(([0], np.cumsum(counts[kept]))).astype(np.int64),
            items=compress(self.items, mask, self.folder),
            event_types=compress(self.event_types, mask, self.folder),
            timestamps_us=compress(self.timestamps_us, mask, self.folder),
            session_starts=compress(self.session_starts, mask, self.folder),
            keys=select_keys(self.keys, kept),
            folder=self.folder,
        )

    def newest(self, limit: int) -> Sequences:
        """About the newest `limit` events (ties in time stay together), in memory."""
        events = self.event_count
        if events <= limit:
            return self
        since_us = kth_smallest(self.timestamps_us, events - limit)
        return replace(self, folder=None).keep(self.timestamps_us >= since_us)

    def recode(self, table: Int32Array) -> Sequences:
        """The same sequences with item code c replaced by table[c]."""
        return replace(self, items=look_up(table, self.items, self.folder))

    def histories(self) -> Histories:
        """Each whole sequence as one history."""
        return self.slices(self.offsets[:-1], self.offsets[1:])

    def slices(self, starts: Int64Array, ends: Int64Array) -> Histories:
        """Histories items[starts[b]:ends[b]] that share this object's arrays."""
        return Histories(
            items=self.items,
            event_types=self.event_types,
            timestamps_us=self.timestamps_us,
            session_starts=self.session_starts,
            starts=starts,
            ends=ends,
        )


@dataclass(frozen=True)
class Histories:
    """B histories, oldest event first, each a slice of shared arrays: the input of every ranker."""

    items: Int32Array  # (E,) item indices of a vocabulary
    event_types: Int16Array  # (E,)
    timestamps_us: Int64Array  # (E,)
    session_starts: BoolArray  # (E,)
    starts: Int64Array  # (B,)
    ends: Int64Array  # (B,) exclusive

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int) -> Int32Array:
        return self.items[self.starts[number] : self.ends[number]]

    def batch(self, first: int, last: int) -> Histories:
        return replace(self, starts=self.starts[first:last], ends=self.ends[first:last])

    def with_types(self, table: Int16Array) -> Histories:
        """The same histories with event type code c replaced by table[c]."""
        return replace(
            self, event_types=table[self.event_types] if len(table) else self.event_types
        )

    def select(self, numbers: Int64Array) -> Histories:
        """The histories at `numbers`."""
        return replace(self, starts=self.starts[numbers], ends=self.ends[numbers])

    def last(self, length: int) -> Histories:
        """The same histories cut to their newest `length` events."""
        return replace(self, starts=np.maximum(self.starts, self.ends - length))

    @classmethod
    def from_lists(cls, histories: Iterable[Sequence[int] | Int32Array]) -> Histories:
        """Histories of bare item indices, without types, times or sessions."""
        arrays = [np.asarray(history, dtype=np.int32) for history in histories]
        items = np.concatenate(arrays) if arrays else np.empty(0, np.int32)
        ends = np.cumsum([len(array) for array in arrays], dtype=np.int64)
        starts = ends - np.array([len(array) for array in arrays], dtype=np.int64)
        events = len(items)
        return cls(
            items=items,
            event_types=np.zeros(events, np.int16),
            timestamps_us=np.zeros(events, np.int64),
            session_starts=np.zeros(events, np.bool_),
            starts=starts,
            ends=ends,
        )


def build_sequences(frame: EventFrame, session_gap_seconds: float) -> Sequences:
    """Order `frame` by (timestamp, source position) within each user or session.

    Source positions are unique in a frame, so a tie in time can go no further. A session starts at
    a sequence's first event, where the session id changes, and after a gap longer than
    `session_gap_seconds`.
    """
    if not frame.ordered:
        order = np.lexsort((frame.positions, frame.timestamps_us, frame.users))
        columns = ("users", "items", "event_types", "sessions", "timestamps_us", "positions")
        frame = replace(frame, **{name: getattr(frame, name)[order] for name in columns})
    users, sessions, timestamps_us = frame.users, frame.sessions, frame.timestamps_us
    first = np.ones(len(users), np.bool_)
    session_starts = allocate(len(users), np.bool_, frame.folder)
    session_starts[:1] = True
    for part in chunks(len(users) - 1):
        here, before = slice(part.start + 1, part.stop + 1), part
        np.not_equal(users[here], users[before], out=first[here])
        session_starts[here] = (
            first[here]
            | (sessions[here] != sessions[before])
            | (timestamps_us[here] - timestamps_us[before] > session_gap_seconds * 1e6)
        )
    heads = np.flatnonzero(first)
    return Sequences(
        offsets=np.append(heads, len(users)).astype(np.int64),
        items=frame.items,
        event_types=frame.event_types,
        timestamps_us=timestamps_us,
        session_starts=session_starts,
        keys=select_keys(frame.user_keys, users[heads].astype(np.int64)),
        folder=frame.folder,
    )
