"""What rank 0 tells the other ranks of a training: the dataset, and its state at each epoch.

A message is JSON; arrays follow it through the group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.config import ModelSettings, TrainingSettings
from recsys.events.array_types import Float32Array, Int32Array
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Sequences
from recsys.models.lstm.optimizer import Rate
from recsys.models.lstm.process_group import TrainingGroup, array_shapes

DATASET, EPOCH = "dataset", "epoch"  # kinds of messages, beside END


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
