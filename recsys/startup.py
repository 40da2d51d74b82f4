"""What a process does first, before anything large is loaded."""

from __future__ import annotations

import gc
import os


def limit_threads() -> None:
    """One OpenMP thread a server thread; to be called before torch loads.

    torch.set_num_threads does not reach the threads of a server.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def collect_rarely() -> None:
    """Look for garbage after 50,000 new objects, not 700.

    What is loaded at the start is no garbage: to look through it again and again takes a fifth of the
    time until a command does its work.
    """
    gc.set_threshold(50_000, 20, 20)
