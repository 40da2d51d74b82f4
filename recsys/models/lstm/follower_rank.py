"""What a rank other than 0 does: rank 0's epochs, with its sequences and from its state."""

from __future__ import annotations

from typing import Any

import torch

from recsys.config import ModelSettings, TrainingSettings
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Sequences
from recsys.models.lstm.batches import Windows
from recsys.models.lstm.losses import NegativeSampler
from recsys.models.lstm.process_group import TrainingGroup
from recsys.models.lstm.trainer import Rate, Trainer

Lesson = tuple[Trainer, Windows, NegativeSampler]


def follow(group: TrainingGroup) -> None:
    """Take part in rank 0's trainings until it says that they are over.

    Raises TrainingError where a rank is lost, or where the loss stops being a number.
    """
    lesson: Lesson | None = None
    while (task := group.receive())["kind"] != "end":
        if task["kind"] == "lesson":
            lesson = _lesson(group, task)
        else:
            assert lesson is not None
            _epoch(group, task, *lesson)


def _lesson(group: TrainingGroup, task: dict[str, Any]) -> Lesson:
    arrays = group.share_arrays({}, task["arrays"])
    weights, categories = arrays.pop("weights"), arrays.pop("item_categories")
    made_of = dict(task["trainer"])
    trainer = Trainer(
        model=ModelSettings(**made_of.pop("model")),
        training=TrainingSettings(**made_of.pop("training")),
        repeats=RepeatPolicy(**made_of.pop("repeats")),
        item_categories=categories,
        **made_of,
    )
    sequences = Sequences(**arrays, keys=[], folder=None)
    return trainer, trainer.windows(sequences, weights), trainer.sampler(sequences, weights)


def _epoch(
    group: TrainingGroup,
    task: dict[str, Any],
    trainer: Trainer,
    windows: Windows,
    sampler: NegativeSampler,
) -> None:
    arrays = group.share_arrays({}, task["arrays"])
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    trainer.restore(tensors, task["plain"])
    torch.manual_seed(task["seed"])
    trainer.epoch(windows, sampler, Rate(**task["rate"]), lambda events, loss: None)
