"""How far a training is, and what each of its epochs came to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np

REPORT_SECONDS = 0.1  # between two reports within an epoch


@dataclass(frozen=True)
class Progress:
    """What a progress bar or a run's row shows."""

    stage: str  # 'train', 'refit' or 'final pass'
    epoch: int  # 1-based
    epochs: int
    done: float  # 0..1 of the whole training, early stop aside
    events_per_second: float
    seconds_left: float
    loss: float  # mean over the epoch so far, nats a target


@dataclass(frozen=True)
class EpochRecord:
    """One point of the learning curve."""

    epoch: int
    loss: float  # nats a target
    validation: float | None
    seconds: float
    events_per_second: float


@dataclass
class LearningCurve:
    """The epochs of a training, and which of them validated best."""

    epochs: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    events_per_second: float = 0.0
    seconds: float = 0.0

    def plain(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self)

    def close(self) -> None:
        """Add up the time of all epochs."""
        self.seconds = sum(record.seconds for record in self.epochs)
        self.events_per_second = float(
            np.average(
                [record.events_per_second for record in self.epochs],
                weights=[max(record.seconds, 1e-9) for record in self.epochs],
            )
        )


@dataclass
class ProgressMeter:
    """Times the epochs of one training, and reports it at most ten times a second."""

    stage: str
    epochs: int
    epoch_events: int  # events of one epoch
    on_progress: Callable[[Progress], None]
    epoch: int = 0
    events: int = 0  # of finished epochs, as `seconds`
    seconds: float = 0.0
    _started: float = 0.0
    _reported: float = 0.0
    _done: int = 0  # events of this epoch so far

    def start(self, epoch: int) -> None:
        """Begin `epoch` (1-based)."""
        self.epoch, self._done = epoch, 0
        self._started = self._reported = time.perf_counter()

    def step(self, events: int, loss: float) -> None:
        """After a batch of `events`; `loss` is the epoch's mean so far."""
        self._done += events
        now = time.perf_counter()
        if now - self._reported < REPORT_SECONDS:
            return
        self._reported = now
        speed = (self.events + self._done) / (self.seconds + now - self._started)
        share = min(1.0, self._done / max(1, self.epoch_events))
        done = (self.epoch - 1 + share) / self.epochs
        left = self.epochs * self.epoch_events * (1 - done) / speed
        self._report(done, speed, left, loss)

    def finish(self, events: int, loss: float) -> float:
        """After the epoch's last batch, with its totals; the seconds it took."""
        seconds = time.perf_counter() - self._started
        self.events, self.seconds = self.events + events, self.seconds + seconds
        speed = self.events / max(self.seconds, 1e-9)
        left = (self.epochs - self.epoch) * seconds
        self._report(self.epoch / self.epochs, speed, left, loss)
        return seconds

    def _report(self, done: float, speed: float, left: float, loss: float) -> None:
        self.on_progress(Progress(self.stage, self.epoch, self.epochs, done, speed, left, loss))
