"""What an answer must not do on the event loop: count a week of events, read a catalogue, wait for either.

Where such work begins, `long_work()` is called. In a thread nothing comes of it; on the loop the answer is
given up there, and begun again in a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class LongWorkError(Exception):
    """An answer on the event loop has come to work that takes long."""


class _Here(threading.local):
    on_loop = False
    met = False  # long work, since it was asked last


_here = _Here()


@contextmanager
def on_loop() -> Iterator[None]:
    """What is inside is done by the thread of the event loop: `long_work` raises LongWorkError."""
    _here.on_loop = True
    try:
        yield
    finally:
        _here.on_loop = False


def long_work() -> None:
    """Say that what comes now may take long. Raises LongWorkError on the event loop.

    >>> long_work()
    >>> with on_loop():
    ...     long_work()
    Traceback (most recent call last):
    recsys.serving.long_work.LongWorkError
    """
    if _here.on_loop:
        raise LongWorkError
    _here.met = True


def met_long_work() -> bool:
    """Whether this thread has come to long work since it was asked last.

    >>> long_work()
    >>> met_long_work(), met_long_work()
    (True, False)
    """
    met, _here.met = _here.met, False
    return met
