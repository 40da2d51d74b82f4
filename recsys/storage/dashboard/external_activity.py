"""Counts of an external table's events by hour and of its users by day, while its rows go by."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.events.identity import key_hashes
from recsys.events.times import DAY_US, HOUR_US
from recsys.storage.dashboard.activity_rows import DayCount, HourCount
from recsys.storage.external.external_rows import ExternalRows

OPEN_DAYS = 3  # the newest, whose users are told apart whatever happens
MAX_HELD = 20_000_000  # users of days that are told apart, eight bytes each


class ActivityCounts:
    """Events by (hour, type) and users by day of rows that come roughly in order of time."""

    def __init__(self, since_us: int, max_held: int = MAX_HELD) -> None:
        self._since_us, self._max_held = since_us, max_held
        self._hours: Counter[tuple[int, str]] = Counter()
        self._open: dict[int, np.ndarray] = {}  # day -> hashes of its users, each once
        self._closed: dict[int, int] = {}  # day -> users
        self._first: defaultdict[int, int] = defaultdict(lambda: 2**63 - 1)  # day -> position
        self._newest_us = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch; those before the beginning are left out."""
        times = batch.column("timestamp_us").to_numpy()
        kept = times >= self._since_us
        if not kept.any():
            return
        if not kept.all():
            batch, times = batch.filter(pa.array(kept)), times[kept]
        encoded = batch.column("event_type").dictionary_encode()
        names = encoded.dictionary.to_pylist()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        hours, numbers = np.unique(times // HOUR_US * len(names) + codes, return_counts=True)
        for place, number in zip(hours.tolist(), numbers.tolist(), strict=True):
            self._hours[place // len(names) * HOUR_US, names[place % len(names)]] += number
        users = key_hashes(batch.column("user_id"), "u:")
        users = np.where(users == 0, key_hashes(batch.column("session_id"), "s:"), users)
        days, positions = times // DAY_US, batch.column("position").to_numpy()
        for day in np.unique(days).tolist():
            inside = days == day
            self._first[day] = min(self._first[day], int(positions[inside].min()))
            if day not in self._closed:
                known = self._open.get(day, np.zeros(0, np.uint64))
                self._open[day] = np.union1d(known, users[inside])
        self._newest_us = max(self._newest_us, int(times.max()))

    def close_days(self) -> None:
        """Where too many users are told apart, those of the oldest days are but a number from now on."""
        held = sum(map(len, self._open.values()))
        for day in sorted(self._open)[:-OPEN_DAYS]:
            if held <= self._max_held:
                return
            users = self._open.pop(day)
            self._closed[day], held = len(users), held - len(users)

    def rows(self) -> tuple[list[HourCount], list[DayCount]]:
        """Rows for the tables of counts."""
        hours = [
            HourCount(hour_us=hour_us, event_type=event_type, events=number)
            for (hour_us, event_type), number in self._hours.items()
        ]
        users = {**self._closed, **{day: len(found) for day, found in self._open.items()}}
        days = [
            DayCount(day_us=day * DAY_US, users=number) for day, number in sorted(users.items())
        ]
        return hours, days

    def mark(self, rows: ExternalRows) -> tuple[int, str] | None:
        """Where the next count begins: the day before the newest in µs, and the mark of its place in
        the index; None where no row was counted.
        """
        if not self._first:
            return None
        day = min(one for one in self._first if one >= self._newest_us // DAY_US - 1)
        place: Any = min(first for one, first in self._first.items() if one >= day)
        if rows.mapping.along != "order":
            # Texts with zones of their own may sort up to a day apart from their times.
            early = 1 if rows.mapping.columns["timestamp"].kind == "text" else 0
            place = rows.mapping.time.at((day - early) * DAY_US)
        return day * DAY_US, rows.mapping.mark(place)
