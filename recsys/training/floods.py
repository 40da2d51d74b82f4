"""Floods: what sessions without a user sent, left out where it would stop a training.

A page's key is there for anyone to read, and posts for sessions alone. So where the checks of a log
fail, they are asked again of what is left without the loudest sessions, then without the newest: a
broken log of users still stops the training, and a flood of sessions does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsys.events.array_types import BoolArray
from recsys.events.frame import EventFrame
from recsys.events.large_arrays import chunks, compress, count_codes, look_up, of_sessions
from recsys.events.times import DAY_US

LOUD_EVENTS = 1_000  # more than a visitor without a name sends
NEW_DAYS = (1, 7)  # a page's key posts nothing older: recsys.ingest.event_body.PAGE_DAYS
COLUMNS = ("users", "items", "event_types", "sessions", "timestamps_us", "positions")


@dataclass(frozen=True)
class Thinned:
    """A log without some sessions, and what was left out of it."""

    frame: EventFrame
    events: int
    sessions: int
    which: str

    def __str__(self) -> str:
        return f"left out {self.events:,} events of {self.sessions:,} sessions {self.which}"


def thinned(frame: EventFrame) -> Iterator[Thinned]:
    """The log without its loudest sessions, then without the newest ones too, less and less of it."""
    nameless = of_sessions(frame.user_keys)
    if len(frame) == 0 or not nameless.any():
        return
    counts = count_codes(frame.users, len(nameless))
    loud = nameless & (counts > LOUD_EVENTS)
    if loud.any():
        yield _without(frame, loud, f"with more than {LOUD_EVENTS:,} each")
    first_us = np.full(len(nameless), np.iinfo(np.int64).max)
    for part in chunks(len(frame)):
        np.minimum.at(first_us, frame.users[part], frame.timestamps_us[part])
    newest_us = int(frame.timestamps_us.max())
    for days in NEW_DAYS:
        new = nameless & (counts > 0) & (first_us > newest_us - days * DAY_US)
        if new.any():
            yield _without(frame, new | loud, f"that began in the last {days} days")


def _without(frame: EventFrame, owners: BoolArray, which: str) -> Thinned:
    """`frame` without the events of `owners` (users,)."""
    kept = look_up(~owners, frame.users, None)
    columns: dict[str, Any] = {
        name: compress(getattr(frame, name), kept, frame.folder) for name in COLUMNS
    }
    left = replace(frame, **columns)
    return Thinned(left, len(frame) - len(left), int(owners.sum()), which)
