"""The client of programs that wait for an answer. Events are sent by a thread of its own."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from recsys_client import calls
from recsys_client.api_types import (
    AttributesAnswer,
    BatchAnswer,
    EventDetails,
    EventIn,
    EventsAnswer,
    ImpressionAnswer,
    ImpressionIn,
    ItemIn,
    ItemListAnswer,
    ItemsAnswer,
    MergeAnswer,
    RecommendationAnswer,
    RecommendationBody,
)
from recsys_client.calls import Call
from recsys_client.client_errors import RecsysError
from recsys_client.connections import Connections
from recsys_client.event_queue import Counts, EventQueue, QueueOptions

CLOSE_SECONDS = 5.0


class Recsys:
    """One service and one key; may be used from any thread, and after a fork.

    Every method but `track` raises RecsysError where the service refuses, or stays away for longer
    than `retries` requests with `timeout_seconds` each.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout_seconds: float = 5.0,
        retries: int = 2,
        queue: QueueOptions | None = None,
    ) -> None:
        self._connections = Connections(url, key, timeout_seconds)
        self._timeout_seconds, self._retries = timeout_seconds, retries
        self._queue = EventQueue(queue or QueueOptions())
        self._change = threading.Condition(self._queue.lock)
        self._hurry = self._closed = False
        self._thread: threading.Thread | None = None
        weak = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := weak()) and method())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- events -------------------------------------------------------------------------------

    def track(self, item_id: str, event_type: str = "view", **details: Unpack[EventDetails]) -> str:
        """Take an event and return its id, at once; it is sent with others in a moment, and again until
        the service has it. `details`: user_id or session_id, value, recommendation_id, timestamp, …
        """
        if self._closed:
            raise RecsysError("the client is closed")
        event: EventIn = {**details, "item_id": item_id, "event_type": event_type}
        event_id = self._queue.add(event)
        with self._change:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="recsys", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._change.notify_all()
        return event_id

    def flush(self, timeout_seconds: float | None = None) -> bool:
        """Send what waits now; whether nothing waits any more."""
        end = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self._change:
            while len(self._queue):
                self._hurry = True
                self._change.notify_all()
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._change.wait(left if left is None else min(left, 0.5))
        return True

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Send what waits and stop; what could not be sent in time is told and stays in `counts`."""
        if self._closed:
            return
        if self._thread is not None and not self.flush(timeout_seconds):
            self._queue.tell(RecsysError(f"{len(self._queue)} events were not sent"), None)
        with self._change:
            self._closed = True
            self._change.notify_all()
        atexit.unregister(self.close)
        self._connections.close()

    @property
    def counts(self) -> Counts:
        """What became of the events that were tracked."""
        return self._queue.counts

    def send_events(self, events: Sequence[EventIn]) -> EventsAnswer:
        """Send events and wait until they are stored, without the queue. Give them an event_id of yours:
        then sending them again adds nothing.
        """
        answer: EventsAnswer = self._ask(calls.post_events(events))
        return answer

    # --- questions ----------------------------------------------------------------------------

    def recommend(self, **question: Unpack[RecommendationBody]) -> RecommendationAnswer:
        """What comes next for a user_id, a session_id or `events`, what was flushed included."""
        answer: RecommendationAnswer = self._ask(calls.recommend(question))
        return answer

    def recommend_many(self, questions: Sequence[RecommendationBody]) -> BatchAnswer:
        """Up to 100 questions in one request."""
        answer: BatchAnswer = self._ask(calls.recommend_many(questions))
        return answer

    def similar(self, item_id: str, k: int = 20) -> ItemListAnswer:
        answer: ItemListAnswer = self._ask(calls.similar(item_id, k))
        return answer

    def next(self, item_id: str, k: int = 20) -> ItemListAnswer:
        """What most often comes right after an item."""
        answer: ItemListAnswer = self._ask(calls.next_items(item_id, k))
        return answer

    def popular(
        self, k: int = 20, window_days: int = 7, category: str | None = None
    ) -> ItemListAnswer:
        answer: ItemListAnswer = self._ask(calls.popular(k, window_days, category))
        return answer

    # --- what is stored of items and users ------------------------------------------------------

    def put_items(self, items: Sequence[ItemIn]) -> ItemsAnswer:
        """Create or update items; None removes a value, what is not given stays."""
        answer: ItemsAnswer = self._ask(calls.put_items(items))
        return answer

    def impressions(self, **shown: Unpack[ImpressionIn]) -> ImpressionAnswer:
        """Report what was really shown: items of an answer, or of a list of your own."""
        answer: ImpressionAnswer = self._ask(calls.impressions(shown))
        return answer

    def merge(
        self, user_id: str, *, session_id: str | None = None, other_user_id: str | None = None
    ) -> MergeAnswer:
        """Have a session's or another user's events count as the user's: at a log-in, for instance."""
        answer: MergeAnswer = self._ask(calls.merge(user_id, session_id, other_user_id))
        return answer

    def attributes(self, user_id: str) -> AttributesAnswer:
        answer: AttributesAnswer = self._ask(calls.attributes(user_id))
        return answer

    def set_attributes(self, user_id: str, values: Mapping[str, Any]) -> AttributesAnswer:
        """Replace a user's attributes."""
        answer: AttributesAnswer = self._ask(calls.set_attributes(user_id, values))
        return answer

    def delete_attributes(self, user_id: str) -> AttributesAnswer:
        answer: AttributesAnswer = self._ask(calls.delete_attributes(user_id))
        return answer

    # --- how ----------------------------------------------------------------------------------

    def _ask(self, call: Call) -> Any:
        failures = 0
        while True:
            try:
                return self._connections.send(call)
            except RecsysError as error:
                wait = calls.wait_seconds(failures, error)
                if not error.is_transient or failures >= self._retries:
                    raise
                if wait > self._timeout_seconds:
                    raise
                failures += 1
                time.sleep(wait)

    def _run(self) -> None:
        """Send batch after batch, until the client is closed."""
        while self._wait_for_events():
            batch, wait, asked = self._queue.next_batch(), 0.0, 0.0
            try:
                self._queue.settle(batch, self._connections.send(calls.post_events(batch)))
            except RecsysError as error:
                wait, asked = self._queue.failed(batch, error), error.retry_after_seconds
            with self._change:
                self._hurry = self._hurry and len(self._queue) > 0 and not wait
                self._change.notify_all()
                self._pause(wait, asked)

    def _wait_for_events(self) -> bool:
        """Whether there are any; False once the client is closed."""
        with self._change:
            while not len(self._queue) and not self._closed:
                self._change.wait()
            if not self._closed and not self._queue.is_full_batch:
                self._pause(self._queue.options.linger_seconds)
            return not self._closed

    def _pause(self, seconds: float, at_least: float = 0.0) -> None:
        """Wait; `at_least` so long even where someone is in a hurry. `_change` is held."""
        start = time.monotonic()
        while (left := start + seconds - time.monotonic()) > 0 and not self._closed:
            if self._hurry and time.monotonic() >= start + at_least:
                return
            self._change.wait(min(left, 0.5))

    def _after_fork(self) -> None:
        self._queue.clear()
        self._connections.forget()
        self._change = threading.Condition(self._queue.lock)
        self._thread, self._hurry = None, False
