"""A training in several processes: rank 0 decides, all compute their share of every batch.

Rank 0 alone reads the database, validates, writes checkpoints and publishes. The others wait for its
tasks: it sends them the sequences and its own state, so they need nothing but an address, and no two
ranks can disagree about the data. Tasks go through the group's key-value store, numbers through
gloo. A rank that dies, or is silent for `timeout_seconds`, ends the training on all of them.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from typing import Any

import numpy as np
import structlog
import torch
from torch import Tensor, distributed
from torch.distributed.rendezvous import rendezvous

from recsys.config import ModelSettings, TrainingSettings
from recsys.errors import TrainingError
from recsys.events.array_types import AnyArray, Float32Array, Int32Array, Int64Array
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Sequences
from recsys.models.lstm.optimizer import Rate

log = structlog.get_logger(__name__)

CHUNK_BYTES = 64 * 2**20  # of an array that is sent at once
MAPPED_BYTES = 256 * 2**20  # arrays beyond this arrive in a file, not in memory
JOIN_SECONDS = 300.0  # for all processes to be there
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
            self.send({"kind": "end"})
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


@contextmanager
def joined(timeout_seconds: float) -> Iterator[TrainingGroup | None]:
    """Be one of the processes that `torchrun`, or whoever set up torch.distributed, has started.

    None where it is the only one. Raises TrainingError where the others do not come in time.
    """
    global _present
    own = not distributed.is_initialized()
    with lost_ranks():
        if own:
            _join(timeout_seconds)
        size = distributed.get_world_size()
        if size > 1:
            whole = distributed.distributed_c10d._get_default_store()
            store = distributed.distributed_c10d.PrefixStore("recsys", whole)
            _present = TrainingGroup(store, distributed.get_rank(), size, timeout_seconds)
    try:
        yield _present
    finally:
        if _present is not None:
            _present.leave()
            _present = None
        if own:
            distributed.destroy_process_group()


def _join(timeout_seconds: float) -> None:
    """Wait for all ranks, which machines start at moments of their own, then be one of them."""
    join_timeout = timedelta(seconds=JOIN_SECONDS)
    store, rank, size = next(iter(rendezvous("env://", timeout=join_timeout)))
    store.set_timeout(join_timeout)
    store.set(f"recsys/here/{rank}", "")
    store.wait([f"recsys/here/{other}" for other in range(size)], join_timeout)
    silence = timedelta(seconds=timeout_seconds)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=silence)


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


DATASET, EPOCH, END = "dataset", "epoch", "end"  # kinds of messages


@dataclass(frozen=True)
class SharedDataset:
    """What all ranks train on, and the arguments of their trainers."""

    sequences: Sequences
    weights: Float32Array  # (E,)
    item_categories: Int32Array  # (V,)
    rows: int
    event_types: int
    max_length: int
    model: ModelSettings
    training: TrainingSettings
    repeats: RepeatPolicy


@dataclass(frozen=True)
class SharedState:
    """Rank 0's state at the start of an epoch."""

    tensors: Mapping[str, Tensor]
    plain: Mapping[str, Any]  # JSON-ready
    rate: Rate
    seed: int  # of torch's own generator


def send_dataset(group: TrainingGroup, dataset: SharedDataset) -> None:
    """Give every other rank the dataset. Raises TrainingError where one is lost."""
    found = {one.name: getattr(dataset.sequences, one.name) for one in fields(Sequences)}
    arrays = {name: array for name, array in found.items() if isinstance(array, np.ndarray)}
    arrays |= {"weights": dataset.weights, "item_categories": dataset.item_categories}
    shapes = array_shapes(arrays)
    group.send(
        {
            "kind": DATASET,
            "arrays": shapes,
            "rows": dataset.rows,
            "event_types": dataset.event_types,
            "max_length": dataset.max_length,
            "model": dataset.model.model_dump(mode="json"),
            "training": dataset.training.model_dump(mode="json"),
            "repeats": dataset.repeats.plain(),
        }
    )
    group.share_arrays(arrays, shapes)


def receive_dataset(group: TrainingGroup, message: Mapping[str, Any]) -> SharedDataset:
    """The dataset that `message` announces. Raises TrainingError where rank 0 is lost."""
    arrays = group.share_arrays({}, message["arrays"])
    weights, categories = arrays.pop("weights"), arrays.pop("item_categories")
    return SharedDataset(
        Sequences(**arrays, keys=[], folder=None),
        weights,
        categories,
        rows=message["rows"],
        event_types=message["event_types"],
        max_length=message["max_length"],
        model=ModelSettings(**message["model"]),
        training=TrainingSettings(**message["training"]),
        repeats=RepeatPolicy(**message["repeats"]),
    )


def send_state(group: TrainingGroup, state: SharedState) -> None:
    """Give every other rank the state. Raises TrainingError where one is lost."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in state.tensors.items()}
    shapes = array_shapes(arrays)
    plain = {"rate": asdict(state.rate), "plain": state.plain, "seed": state.seed}
    group.send({"kind": EPOCH, "arrays": shapes, **plain})
    group.share_arrays(arrays, shapes)


def receive_state(group: TrainingGroup, message: Mapping[str, Any]) -> SharedState:
    """The state that `message` announces. Raises TrainingError where rank 0 is lost."""
    arrays = group.share_arrays({}, message["arrays"])
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return SharedState(tensors, message["plain"], Rate(**message["rate"]), message["seed"])
