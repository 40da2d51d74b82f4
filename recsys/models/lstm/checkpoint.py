"""A whole training and its progress, as bytes and plain values and back.

Nothing is ever unpickled: safetensors holds numbers only.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from recsys.models.version_facts import EpochRecord, LearningCurve


@dataclass(frozen=True)
class TrainingState:
    """A training after its last finished epoch: all that the rest of it depends on."""

    tensors: dict[str, Tensor]  # of the trainer, as `plain`
    plain: dict[str, Any]  # JSON-ready
    rate_at: int  # steps of the learning rate's schedule
    curve: LearningCurve
    best: float  # validation figure so far; -inf where there is none
    best_weights: dict[str, Tensor] | None


@dataclass(frozen=True)
class TrainingCheckpoint:
    """The state of a training in one file.

    The file is the SHA-256 of what follows, the length of a JSON part, that part, and safetensors.
    It is read back only under the same `key`, which names the data and the settings.
    """

    path: Path
    key: str

    def save(self, state: TrainingState) -> None:
        """Replace the file whole; a kill leaves the old one or the new one."""
        tensors = {**state.tensors}
        tensors |= {f"best.{name}": t for name, t in (state.best_weights or {}).items()}
        facts = {
            "key": self.key,
            "trainer": state.plain,
            "rate_at": state.rate_at,
            "best": state.best if math.isfinite(state.best) else None,
            "best_epoch": state.curve.best_epoch,
            "epochs": [asdict(record) for record in state.curve.epochs],
        }
        # The generator's state holds integers of 128 bits, which only this parser keeps.
        text = json.dumps(facts).encode()
        numbers = save_tensors({name: t.contiguous().clone() for name, t in tensors.items()})
        content = len(text).to_bytes(8, "little") + text + numbers
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        with open(part, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)

    def load(self) -> TrainingState | None:
        """The state, or None where there is none of this key or the file is damaged."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return None
        content = data[32:]
        if hashlib.sha256(content).digest() != data[:32]:
            return None
        size = int.from_bytes(content[:8], "little")
        facts: dict[str, Any] = json.loads(content[8 : 8 + size])
        if facts["key"] != self.key:
            return None
        tensors = load_tensors(content[8 + size :])
        best = {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
        return TrainingState(
            {name: tensor for name, tensor in tensors.items() if not name.startswith("best.")},
            facts["trainer"],
            int(facts["rate_at"]),
            LearningCurve(
                [EpochRecord(**one) for one in facts["epochs"]], int(facts["best_epoch"])
            ),
            -math.inf if facts["best"] is None else float(facts["best"]),
            best,
        )

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


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
