"""How a network is fitted: batch -> loss -> gradients -> update, epoch after epoch, stopped by
validation. Seeded and resumable; over several ranks the same weights as over one.

Training knows no metric: the caller hands `train_network` a `validate`, which maps a scorer to the
figure to be maximised (the pipeline's is the geometric mean of recall@20 and MRR@20).

Legend: B batch, T time, P targets in a batch, E events, V vocabulary rows, R rows in use, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.config import ModelSettings, TrainingSettings
from recsys.errors import NotEnoughDataError, TrainingError
from recsys.events.array_types import BoolArray, Float32Array, Int32Array, Int64Array
from recsys.events.large_arrays import count_codes
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Sequences
from recsys.events.vocabulary import FIRST_ITEM, PADDING, UNKNOWN
from recsys.models.lstm.batch_scorer import BatchScorer
from recsys.models.lstm.batches import (
    TrainingBatch,
    Windows,
    batch_count,
    cut_windows,
    training_batches,
)
from recsys.models.lstm.bodies import RowShare
from recsys.models.lstm.checkpoint import Progress, ProgressMeter, TrainingCheckpoint, TrainingState
from recsys.models.lstm.losses import NegativeSampler, RowsInUse, log_softmax_at, mix_with_copies
from recsys.models.lstm.network import BatchTensors, NextItemNetwork, channel_rows
from recsys.models.lstm.optimizer import (
    NetworkOptimizer,
    Rate,
    choose_device,
    choose_product,
    narrow_network,
)
from recsys.models.lstm.process_group import END, TrainingGroup, present_group
from recsys.models.lstm.rank_messages import (
    DATASET,
    SharedDataset,
    SharedState,
    receive_dataset,
    receive_state,
    send_dataset,
    send_state,
)
from recsys.models.lstm.weights import NetworkShape
from recsys.models.version_facts import EpochRecord, LearningCurve
from recsys.progress import quiet

Validate = Callable[[BatchScorer], float]

UNKNOWN_SHARE = 0.01  # inputs shown as unknown, so that the unknown row learns a meaning
FINAL_RATE = 0.2  # learning rate of the final pass, as a share of the peak
FULL_RATE = 1.7  # likewise, of a softmax over the whole catalogue: docs/log.md
WARM_RATE = 0.7  # likewise, of a training that starts from another's weights


@dataclass(frozen=True)
class Schedule:
    """How a training differs from what the settings say."""

    stage: str = "train"  # as progress names it
    epochs: int | None = None  # in place of the settings'
    rate_share: float = 1.0  # of the settings' learning rate


AS_CONFIGURED = Schedule()


class Trainer:
    """One network and its optimizer; `epoch` moves it on."""

    def __init__(
        self,
        rows: int,
        event_types: int,
        max_length: int,
        model: ModelSettings,
        training: TrainingSettings,
        repeats: RepeatPolicy | None = None,
        item_categories: Int32Array | None = None,
    ) -> None:
        """`rows` = V; `event_types` = rows of that channel, missing included; `item_categories`
        (V,): the category of each row, 0 = missing.
        """
        self.group = present_group()  # the ranks that train together, if there are several
        self._sent: Windows | None = None  # what the other ranks were last given to train on
        if training.threads:
            torch.set_num_threads(training.threads)
        torch.manual_seed(training.seed)
        self.rng = np.random.default_rng(training.seed)
        self.event_types, self.model, self.settings = event_types, model, training
        self.repeats = repeats = repeats or RepeatPolicy(True, True)
        self.max_length = max_length
        self.device = choose_device(training.device)
        self.product = choose_product(training.precision, self.device)
        self._narrow = narrow_network(self.product, self.device)
        categories = np.zeros(rows, np.int32) if item_categories is None else item_categories[:rows]
        channels = channel_rows(model.channels, event_types, int(categories.max(initial=0)) + 1)
        self.network = NextItemNetwork(
            NetworkShape(
                rows=rows,
                width=model.width,
                layers=model.layers,
                max_length=max_length,
                body=model.network,
                copy=model.copy_head and (repeats.current_may_recur or repeats.seen_may_recur),
                channels=channels,
                embedding_dropout=model.embedding_dropout,
                dropout=model.dropout,
            )
        )
        self.network.item_categories.copy_(torch.from_numpy(categories))
        self.network.to(self.device)
        self._row_share = RowShare()
        self.network.share_randomness(self.rng, self._row_share)
        self._full = rows - FIRST_ITEM <= training.full_softmax_items
        self.optimizer = NetworkOptimizer(self.network, training, lazy=not self._full)

    @property
    def learning_rate(self) -> float:
        """The peak of the learning rate of a training from nothing."""
        return self.settings.learning_rate * (FULL_RATE if self._full else 1.0)

    def scorer(self) -> BatchScorer:
        return BatchScorer(self.network, self.max_length, self.repeats)

    def dataset(
        self, sequences: Sequences, weights: Float32Array
    ) -> tuple[Windows, NegativeSampler]:
        """Training windows of `sequences`, and negatives by how often an item is a target.

        weights (E,): weight of each event as a target, 0 for none.
        """
        counts = count_codes(sequences.items, self.network.shape.rows, weights > 0)
        windows = cut_windows(sequences, self.max_length, weights)
        return windows, NegativeSampler(counts, self.settings.negatives)

    def epoch(
        self,
        windows: Windows,
        sampler: NegativeSampler,
        rate: Rate,
        on_step: Callable[[int, float], None],
    ) -> tuple[int, float]:
        """Train over `windows` once: events seen, and the mean loss in nats a target.

        `on_step` is told both after each batch. Raises TrainingError where the loss stops being a
        number.
        """
        self.network.train()
        if self.group is not None and self.group.rank == 0:
            self._send(self.group, windows, rate)
        total, targets, events = 0.0, 0.0, 0
        for batch in training_batches(
            windows, self.max_length, self.settings.batch_events, self.rng
        ):
            if not self.repeats.current_may_recur:
                # What is never shown cannot be learned from: the current item as its own successor.
                batch.weights[batch.targets == batch.inputs.items] = 0
            weight = float(batch.weights.sum())
            if weight == 0:
                continue
            loss = self._step(batch, sampler, rate.next())
            total, targets = total + loss, targets + weight
            seen = int(np.count_nonzero(batch.inputs.items))
            events += seen
            on_step(seen, total / targets)
        return events, total / max(targets, 1e-9)

    def _step(self, batch: TrainingBatch, sampler: NegativeSampler, rate: float) -> float:
        """One update; the batch's loss, summed over its targets."""
        hidden = self.rng.random(batch.inputs.items.shape, np.float32) < UNKNOWN_SHARE
        items = np.where(hidden & (batch.inputs.items != PADDING), UNKNOWN, batch.inputs.items)
        table, bias = self.network.items.weight, self.network.item_bias
        chosen = batch.weights > 0  # (B, T)
        if self._full:
            used = RowsInUse.whole(table, bias)
        else:
            needed = np.concatenate((items.ravel(), batch.targets[chosen]))
            used = RowsInUse.sampled(table, bias, needed, sampler, self.rng)
        if self.group is not None:  # all that is drawn was drawn for the whole batch
            batch, items, chosen = self._own_rows(self.group, batch, items, chosen)
        likelihood = self._log_likelihood(batch, items, chosen, used)
        weights = torch.from_numpy(batch.weights[chosen]).to(self.device)
        loss = -(likelihood * weights).sum()
        found = float(loss.detach())
        # A fixed divisor, so that the small batches of rare lengths do not count for more.
        (loss / self.settings.batch_events).backward()  # type: ignore[no-untyped-call]
        if self.group is not None:
            parameters = [*self.optimizer.dense, used.table, used.bias]
            found = self.group.sum_gradients(parameters, found)
        if not math.isfinite(found):
            raise TrainingError(f"the loss became {found}; lower training.learning_rate")
        self.optimizer.step(used.rows, used.table, used.bias, rate)
        table.grad = bias.grad = None
        return found

    def _log_likelihood(
        self, batch: TrainingBatch, items: Int64Array, chosen: BoolArray, used: RowsInUse
    ) -> Tensor:
        """log P(target) (P,) of each target; `chosen` (B, T) says where there is one."""
        network, device, rows = self.network, self.device, used.rows
        targets = used.number(batch.targets[chosen])  # (P,)
        numbered = torch.from_numpy(used.number(items)).to(device)  # (B, T)
        categories = network.item_categories if rows is None else network.item_categories[rows]
        with torch.autocast(device.type, torch.bfloat16, self._narrow):
            x, y = network(BatchTensors.of(batch.inputs, device, numbered), used.table, categories)
        x, y = x.float(), y.float()  # (B, T, D)
        flat = torch.from_numpy(np.flatnonzero(chosen)).to(device)  # (P,)
        states = y.flatten(0, 1).index_select(0, flat)  # (P, D)
        value = log_softmax_at(
            states,
            used.table,
            used.bias,
            targets,
            used.negatives,
            used.log_expected,
            self.product,
        )  # (P,)
        if network.copy_head is None:
            return value
        seen = torch.from_numpy(items).to(device)
        shares, gate = network.copy_head(x, y, seen, self.repeats.current_may_recur)
        wanted = torch.from_numpy(batch.targets).to(device)
        pointed = (shares * (seen[:, None, :] == wanted[:, :, None])).sum(-1)  # (B, T)
        return mix_with_copies(value, pointed.flatten()[flat], gate.flatten()[flat])

    def _own_rows(
        self,
        group: TrainingGroup,
        batch: TrainingBatch,
        items: Int64Array,
        chosen: BoolArray,
    ) -> tuple[TrainingBatch, Int64Array, BoolArray]:
        """This rank's rows of a batch; where there are none, the first row at no weight, so that
        every rank draws and sums alike.
        """
        own, share = group.rows(len(items)), 1.0
        if not len(own):
            own, share = np.zeros(1, np.int64), 0.0
        self._row_share.rows, self._row_share.count = own, len(items)
        weights = batch.weights[own] * np.float32(share)
        part = TrainingBatch(batch.inputs.select(own), batch.targets[own], weights)
        return part, items[own], chosen[own]

    def _send(self, group: TrainingGroup, windows: Windows, rate: Rate) -> None:
        """Have all other ranks run this epoch too, from this rank's state: see `follow`."""
        if self._sent is not windows:
            precision = "float32" if self.product == torch.float32 else "bfloat16"
            dataset = SharedDataset(
                windows.sequences,
                windows.weights,
                self.network.item_categories.cpu().numpy(),
                rows=self.network.shape.rows,
                event_types=self.event_types,
                max_length=self.max_length,
                model=self.model,
                training=self.settings.model_copy(update={"precision": precision}),
                repeats=self.repeats,
            )
            send_dataset(group, dataset)
            self._sent = windows
        send_state(group, SharedState(*self.state(), rate, torch.initial_seed()))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next epoch depends on: tensors by name, and JSON-ready values."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        moments, steps = self.optimizer.state()
        return {**tensors, **moments}, {"rng": self.rng.bit_generator.state, **steps}

    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Go back to what `state` gave. Raises KeyError or RuntimeError where it does not fit."""
        prefix = "network."
        self.network.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        self.optimizer = NetworkOptimizer(self.network, self.settings, lazy=not self._full)
        self.optimizer.restore(tensors, plain)
        self.rng.bit_generator.state = dict(plain["rng"])


def train_network(
    sequences: Sequences,
    weights: Float32Array,
    trainer: Trainer,
    validate: Validate | None,
    on_progress: Callable[[Progress], None] = quiet,
    *,
    schedule: Schedule = AS_CONFIGURED,
    checkpoint: TrainingCheckpoint | None = None,
) -> LearningCurve:
    """Train until validation stops improving for `patience` epochs; the best weights are kept.

    sequences: items are vocabulary indices; weights (E,): weight of each event as a target, 0 for
    none. With a `checkpoint`, each finished epoch is written down, and a training of the same key
    goes on after the last one. Raises NotEnoughDataError where no sequence has a target,
    TrainingError where the loss stops being a number.
    """
    settings = trainer.settings
    epochs = settings.epochs if schedule.epochs is None else schedule.epochs
    windows, sampler = trainer.dataset(sequences, weights)
    steps = epochs * batch_count(windows, trainer.max_length, settings.batch_events)
    if steps == 0:
        raise NotEnoughDataError("no sequence has two events, so there is nothing to predict")
    rate = Rate(
        trainer.learning_rate * schedule.rate_share, min(settings.warmup_steps, steps // 4), steps
    )
    curve = LearningCurve()
    best, best_weights = -math.inf, None
    saved = checkpoint.load() if checkpoint else None
    if saved is not None:
        trainer.restore(saved.tensors, saved.plain)
        rate.at, curve = saved.rate_at, saved.curve
        best, best_weights = saved.best, saved.best_weights
    meter = ProgressMeter(schedule.stage, epochs, sequences.event_count, on_progress)
    for epoch in range(len(curve.epochs) + 1, epochs + 1):
        if curve.best_epoch and epoch - 1 - curve.best_epoch >= settings.patience:
            break
        torch.manual_seed(settings.seed + epoch)
        meter.start(epoch)
        events, loss = trainer.epoch(windows, sampler, rate, meter.step)
        seconds = meter.finish(events, loss)
        figure = validate(trainer.scorer()) if validate else None
        curve.epochs.append(EpochRecord(epoch, loss, figure, seconds, events / seconds))
        if figure is None or figure > best:
            best, curve.best_epoch = figure if figure is not None else best, epoch
            best_weights = {k: v.clone() for k, v in trainer.network.state_dict().items()}
        if checkpoint is not None and epoch < epochs:
            state = trainer.state()
            checkpoint.save(TrainingState(*state, rate.at, curve, best, best_weights))
    if best_weights is not None:
        trainer.network.load_state_dict(best_weights)
    trainer.network.eval()
    curve.close()
    return curve


def final_pass(
    sequences: Sequences,
    weights: Float32Array,
    trainer: Trainer,
    epochs: int,
    on_progress: Callable[[Progress], None] = quiet,
) -> None:
    """Go on for `epochs` at a low rate over `sequences`, which now include the newest events."""
    if epochs == 0:
        return
    windows, sampler = trainer.dataset(sequences, weights)
    steps = epochs * batch_count(windows, trainer.max_length, trainer.settings.batch_events)
    rate = Rate(trainer.learning_rate * FINAL_RATE, 1, steps)
    meter = ProgressMeter("final pass", epochs, sequences.event_count, on_progress)
    for epoch in range(1, epochs + 1):
        meter.start(epoch)
        meter.finish(*trainer.epoch(windows, sampler, rate, meter.step))
    trainer.network.eval()


def follow(group: TrainingGroup) -> None:
    """Run the epochs of rank 0 too, on its dataset and from its state, until it says that it is done.

    Raises TrainingError where a rank is lost, or where the loss stops being a number.
    """
    trainer = windows = sampler = None
    while (message := group.receive())["kind"] != END:
        if message["kind"] == DATASET:
            data = receive_dataset(group, message)
            trainer = Trainer(
                data.rows,
                data.event_types,
                data.max_length,
                data.model,
                data.training,
                data.repeats,
                data.item_categories,
            )
            windows, sampler = trainer.dataset(data.sequences, data.weights)
            continue
        assert trainer is not None and windows is not None and sampler is not None
        state = receive_state(group, message)
        trainer.restore(state.tensors, state.plain)
        torch.manual_seed(state.seed)
        trainer.epoch(windows, sampler, state.rate, lambda events, loss: None)
