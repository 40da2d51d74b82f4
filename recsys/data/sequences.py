"""Event frame -> one time-ordered index array a user or session.

Legend: E events, N sequences, B histories.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys.data.events import EventFrame

Int8Array = NDArray[np.int8]
Int16Array = NDArray[np.int16]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Sequences:
    """N sequences laid end to end; sequence n is the slice offsets[n]:offsets[n + 1]."""

    offsets: Int64Array  # (N + 1,)
    items: Int32Array  # (E,) item codes of the frame, or item indices once encoded
    event_types: Int16Array  # (E,) codes into EventFrame.event_types
    timestamps_us: Int64Array  # (E,)
    session_starts: BoolArray  # (E,) True at the first event of each session
    keys: list[str]  # (N,) 'u:<user_id>' or 's:<session_id>'

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
        """Only the events where `mask` (E,) is True; sequences left empty are dropped."""
        owners = self.owners()[mask]
        counts = np.bincount(owners, minlength=len(self))
        kept = np.flatnonzero(counts)
        return Sequences(
            offsets=np.concatenate(([0], np.cumsum(counts[kept]))).astype(np.int64),
            items=self.items[mask],
            event_types=self.event_types[mask],
            timestamps_us=self.timestamps_us[mask],
            session_starts=self.session_starts[mask],
            keys=[self.keys[number] for number in kept],
        )

    def recode(self, table: Int32Array) -> Sequences:
        """The same sequences with item code c replaced by table[c]."""
        return replace(self, items=table[self.items])

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
    """B histories, oldest event first, each a slice of shared arrays: what every ranking is given."""

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
    order = np.lexsort((frame.positions, frame.timestamps_us, frame.users))
    users = frame.users[order]
    timestamps_us = frame.timestamps_us[order]
    sessions = frame.sessions[order]
    first = np.empty(len(users), np.bool_)
    session_starts = np.empty(len(users), np.bool_)
    if len(users):
        first[0] = True
        np.not_equal(users[1:], users[:-1], out=first[1:])
        session_starts[0] = True
        session_starts[1:] = (
            first[1:]
            | (sessions[1:] != sessions[:-1])
            | (np.diff(timestamps_us) > session_gap_seconds * 1e6)
        )
    heads = np.flatnonzero(first)
    return Sequences(
        offsets=np.append(heads, len(users)).astype(np.int64),
        items=frame.items[order],
        event_types=frame.event_types[order],
        timestamps_us=timestamps_us,
        session_starts=session_starts,
        keys=[frame.user_keys[code] for code in users[heads]],
    )
