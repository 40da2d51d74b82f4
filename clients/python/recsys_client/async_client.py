"""The client of programs on asyncio. Requests run on threads of its own, so that no loop ever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from recsys_client.connections import MAX_IDLE, Connections
from recsys_client.event_queue import Counts, EventQueue, QueueOptions
from recsys_client.sync_client import CLOSE_SECONDS


class AsyncRecsys:
    """One service and one key, for one event loop: `async with AsyncRecsys(url, key) as recsys:`.

    The methods are those of `Recsys`, to be awaited; `track` takes an event at once.
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
        self._threads = ThreadPoolExecutor(MAX_IDLE, "recsys")
        self._queue = EventQueue(queue or QueueOptions())
        self._wake, self._sent = asyncio.Event(), asyncio.Event()
        self._hurry = self._closed = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # --- events -------------------------------------------------------------------------------

    def track(self, item_id: str, event_type: str = "view", **details: Unpack[EventDetails]) -> str:
        """Take an event and return its id; it is sent with others in a moment, and again until the
        service has it.
        """
        if self._closed:
            raise RecsysError("the client is closed")
        event: EventIn = {**details, "item_id": item_id, "event_type": event_type}
        event_id = self._queue.add(event)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        if self._queue.is_full_batch:
            self._wake.set()
        return event_id

    async def flush(self, timeout_seconds: float | None = None) -> bool:
        """Send what waits now; whether nothing waits any more."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while len(self._queue):
                    self._sent.clear()
                    self._hurry = True
                    self._wake.set()
                    await self._sent.wait()
        except TimeoutError:
            return False
        return True

    async def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Send what waits and stop; what could not be sent in time is told and stays in `counts`."""
        if self._closed:
            return
        if self._task is not None and not await self.flush(timeout_seconds):
            self._queue.tell(RecsysError(f"{len(self._queue)} events were not sent"), None)
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._connections.close()

    @property
    def counts(self) -> Counts:
        """What became of the events that were tracked."""
        return self._queue.counts

    async def send_events(self, events: Sequence[EventIn]) -> EventsAnswer:
        """Send events and wait until they are stored, without the queue."""
        answer: EventsAnswer = await self._ask(calls.post_events(events))
        return answer

    # --- questions ----------------------------------------------------------------------------

    async def recommend(self, **question: Unpack[RecommendationBody]) -> RecommendationAnswer:
        """What comes next for a user_id, a session_id or `events`, what was flushed included."""
        answer: RecommendationAnswer = await self._ask(calls.recommend(question))
        return answer

    async def recommend_many(self, questions: Sequence[RecommendationBody]) -> BatchAnswer:
        """Up to 100 questions in one request."""
        answer: BatchAnswer = await self._ask(calls.recommend_many(questions))
        return answer

    async def similar(self, item_id: str, k: int = 20) -> ItemListAnswer:
        answer: ItemListAnswer = await self._ask(calls.similar(item_id, k))
        return answer

    async def next(self, item_id: str, k: int = 20) -> ItemListAnswer:
        """What most often comes right after an item."""
        answer: ItemListAnswer = await self._ask(calls.next_items(item_id, k))
        return answer

    async def popular(
        self, k: int = 20, window_days: int = 7, category: str | None = None
    ) -> ItemListAnswer:
        answer: ItemListAnswer = await self._ask(calls.popular(k, window_days, category))
        return answer

    # --- what is stored of items and users ------------------------------------------------------

    async def put_items(self, items: Sequence[ItemIn]) -> ItemsAnswer:
        """Create or update items; None removes a value, what is not given stays."""
        answer: ItemsAnswer = await self._ask(calls.put_items(items))
        return answer

    async def impressions(self, **shown: Unpack[ImpressionIn]) -> ImpressionAnswer:
        """Report what was really shown: items of an answer, or of a list of your own."""
        answer: ImpressionAnswer = await self._ask(calls.impressions(shown))
        return answer

    async def merge(
        self, user_id: str, *, session_id: str | None = None, other_user_id: str | None = None
    ) -> MergeAnswer:
        """Have a session's or another user's events count as the user's: at a log-in, for instance."""
        answer: MergeAnswer = await self._ask(calls.merge(user_id, session_id, other_user_id))
        return answer

    async def attributes(self, user_id: str) -> AttributesAnswer:
        answer: AttributesAnswer = await self._ask(calls.attributes(user_id))
        return answer

    async def set_attributes(self, user_id: str, values: Mapping[str, Any]) -> AttributesAnswer:
        """Replace a user's attributes."""
        answer: AttributesAnswer = await self._ask(calls.set_attributes(user_id, values))
        return answer

    async def delete_attributes(self, user_id: str) -> AttributesAnswer:
        answer: AttributesAnswer = await self._ask(calls.delete_attributes(user_id))
        return answer

    # --- how ----------------------------------------------------------------------------------

    async def _send(self, call: Call) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._connections.send, call)

    async def _ask(self, call: Call) -> Any:
        failures = 0
        while True:
            try:
                return await self._send(call)
            except RecsysError as error:
                wait = calls.wait_seconds(failures, error)
                if not error.is_transient or failures >= self._retries:
                    raise
                if wait > self._timeout_seconds:
                    raise
                failures += 1
                await asyncio.sleep(wait)

    async def _run(self) -> None:
        """Send batch after batch, until nothing waits."""
        wait = 0.0 if self._queue.is_full_batch else self._queue.options.linger_seconds
        asked = 0.0
        while len(self._queue):
            await asyncio.sleep(asked)
            await self._pause(wait - asked)
            batch, wait, asked = self._queue.next_batch(), 0.0, 0.0
            try:
                self._queue.settle(batch, await self._send(calls.post_events(batch)))
            except RecsysError as error:
                wait, asked = self._queue.failed(batch, error), error.retry_after_seconds
            self._hurry = self._hurry and len(self._queue) > 0 and not wait
            self._sent.set()

    async def _pause(self, seconds: float) -> None:
        """Wait, unless someone is in a hurry."""
        self._wake.clear()
        if seconds > 0 and not self._hurry:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
