"""A sample of whole users from a log read once, with counts of the whole log.

A user is in the sample by a hash of the id, so that sequences stay whole and a log read twice gives
the same sample. Where there are more events than the bound, half of the users kept so far leave.

Legend: n rows of a batch, E events kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from recsys.events.array_types import AnyArray
from recsys.events.frame import Codes, EventFrame, check_types
from recsys.events.identity import key_hashes, mixed
from recsys.events.times import DAY_US

_PARTS = {
    "users": np.uint64,
    "items": np.int32,
    "event_types": np.int32,
    "sessions": np.uint64,
    "timestamps_us": np.int64,
    "positions": np.int64,
}


@dataclass
class LogSample:
    """A sample of at most about `limit` events, by whole users.

    `append` takes batches with the columns of SEQUENCE_FIELDS, and `position` where there is one.
    """

    limit: int
    share: float = 1.0  # of the users, in the sample
    events: int = 0
    anonymous: int = 0  # events without a user
    first_us: int = 2**62
    last_us: int = -1
    by_day: dict[int, int] = field(default_factory=dict)  # days since 1970 -> events
    _kept: int = 0
    _items: Codes = field(default_factory=Codes)
    _types: Codes = field(default_factory=Codes)
    _parts: list[dict[str, AnyArray]] = field(default_factory=list)

    def append(self, batch: pa.RecordBatch | pa.Table) -> None:
        if batch.num_rows == 0:
            return
        if isinstance(batch, pa.Table):
            batch = batch.combine_chunks().to_batches()[0]
        users, sessions = batch.column("user_id"), batch.column("session_id")
        hashes = key_hashes(users, "u:")
        nobody = hashes == 0
        session_keys = key_hashes(sessions)
        if nobody.any():
            hashes = np.where(nobody, key_hashes(sessions, "s:"), hashes)
        times = batch.column("timestamp_us").to_numpy()
        days, counts = np.unique(times // DAY_US, return_counts=True)
        for day, count in zip(days.tolist(), counts.tolist(), strict=True):
            self.by_day[day] = self.by_day.get(day, 0) + count
        columns: dict[str, AnyArray] = {
            "users": hashes,
            "items": self._items.encode(batch.column("item_id")),
            "event_types": self._types.encode(batch.column("event_type")),
            "sessions": session_keys,
            "timestamps_us": times,
            "positions": np.arange(self.events, self.events + len(times)),
        }
        check_types(self._types.codes)
        if "position" in batch.schema.names:
            given = batch.column("position").to_numpy()
            if given.any():  # a table without an order has none
                columns["positions"] = given
        self.events += len(times)
        self.anonymous += int(nobody.sum())
        self.first_us = min(self.first_us, int(times.min()))
        self.last_us = max(self.last_us, int(times.max()))
        self._parts.append(_of_share(columns, self.share))
        self._kept += len(self._parts[-1]["users"])
        while self._kept > self.limit and self.share > 1e-5:
            self.share /= 2
            self._parts = [_of_share(part, self.share) for part in self._parts]
            self._kept = sum(len(part["users"]) for part in self._parts)

    def frame(self, limit: int | None = None) -> tuple[EventFrame, float]:
        """The sample as an event frame of at most about `limit` events, and its share of the users."""
        share, parts = self.share, self._parts
        while limit is not None and sum(len(part["users"]) for part in parts) > limit:
            share /= 2
            parts = [_of_share(part, share) for part in parts]

        def joined(name: str) -> AnyArray:
            found = [part[name] for part in parts]
            return np.concatenate(found) if found else np.empty(0, _PARTS[name])

        hashes, users = np.unique(joined("users"), return_inverse=True)
        return EventFrame(
            users=users.astype(np.int32),
            items=joined("items").astype(np.int32),
            event_types=joined("event_types").astype(np.int16),
            sessions=joined("sessions"),
            timestamps_us=joined("timestamps_us"),
            positions=joined("positions"),
            user_keys=[f"#{number:016x}" for number in hashes.tolist()],
            item_ids=list(self._items.codes),
            type_names=list(self._types.codes),
        ), share


def _of_share(columns: dict[str, AnyArray], share: float) -> dict[str, AnyArray]:
    if share >= 1.0:
        return columns
    kept = mixed(columns["users"]) < np.uint64(int(share * 2**63) * 2)
    return {name: values[kept] for name, values in columns.items()}
