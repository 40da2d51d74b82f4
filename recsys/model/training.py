"""The training loop: seeded, stopped by validation, its learning curve kept.

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
from numpy.typing import NDArray
from torch import Tensor

from recsys.config import ModelSettings, TrainingSettings
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import FIRST_ITEM, PADDING, UNKNOWN
from recsys.errors import NotEnoughDataError, TrainingError
from recsys.model.batches import TrainingBatch, Windows, batch_count, cut_windows, training_batches
from recsys.model.losses import NegativeSampler, full_loss, sampled_loss
from recsys.model.network import InputTensors, NetworkShape, NextItemNetwork
from recsys.model.optimizer import TableAdamW
from recsys.model.scoring import NetworkScorer

Float32Array = NDArray[np.float32]

BETAS = (0.9, 0.98)
UNKNOWN_SHARE = 0.01  # inputs shown as unknown, so that the unknown row learns a meaning
FINAL_RATE = 0.2  # learning rate of the final pass, as a share of the peak

Validate = Callable[[NetworkScorer], float]


@dataclass(frozen=True)
class Progress:
    """What a progress bar or a run's row shows."""

    stage: str  # 'train' or 'final pass'
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


@dataclass
class _Rate:
    """The learning rate: linear warm-up, then half a cosine down to a hundredth."""

    peak: float
    warmup: int
    steps: int
    at: int = 0

    def next(self) -> float:
        self.at += 1
        if self.at <= self.warmup:
            return self.peak * self.at / self.warmup
        share = min(1.0, (self.at - self.warmup) / max(1, self.steps - self.warmup))
        return self.peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class Trainer:
    """One network and its optimisers; `epoch` and `final_pass` move it on."""

    def __init__(
        self,
        rows: int,
        event_types: int,
        max_length: int,
        model: ModelSettings,
        training: TrainingSettings,
    ) -> None:
        """`rows` = V; `event_types` = rows of the event type channel, missing included."""
        if training.threads:
            torch.set_num_threads(training.threads)
        torch.manual_seed(training.seed)
        self.rng = np.random.default_rng(training.seed)
        self.settings = training
        self._model = model
        self.max_length = max_length
        self.network = NextItemNetwork(
            NetworkShape(
                rows=rows,
                width=model.width,
                layers=model.layers,
                event_types=event_types,
                embedding_dropout=model.embedding_dropout,
                dropout=model.dropout,
            )
        )
        self._body = list(self.network.body().values())
        decayed = [p for p in self._body if p.dim() > 1]
        plain = [p for p in self._body if p.dim() <= 1]
        groups = [
            {"params": decayed, "weight_decay": training.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, betas=BETAS)
        table, bias = self.network.items.weight.data, self.network.item_bias.data
        self._full = rows - FIRST_ITEM <= training.full_softmax_items
        self.table_rows = TableAdamW(table, BETAS, training.weight_decay, lazy=not self._full)
        self.bias_rows = TableAdamW(bias, BETAS, 0.0, lazy=not self._full)

    def grown(self, rows: int) -> Trainer:
        """A trainer of the same network with new rows at the table's end, drawn as at the start."""
        types = self.network.shape.event_types
        grown = Trainer(rows, types, self.max_length, self._model, self.settings)
        state = self.network.state_dict()
        for name in ("items.weight", "item_bias"):
            fresh = grown.network.state_dict()[name].clone()
            fresh[: len(state[name])] = state[name]
            state[name] = fresh
        grown.network.load_state_dict(state)
        return grown

    def scorer(self) -> NetworkScorer:
        return NetworkScorer(self.network, self.max_length)

    def windows(self, sequences: Sequences, weights: Float32Array) -> Windows:
        return cut_windows(sequences, self.max_length, weights)

    def epoch(
        self,
        windows: Windows,
        sampler: NegativeSampler,
        rate: _Rate,
        on_step: Callable[[int, float], None],
    ) -> tuple[float, int]:
        """Train over `windows` once: mean loss in nats a target, and events seen.

        Raises TrainingError where the loss stops being a number.
        """
        self.network.train()
        total, targets, events = 0.0, 0.0, 0
        for batch in training_batches(
            windows, self.max_length, self.settings.batch_events, self.rng
        ):
            weight = float(batch.weights.sum())
            if weight == 0:
                continue
            loss = self._step(batch, sampler, rate.next())
            total, targets = total + loss, targets + weight
            seen = int((batch.inputs.items != PADDING).sum())
            events += seen
            on_step(seen, total / targets)
        return total / max(targets, 1e-9), events

    def _step(self, batch: TrainingBatch, sampler: NegativeSampler, rate: float) -> float:
        items = batch.inputs.items
        hidden = (self.rng.random(items.shape) < UNKNOWN_SHARE) & (items != PADDING)
        items = np.where(hidden, UNKNOWN, items)
        chosen = batch.weights > 0  # (B, T)
        targets = batch.targets[chosen]  # (P,)
        negatives = None if self._full else sampler.draw(self.rng)
        table: Tensor = self.network.items.weight
        bias: Tensor = self.network.item_bias
        rows: Tensor | None = None
        if negatives is not None:
            # Only the rows a step needs become its table, so that its cost does not grow with V.
            used = np.unique(np.concatenate((items.ravel(), targets, negatives)))
            rows = torch.from_numpy(used)
            items, targets = np.searchsorted(used, items), np.searchsorted(used, targets)
            table = table.detach()[rows].requires_grad_()
            bias = bias.detach()[rows].requires_grad_()
        states = self.network(
            InputTensors(
                items=torch.from_numpy(items),
                event_types=torch.from_numpy(batch.inputs.event_types),
                gaps=torch.from_numpy(batch.inputs.gaps),
                session_starts=torch.from_numpy(batch.inputs.session_starts),
            ),
            table,
        )[torch.from_numpy(chosen)]  # (P, D)
        weights = torch.from_numpy(batch.weights[chosen])
        if negatives is None:
            loss = full_loss(states, table, bias, torch.from_numpy(targets), weights)
        else:
            loss = sampled_loss(
                states,
                table,
                bias,
                torch.from_numpy(targets),
                weights,
                torch.from_numpy(np.searchsorted(used, negatives)),
                torch.from_numpy(sampler.log_expected(negatives)),
            )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"the loss became {value}; lower training.learning_rate")
        # A fixed divisor, so that the small batches of rare lengths do not count for more.
        (loss / self.settings.batch_events).backward()  # type: ignore[no-untyped-call]
        assert table.grad is not None and bias.grad is not None
        clip = torch.nn.utils.clip_grad_norm_
        clip([*self._body, table, bias], self.settings.gradient_clip, error_if_nonfinite=False)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.table_rows.step(rows, table.grad, rate)
        self.bias_rows.step(rows, bias.grad, rate)
        self.network.items.weight.grad = self.network.item_bias.grad = None
        return value


def train_network(
    sequences: Sequences,
    weights: Float32Array,
    trainer: Trainer,
    validate: Validate | None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> LearningCurve:
    """Train until validation stops improving for `patience` epochs; the best weights are kept.

    sequences: items are vocabulary indices; weights (E,): weight of each event as a target, 0 for
    none. Raises NotEnoughDataError where no sequence has a target, TrainingError where the loss
    stops being a number.
    """
    settings = trainer.settings
    windows = trainer.windows(sequences, weights)
    sampler = _sampler(trainer, sequences, weights)
    steps = settings.epochs * batch_count(windows, trainer.max_length, settings.batch_events)
    if steps == 0:
        raise NotEnoughDataError("no sequence has two events, so there is nothing to predict")
    rate = _Rate(settings.learning_rate, min(settings.warmup_steps, steps // 4), steps)
    curve = LearningCurve()
    best, best_weights = -math.inf, None
    meter = _Meter(settings.epochs, sequences.event_count, on_progress)
    for epoch in range(1, settings.epochs + 1):
        loss, events, seconds = meter.run("train", epoch, trainer, windows, sampler, rate)
        figure = validate(trainer.scorer()) if validate else None
        curve.epochs.append(EpochRecord(epoch, loss, figure, seconds, events / seconds))
        if figure is None or figure > best:
            best, curve.best_epoch = figure if figure is not None else best, epoch
            best_weights = {k: v.clone() for k, v in trainer.network.state_dict().items()}
        elif epoch - curve.best_epoch >= settings.patience:
            break
    if best_weights is not None:
        trainer.network.load_state_dict(best_weights)
    trainer.network.eval()
    curve.seconds = meter.seconds
    curve.events_per_second = meter.events / max(meter.seconds, 1e-9)
    return curve


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
    sampler = _sampler(trainer, sequences, weights)
    steps = epochs * batch_count(windows, trainer.max_length, trainer.settings.batch_events)
    rate = _Rate(trainer.settings.learning_rate * FINAL_RATE, 1, steps)
    meter = _Meter(epochs, sequences.event_count, on_progress)
    for epoch in range(1, epochs + 1):
        meter.run("final pass", epoch, trainer, windows, sampler, rate)
    trainer.network.eval()


def _sampler(trainer: Trainer, sequences: Sequences, weights: Float32Array) -> NegativeSampler:
    rows = trainer.network.shape.rows
    counts = np.bincount(sequences.items[weights > 0], minlength=rows)
    return NegativeSampler(counts, trainer.settings.negatives)


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
        rate: _Rate,
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
