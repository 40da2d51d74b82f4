"""A watchdog that cuts connections past their deadline: a stopped server keeps no time-out itself."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

LOOK_SECONDS = 0.25
ASK_AGAIN_SECONDS = 1.0


class BoundedBlock(NamedTuple):
    """A block of work on a socket, with its deadline; times are of time.monotonic."""

    descriptor: int
    begun: float
    until: float


class Watchdog:
    """Looks after the sockets of blocks that are bounded, from a thread of its own.

    A block that takes long may wait for a server that is slow, or for one that says nothing at all.
    Where it is told how to ask, the watchdog finds out which: blocks that wait for a silent server are
    cut before their time, and `silent` holds until the server answers again.
    """

    def __init__(
        self, is_silent: Callable[[], bool] | None = None, ask_seconds: float = math.inf
    ) -> None:
        """`is_silent` is called once a block has taken `ask_seconds`; it must end by itself."""
        self.silent = False
        self._is_silent, self._ask_seconds = is_silent, ask_seconds
        self._asked_at = -math.inf
        self._doubted = threading.Event()
        self._blocks: dict[object, BoundedBlock] = {}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def bounded(self, descriptor: int, seconds: float) -> Iterator[None]:
        """What the block does on the socket fails, once it has taken `seconds` (and a look)."""
        block, now = object(), time.monotonic()
        with self._lock:
            self._blocks[block] = BoundedBlock(descriptor, now, now + seconds)
            self._begin()
        try:
            yield
        finally:
            with self._lock:
                self._blocks.pop(block, None)

    def doubt(self) -> None:
        """Something waited in vain and without a socket: find out whether the server is silent."""
        self._doubted.set()
        with self._lock:
            self._begin()

    def close(self) -> None:
        """End the thread; nothing is cut any more."""
        self._done.set()

    def _begin(self) -> None:
        if self._thread is None:  # a worker's own: threads do not survive a fork
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()

    def _look(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            if self._is_silent is not None and self._must_ask():
                self._doubted.clear()
                self.silent = self._is_silent()
                self._asked_at = time.monotonic()
            self._cut()

    def _must_ask(self) -> bool:
        now = time.monotonic()
        if now < self._asked_at + ASK_AGAIN_SECONDS:
            return False
        if self.silent or self._doubted.is_set():
            return True
        with self._lock:
            return any(now > one.begun + self._ask_seconds for one in self._blocks.values())

    def _cut(self) -> None:
        now = time.monotonic()
        with self._lock:  # a block that ends meanwhile would leave its descriptor to another
            for block, one in list(self._blocks.items()):
                if now > one.until or (self.silent and now > one.begun + self._ask_seconds):
                    del self._blocks[block]
                    hang_up(one.descriptor)


def hang_up(descriptor: int) -> None:
    """End the conversation on a socket, which stays open; whoever waits there goes on at once."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as other:
        other.shutdown(socket.SHUT_RDWR)
