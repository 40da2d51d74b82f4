"""Cuts connections that wait for too long: a server that is stopped keeps no time-out itself."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LOOK_SECONDS = 0.25


class Watchdog:
    """Looks after the sockets of blocks that are bounded, from a thread of its own."""

    def __init__(self) -> None:
        self._blocks: dict[object, tuple[int, float]] = {}  # -> its socket and time.monotonic
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def bounded(self, descriptor: int, seconds: float) -> Iterator[None]:
        """What the block does on the socket fails, once it has taken `seconds` (and a look)."""
        block = object()
        with self._lock:
            self._blocks[block] = (descriptor, time.monotonic() + seconds)
            if self._thread is None:  # a worker's own: threads do not survive a fork
                self._thread = threading.Thread(target=self._look, daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._blocks.pop(block, None)

    def close(self) -> None:
        """End the thread; nothing is cut any more."""
        self._done.set()

    def _look(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            now = time.monotonic()
            with self._lock:  # a block that ends meanwhile would leave its descriptor to another
                for block, (descriptor, until) in list(self._blocks.items()):
                    if until < now:
                        del self._blocks[block]
                        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as other:
                            other.shutdown(socket.SHUT_RDWR)
