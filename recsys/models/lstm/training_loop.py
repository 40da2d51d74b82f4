"""The training loop: seeded, stopped by validation, its learning curve kept, resumable.

Training knows no metric: the caller hands it `validate`, which maps a scorer to the figure to be
maximised (the pipeline's is MRR@20 on the validation window).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor

from recsys.errors import NotEnoughDataError
from recsys.events.array_types import Float32Array
from recsys.events.sequences import Sequences
from recsys.models.lstm.batches import Windows, batch_count
from recsys.models.lstm.checkpoint import TrainingCheckpoint
from recsys.models.lstm.embedding_init import neighbour_vectors
from recsys.models.lstm.losses import NegativeSampler
from recsys.models.lstm.scoring import NetworkScorer
from recsys.models.lstm.trainer import Rate, Trainer

FINAL_RATE = 0.2  # learning rate of the final pass, as a share of the peak
WARM_RATE = 0.7  # likewise, of a training that starts from another's weights

Validate = Callable[[NetworkScorer], float]


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
    loss: float
    validation: float | None
    seconds: float
    events_per_second: float


@dataclass
class LearningCurve:
    epochs: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    events_per_second: float = 0.0
    seconds: float = 0.0

    def plain(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self)


def start_cold(trainer: Trainer, sequences: Sequences) -> None:
    """Item vectors from what stood beside what; see `embedding_start`."""
    settings = trainer.settings
    if not settings.neighbour_start:
        return
    shape = trainer.network.shape
    vectors = neighbour_vectors(sequences, shape.rows, shape.width, settings.seed)
    if vectors is None:
        return
    with torch.no_grad():
        found = vectors.norm(dim=1) > 0
        trainer.network.items.weight[found] = vectors[found].to(trainer.device)


def train_network(
    sequences: Sequences,
    weights: Float32Array,
    trainer: Trainer,
    validate: Validate | None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    *,
    stage: str = "train",
    epochs: int | None = None,
    rate_share: float = 1.0,
    checkpoint: TrainingCheckpoint | None = None,
) -> LearningCurve:
    """Train until validation stops improving for `patience` epochs; the best weights are kept.

    sequences: items are vocabulary indices; weights (E,): weight of each event as a target, 0 for
    none; `epochs` in place of the settings'; `rate_share` of the settings' learning rate. With a
    `checkpoint`, each finished epoch is written down, and a training of the same key goes on after
    the last one. Raises NotEnoughDataError where no sequence has a target, TrainingError where the
    loss stops being a number.
    """
    settings = trainer.settings
    epochs = settings.epochs if epochs is None else epochs
    windows = trainer.windows(sequences, weights)
    sampler = trainer.sampler(sequences, weights)
    steps = epochs * batch_count(windows, trainer.max_length, settings.batch_events)
    if steps == 0:
        raise NotEnoughDataError("no sequence has two events, so there is nothing to predict")
    peak = settings.learning_rate * rate_share
    rate = Rate(peak, min(settings.warmup_steps, steps // 4), steps)
    curve = LearningCurve()
    best, best_weights = -math.inf, None
    saved = checkpoint.load() if checkpoint else None
    if saved is not None:
        best, best_weights = _resume(trainer, rate, curve, *saved)
    meter = _Meter(epochs, sequences.event_count, on_progress)
    for epoch in range(len(curve.epochs) + 1, epochs + 1):
        if curve.best_epoch and epoch - 1 - curve.best_epoch >= settings.patience:
            break
        torch.manual_seed(settings.seed + epoch)
        loss, events, seconds = meter.run(stage, epoch, trainer, windows, sampler, rate)
        figure = validate(trainer.scorer()) if validate else None
        curve.epochs.append(EpochRecord(epoch, loss, figure, seconds, events / seconds))
        if figure is None or figure > best:
            best, curve.best_epoch = figure if figure is not None else best, epoch
            best_weights = {k: v.clone() for k, v in trainer.network.state_dict().items()}
        if checkpoint is not None and epoch < epochs:
            _write_down(checkpoint, trainer, rate, curve, best, best_weights)
    if best_weights is not None:
        trainer.network.load_state_dict(best_weights)
    trainer.network.eval()
    curve.seconds = sum(record.seconds for record in curve.epochs)
    curve.events_per_second = float(
        np.average(
            [record.events_per_second for record in curve.epochs],
            weights=[max(record.seconds, 1e-9) for record in curve.epochs],
        )
    )
    return curve


def _write_down(
    checkpoint: TrainingCheckpoint,
    trainer: Trainer,
    rate: Rate,
    curve: LearningCurve,
    best: float,
    best_weights: dict[str, Tensor] | None,
) -> None:
    tensors, plain = trainer.state()
    tensors.update({f"best.{k}": v for k, v in (best_weights or {}).items()})
    facts = {
        "trainer": plain,
        "rate_at": rate.at,
        "best": best if math.isfinite(best) else None,
        "best_epoch": curve.best_epoch,
        "epochs": [asdict(record) for record in curve.epochs],
    }
    checkpoint.save(tensors, facts)


def _resume(
    trainer: Trainer,
    rate: Rate,
    curve: LearningCurve,
    tensors: dict[str, Tensor],
    facts: dict[str, object],
) -> tuple[float, dict[str, Tensor]]:
    """Put everything back as `_write_down` found it; the best figure and its weights."""
    trainer.restore(tensors, facts["trainer"])  # type: ignore[arg-type]
    rate.at = int(facts["rate_at"])  # type: ignore[call-overload]
    curve.epochs = [EpochRecord(**record) for record in facts["epochs"]]  # type: ignore[attr-defined]
    curve.best_epoch = int(facts["best_epoch"])  # type: ignore[call-overload]
    best = -math.inf if facts["best"] is None else float(facts["best"])  # type: ignore[arg-type]
    return best, {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}


def final_pass(
    sequences: Sequences,
    weights: Float32Array,
    trainer: Trainer,
    epochs: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Go on for `epochs` at a low rate over `sequences`, which now include the newest events."""
    if epochs == 0:
        return
    windows = trainer.windows(sequences, weights)
    sampler = trainer.sampler(sequences, weights)
    steps = epochs * batch_count(windows, trainer.max_length, trainer.settings.batch_events)
    rate = Rate(trainer.settings.learning_rate * FINAL_RATE, 1, steps)
    meter = _Meter(epochs, sequences.event_count, on_progress)
    for epoch in range(1, epochs + 1):
        meter.run("final pass", epoch, trainer, windows, sampler, rate)
    trainer.network.eval()


@dataclass
class _Meter:
    """Times epochs and reports progress at most ten times a second."""

    epochs: int
    events_an_epoch: int
    on_progress: Callable[[Progress], None]
    events: int = 0
    seconds: float = 0.0

    def run(
        self,
        stage: str,
        epoch: int,
        trainer: Trainer,
        windows: Windows,
        sampler: NegativeSampler,
        rate: Rate,
    ) -> tuple[float, int, float]:
        started = reported = time.perf_counter()
        done = 0

        def on_step(events: int, loss: float) -> None:
            nonlocal reported, done
            done += events
            now = time.perf_counter()
            if now - reported >= 0.1:
                reported = now
                spent = self.seconds + now - started
                speed = (self.events + done) / spent
                share = (epoch - 1 + min(1.0, done / max(1, self.events_an_epoch))) / self.epochs
                left = self.epochs * self.events_an_epoch * (1 - share) / speed
                self.on_progress(Progress(stage, epoch, self.epochs, share, speed, left, loss))

        loss, events = trainer.epoch(windows, sampler, rate, on_step)
        seconds = time.perf_counter() - started
        self.events, self.seconds = self.events + events, self.seconds + seconds
        speed = self.events / max(self.seconds, 1e-9)
        left = (self.epochs - epoch) * seconds
        self.on_progress(
            Progress(stage, epoch, self.epochs, epoch / self.epochs, speed, left, loss)
        )
        return loss, events, seconds
