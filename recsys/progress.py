"""How far work is, told to whoever waits for it: a terminal, the log of a run, nobody."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Say = Callable[[str], None]  # a line for people
OnRows = Callable[[str, int], None]  # a stage, and the rows of it so far
OnShare = Callable[[str, float], None]  # a stage, and how much of all is done, 0..1

Stage = Literal["reading", "fitting", "evaluating", "comparing", "publishing"]
STAGES: tuple[Stage, ...] = get_args(Stage)  # of a training, in order
BEGINS = {  # share of a training that is over when a stage begins, as it is for most logs
    "reading": 0.0,
    "fitting": 0.05,
    "evaluating": 0.75,
    "comparing": 0.93,
    "publishing": 0.97,
}
OnStage = Callable[[Stage], None]


def quiet(*_: object) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class LossPoint:
    """The loss of a training at one moment, as a line of its run's log tells it.

    >>> LossPoint("train", 1.5, 4.25).line()
    'train: loss 4.2500 after 1.50 epochs'
    >>> LossPoint.read("train: loss 4.2500 after 1.50 epochs")
    LossPoint(part='train', epochs=1.5, loss=4.25)
    >>> LossPoint.read("something else")
    """

    part: str  # of the fitting: 'train', 'refit' or 'final pass'
    epochs: float  # that are over
    loss: float  # mean over the epoch so far, nats a target

    def line(self) -> str:
        return f"{self.part}: loss {self.loss:.4f} after {self.epochs:.2f} epochs"

    @classmethod
    def read(cls, line: str) -> LossPoint | None:
        """The point that a line tells; None where it is some other line."""
        found = _LOSS.fullmatch(line)
        return None if found is None else cls(found[1], float(found[3]), float(found[2]))


_LOSS = re.compile(r"([a-z ]+): loss (\d+\.\d+) after (\d+\.\d+) epochs")
