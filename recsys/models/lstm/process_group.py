"""A training in several processes: rank 0 decides, all compute their share of every batch.

Rank 0 alone reads the database, validates, writes checkpoints and publishes. The others wait for its
tasks: it sends them the sequences and its own state, so they need nothing but an address, and no two
ranks can disagree about the data. Tasks go through the group's key-value store, numbers through
gloo. A rank that dies, or is silent for `timeout_seconds`, ends the training on all of them.
"""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import structlog
import torch
from torch import Tensor, distributed
from torch.distributed.rendezvous import rendezvous

from recsys import __version__
from recsys.config import launched_rank
from recsys.errors import TrainingError
from recsys.events.array_types import AnyArray, Int64Array
from recsys.progress import quiet

log = structlog.get_logger(__name__)

CHUNK_BYTES = 64 * 2**20  # of an array that is sent at once
MAPPED_BYTES = 256 * 2**20  # arrays beyond this arrive in a file, not in memory
JOIN_SECONDS = 300.0  # for all processes that torchrun started to be there
END = "end"  # kind of the last message
LOST = "a process of the training was lost or fell silent; nothing was registered"


class TrainingGroup:
    """One process's place among those that train together."""

    def __init__(self, store: Any, rank: int, size: int, timeout_seconds: float) -> None:
        self.rank, self.size = rank, size
        self._store, self._timeout_seconds = store, timeout_seconds
        self._tasks = 0
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        if rank == 0:
            self._heart.start()

    def rows(self, count: int) -> Int64Array:
        """Which of the `count` rows of a batch are this rank's."""
        return np.arange(self.rank, count, self.size)

    def send(self, task: Mapping[str, Any]) -> None:
        """Give all other ranks a JSON-ready task."""
        with lost_ranks():
            self._store.set(f"task/{self._tasks}", json.dumps(task))
        self._tasks += 1

    def receive(self) -> dict[str, Any]:
        """Rank 0's next task. Raises TrainingError where rank 0 gives no sign of life."""
        key = f"task/{self._tasks}"
        beats, heard = -1, time.monotonic()
        with lost_ranks():
            while not self._store.check([key]):
                found = self._store.add("beats", 0)
                if found != beats:
                    beats, heard = found, time.monotonic()
                elif time.monotonic() - heard > self._timeout_seconds:
                    raise TrainingError(LOST)
                time.sleep(0.02)
            task: dict[str, Any] = json.loads(self._store.get(key))
        self._tasks += 1
        return task

    def sum_gradients(self, parameters: Sequence[Tensor], loss: float) -> float:
        """Put the sum over all ranks into each gradient; the summed loss.

        A gradient that no rank has stays None.
        """
        device = parameters[0].device
        parts = [
            torch.zeros(p.numel(), device=device) if p.grad is None else p.grad.flatten()
            for p in parameters
        ]
        present = [float(p.grad is not None) for p in parameters]
        tail = torch.tensor([loss, *present], device=device)
        summed = torch.cat([*parts, tail]).cpu()
        with lost_ranks():
            distributed.all_reduce(summed)
        at = 0
        for number, parameter in enumerate(parameters):
            part = summed[at : at + parameter.numel()]
            at += parameter.numel()
            had_one = bool(summed[number - len(parameters)] > 0)
            parameter.grad = part.view_as(parameter).to(device) if had_one else None
        return float(summed[at])

    def share_array(self, array: AnyArray | None, shape: Mapping[str, Any]) -> AnyArray:
        """Rank 0's `array` at every rank; `shape` is what `array_shapes` gives for it."""
        if array is None:
            array = _empty(np.dtype(shape["dtype"]), tuple(shape["shape"]))
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for at in range(0, len(flat), CHUNK_BYTES):
            part = flat[at : at + CHUNK_BYTES]
            sent = torch.from_numpy(part if part.flags.writeable else part.copy())
            with lost_ranks():
                distributed.broadcast(sent, 0)
        return array

    def share_arrays(
        self, arrays: Mapping[str, AnyArray], shapes: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, AnyArray]:
        """Rank 0's `arrays` at every rank, by name; others pass none of them."""
        return {name: self.share_array(arrays.get(name), one) for name, one in shapes.items()}

    def leave(self) -> None:
        """Rank 0 lets the others go, and waits a moment until they know."""
        self._stop.set()
        try:
            if self.rank:
                self._store.add("left", 1)
                return
            self.send({"kind": END})
            end = time.monotonic() + min(5.0, self._timeout_seconds)
            while self._store.add("left", 0) < self.size - 1 and time.monotonic() < end:
                time.sleep(0.02)
        except (TrainingError, RuntimeError):
            pass  # they are gone already

    def _beat(self) -> None:
        while not self._stop.wait(min(1.0, self._timeout_seconds / 5)):
            try:
                self._store.add("beats", 1)
            except RuntimeError as error:
                log.warning("a heartbeat of the training was not sent", kind=type(error).__name__)


def array_shapes(arrays: Mapping[str, AnyArray]) -> dict[str, dict[str, Any]]:
    """Types and shapes, JSON-ready."""
    return {name: {"dtype": a.dtype.str, "shape": list(a.shape)} for name, a in arrays.items()}


def present_group() -> TrainingGroup | None:
    """The group this process is in, if it is in one: like torch's own, there is one a process."""
    return _present


@dataclass(frozen=True)
class Place:
    """A rank's place in a training: rank 0 listens at the address, the others come there."""

    host: str
    port: int
    rank: int
    size: int
    device: int = 0  # number of the GPU it takes, where this machine has several
    listening: socket.socket | None = field(default=None, repr=False)  # rank 0's

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@contextmanager
def joined(
    timeout_seconds: float,
    place: Place | None = None,
    join_seconds: float = JOIN_SECONDS,
    look: Callable[[], None] = quiet,
) -> Iterator[TrainingGroup | None]:
    """Be one of the processes that train together: at `place`, else as `torchrun` has it in the environment.

    None where it is the only one. Rank 0's `timeout_seconds` hold for all who come to its place; it
    calls `look` while it waits for them, which may raise to give up. Raises TrainingError where not
    all of them come within `join_seconds`, or where they are of different releases.
    """
    global _present
    with lost_ranks():
        if place is None:
            rank, size, device = launched_rank()
            store = _gathered_by_torchrun(rank, size)
        else:
            rank, size, device = place.rank, place.size, place.device
            store, timeout_seconds = _gathered(place, timeout_seconds, join_seconds, look)
        if torch.cuda.is_available():
            torch.cuda.set_device(device % torch.cuda.device_count())
        silence = timedelta(seconds=timeout_seconds)
        distributed.init_process_group(
            "gloo", store=store, rank=rank, world_size=size, timeout=silence
        )
    try:
        if size > 1:
            own_keys = distributed.PrefixStore("recsys", store)  # type: ignore[attr-defined]
            _present = TrainingGroup(own_keys, rank, size, timeout_seconds)
        yield _present
    finally:
        if _present is not None:
            _present.leave()
            _present = None
        distributed.destroy_process_group()


def _gathered_by_torchrun(rank: int, size: int) -> Any:
    """The store of all ranks, which machines start at moments of their own."""
    join_timeout = timedelta(seconds=JOIN_SECONDS)
    store, _, _ = next(iter(rendezvous("env://", timeout=join_timeout)))
    store.set_timeout(join_timeout)
    store.set(f"recsys/here/{rank}", "")
    store.wait([f"recsys/here/{other}" for other in range(size)], join_timeout)
    return store


def _gathered(
    place: Place, timeout_seconds: float, join_seconds: float, look: Callable[[], None]
) -> tuple[Any, float]:
    """The store of all ranks, once they are at `place`, and rank 0's time-out."""
    listening = None if place.listening is None else place.listening.detach()
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        place.host,
        place.port,
        is_master=place.rank == 0,
        timeout=timedelta(seconds=join_seconds),
        wait_for_workers=False,
        master_listen_fd=listening,
    )
    if place.rank:
        return store, _come(store, place)
    terms = {"release": __version__, "size": place.size, "timeout_seconds": timeout_seconds}
    store.set("terms", json.dumps(terms))
    missing, end = list(range(1, place.size)), time.monotonic() + join_seconds
    while missing := [rank for rank in missing if not store.check([f"here/{rank}"])]:
        if store.check(["refused"]):
            raise TrainingError(store.get("refused").decode())
        look()
        if time.monotonic() > end:
            came, wanted = place.size - 1 - len(missing), place.size - 1
            raise TrainingError(
                f"{came} of the {wanted} other ranks of the training came within "
                f"{join_seconds:g} seconds (training.join_timeout_seconds)"
            )
        time.sleep(0.02)
    store.set("begin", "")
    return store, timeout_seconds


def _come(store: Any, place: Place) -> float:
    """Tell rank 0 that this rank is there, and wait for the others; rank 0's time-out.

    Raises TrainingError, here and at rank 0, where it was started for another training.
    """
    terms = json.loads(store.get("terms"))
    for name, own in (("release", __version__), ("size", place.size)):
        if terms[name] != own:
            told = f"rank {place.rank} of the training has {name} {own}, rank 0 {terms[name]}"
            store.set("refused", told)
            raise TrainingError(told)
    store.set(f"here/{place.rank}", "")
    store.wait(["begin"])
    return float(terms["timeout_seconds"])


@contextmanager
def lost_ranks() -> Iterator[None]:
    """Turn torch.distributed's errors, which mean a lost or silent process, into TrainingError."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(LOST) from error


_present: TrainingGroup | None = None


def _empty(dtype: np.dtype[Any], shape: tuple[int, ...]) -> AnyArray:
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if size <= MAPPED_BYTES:
        return np.empty(shape, dtype)
    return np.memmap(tempfile.TemporaryFile(), dtype, "w+", shape=shape)
