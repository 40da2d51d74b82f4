"""Events on their way: bounded, in order, each with an id, so that a retry is never a second event."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from recsys_client.api_types import EventIn, EventsAnswer
from recsys_client.calls import wait_seconds
from recsys_client.client_errors import RecsysError

log = logging.getLogger("recsys_client")

OnError = Callable[[RecsysError, EventIn | None], None]


@dataclass(frozen=True)
class QueueOptions:
    """Bounds of the queue, and who is told what could not be sent."""

    max_waiting: int = 10_000  # more are dropped, the newest, counted and told
    max_batch: int = 500
    linger_seconds: float = 0.2  # for so long an event waits for others
    on_error: OnError | None = None  # default: a warning of the logger recsys_client


@dataclass(frozen=True)
class Counts:
    """What became of the events: tracked = accepted + duplicates + rejected + dropped + waiting."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    dropped: int = 0
    waiting: int = 0


class EventQueue:
    """What waits and what became of it. It sends nothing by itself; may be used from any thread."""

    def __init__(self, options: QueueOptions) -> None:
        self.options = options
        self.clear()

    def clear(self) -> None:
        """Start with nothing; so does a process that was forked: what waits is the other's to send."""
        self.lock = threading.Lock()
        self._batch = self.options.max_batch
        self._waiting: deque[EventIn] = deque()
        self._accepted = self._duplicates = self._rejected = self._dropped = 0
        self._failures = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full_batch(self) -> bool:
        """Whether a batch need not wait for more."""
        return len(self._waiting) >= self._batch

    @property
    def counts(self) -> Counts:
        with self.lock:
            known = self._accepted, self._duplicates, self._rejected, self._dropped
            return Counts(*known, len(self._waiting))

    def add(self, event: EventIn) -> str:
        """Take an event; its id. It gets one, and the time of now, where it has none.

        Raises TypeError or ValueError for what is no JSON.
        """
        whole: EventIn = {**event}
        event_id = str(whole.setdefault("event_id", uuid.uuid4().hex))
        whole.setdefault("timestamp", time.time_ns() // 1_000_000)
        json.dumps(whole, allow_nan=False)
        with self.lock:
            full = len(self._waiting) >= self.options.max_waiting
            if full:
                self._dropped += 1
            else:
                self._waiting.append(whole)
        if full:
            self.tell(RecsysError(f"the queue is full: {len(self)} events wait"), whole)
        return event_id

    def next_batch(self) -> list[EventIn]:
        """The oldest of what waits; it goes on waiting until it is settled."""
        with self.lock:
            return [self._waiting[at] for at in range(min(self._batch, len(self._waiting)))]

    def settle(self, batch: Sequence[EventIn], answer: EventsAnswer) -> None:
        """What the service says of a batch. Raises RecsysError where it says nothing of it."""
        if "results" not in answer:
            raise RecsysError("the answer is none of this service", 502)
        refused = [one for one in answer["results"] if one["status"] == "rejected"]
        self._forget(batch, answer["accepted"], answer["duplicates"], answer["rejected"])
        self._failures = 0
        for one in refused:
            self.tell(RecsysError(one["error"] or "rejected", 422), batch[one["index"]])

    def failed(self, batch: Sequence[EventIn], error: RecsysError) -> float:
        """What a batch that was not answered row by row means; how long to wait before the next one."""
        if isinstance(error.body, dict) and "results" in error.body:  # 422: none of them was taken
            self.settle(batch, cast(EventsAnswer, error.body))
            return 0.0
        if error.is_transient:
            if self._failures == 0:
                self.tell(error, None)
            self._failures += 1
            return wait_seconds(self._failures, error)
        if error.status in (413, 422) and len(batch) > 1:  # more than the service takes at once
            self._batch = (len(batch) + 1) // 2
            return 0.0
        self._forget(batch, 0, 0, len(batch))
        for event in batch:
            self.tell(error, event)
        return 0.0

    def tell(self, error: RecsysError, event: EventIn | None) -> None:
        """Tell who asked for it; nothing that goes wrong there stops the queue."""
        try:
            if self.options.on_error is None:
                which = f"event {event['event_id']}: " if event and "event_id" in event else ""
                log.warning("%s%s", which, error)
            else:
                self.options.on_error(error, event)
        except Exception:
            log.exception("on_error failed")

    def _forget(
        self, batch: Sequence[EventIn], accepted: int, duplicates: int, rejected: int
    ) -> None:
        with self.lock:
            for _ in batch:
                self._waiting.popleft()
            self._accepted += accepted
            self._duplicates += duplicates
            self._rejected += rejected
