"""Segments made in several processes of this machine, taken in order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import starmap
from typing import Any

from recsys.errors import TrainingError
from recsys.sequence_store.segment_building import Made


def in_processes(
    make: Callable[..., Made],
    work: Sequence[tuple[Any, ...]],
    here: Callable[..., Made],
    processes: int,
) -> Iterator[Made]:
    """Segments in the order of `work`, the arguments of each: by `make` in other processes, or by `here`
    in this one where there is little to do or `processes` is 1.

    Raises TrainingError where a process is lost.
    """
    if len(work) < 2 or processes < 2:
        yield from starmap(here, work)
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            yield from pool.map(make, *zip(*work, strict=True))
    except BrokenProcessPool:
        raise TrainingError("a process that read events was lost; run it again") from None
