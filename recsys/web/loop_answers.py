"""Answers given on the event loop, without a thread in between, as long as they are quick.

Handing a request to a thread and its answer back costs as much as a sixth of the answer. But whatever waits on
the loop holds up every other request of the worker. So work known to take long is left to a thread
(`recsys.serving.long_work`), and once an answer was slow, whatever it waited for, all are given by threads
until none has been slow for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from recsys.serving.long_work import met_long_work, on_loop
from recsys.web.asgi_messages import Answer, Message

Direct = Callable[[Message, bytes], Answer | None]
SLOW_SECONDS = 0.1  # an answer usually takes some milliseconds
REST_SECONDS = 2.0  # without a slow one, until they are given on the loop again
MOST_WAIT_SECONDS = 2.0  # of requests for the loop; more are refused


class LoopAnswers:
    """The direct answers of one worker, on its event loop and in its threads."""

    def __init__(self, direct: Direct, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back, such as time.monotonic."""
        self._direct, self._clock = direct, clock
        self._rested_at = float("-inf")
        self._marked_at: float | None = None  # when a mark was put at the end of the loop's queue
        self._wait = 0.0  # of the last mark that came through

    @property
    def quick(self) -> bool:
        """Whether answers are given on the loop at this moment."""
        return self._clock() >= self._rested_at

    def overrun(self) -> bool:
        """Whether requests wait for the loop so long that this one should be refused."""
        if self._marked_at is None:
            self._marked_at = self._clock()
            asyncio.get_running_loop().call_soon(self._note_wait)
        return self._wait > MOST_WAIT_SECONDS

    def on_loop(self, scope: Message, body: bytes) -> Answer | None:
        """The answer; None where `direct` has none. Raises LongWorkError where a thread is to give it."""
        with on_loop():
            return self.timed(scope, body)

    def timed(self, scope: Message, body: bytes) -> Answer | None:
        """The answer, from whichever thread; one that was slow, and not for work that is known to take
        long, keeps the others off the loop for a while.
        """
        met_long_work()  # of whatever the thread did before
        started = self._clock()
        try:
            return self._direct(scope, body)
        finally:
            ended = self._clock()
            if ended - started > SLOW_SECONDS and not met_long_work():
                self._rested_at = ended + REST_SECONDS

    def _note_wait(self) -> None:
        """Called when the mark has come through the queue, as a request would that came with it."""
        assert self._marked_at is not None
        self._wait, self._marked_at = self._clock() - self._marked_at, None
