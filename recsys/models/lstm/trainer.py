"""One network and its optimisers: a step, an epoch, and their state for a later day.

Legend: B batch, T time, P targets in a batch, V vocabulary rows, R rows in use, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.config import ModelSettings, TrainingSettings
from recsys.errors import TrainingError
from recsys.events.array_types import BoolArray, Float32Array, Int32Array, Int64Array
from recsys.events.large_arrays import count_codes
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Sequences
from recsys.events.vocabulary import FIRST_ITEM, PADDING, UNKNOWN
from recsys.models.lstm.batches import TrainingBatch, Windows, cut_windows, training_batches
from recsys.models.lstm.dropout import RowShare
from recsys.models.lstm.losses import NegativeSampler, log_softmax_at, mix_with_copies
from recsys.models.lstm.network import InputTensors, NetworkShape, NextItemNetwork, channel_rows
from recsys.models.lstm.optimizer import TableAdamW
from recsys.models.lstm.precision import choose_device, choose_product, narrow_network
from recsys.models.lstm.process_group import described, present_group
from recsys.models.lstm.scoring import NetworkScorer

BETAS = (0.9, 0.98)
UNKNOWN_SHARE = 0.01  # inputs shown as unknown, so that the unknown row learns a meaning
LAST_RATE = 0.01  # of the peak, at the end of the cosine


@dataclass
class Rate:
    """The learning rate: linear warm-up, then half a cosine down to LAST_RATE of the peak."""

    peak: float
    warmup: int
    steps: int
    at: int = 0

    def next(self) -> float:
        self.at += 1
        if self.at <= self.warmup:
            return self.peak * self.at / self.warmup
        share = min(1.0, (self.at - self.warmup) / max(1, self.steps - self.warmup))
        return self.peak * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * share)))


class Trainer:
    """One network and its optimisers; `epoch` moves it on."""

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
        self.group = present_group()  # those who train with this process, if any
        self._told: Windows | None = None  # what they were last given to learn
        if training.threads:
            torch.set_num_threads(training.threads)
        torch.manual_seed(training.seed)
        self.rng = np.random.default_rng(training.seed)
        self.settings = training
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
        self._made_of = {
            "rows": rows,
            "event_types": event_types,
            "max_length": max_length,
            "model": model.model_dump(mode="json"),
            "training": {
                **training.model_dump(mode="json"),
                "precision": "float32" if self.product == torch.float32 else "bfloat16",
            },
            "repeats": repeats.plain(),
        }
        self._full = rows - FIRST_ITEM <= training.full_softmax_items
        self._prepare()

    def _prepare(self) -> None:
        """Fresh optimiser states for the network as it stands."""
        training = self.settings
        self._dense = list(self.network.dense_parameters().values())
        groups = [
            {
                "params": [p for p in self._dense if p.dim() > 1],
                "weight_decay": training.weight_decay,
            },
            {"params": [p for p in self._dense if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=training.learning_rate, betas=BETAS, fused=True
        )
        table, bias = self.network.items.weight.data, self.network.item_bias.data
        self.table_rows = TableAdamW(table, BETAS, training.weight_decay, lazy=not self._full)
        self.bias_rows = TableAdamW(bias, BETAS, 0.0, lazy=not self._full)

    def scorer(self) -> NetworkScorer:
        return NetworkScorer(self.network, self.max_length, self.repeats)

    def windows(self, sequences: Sequences, weights: Float32Array) -> Windows:
        return cut_windows(sequences, self.max_length, weights)

    def sampler(self, sequences: Sequences, weights: Float32Array) -> NegativeSampler:
        rows = self.network.shape.rows
        counts = count_codes(sequences.items, rows, weights > 0)
        return NegativeSampler(counts, self.settings.negatives)

    def epoch(
        self,
        windows: Windows,
        sampler: NegativeSampler,
        rate: Rate,
        on_step: Callable[[int, float], None],
    ) -> tuple[float, int]:
        """Train over `windows` once: mean loss in nats a target, and events seen.

        Raises TrainingError where the loss stops being a number.
        """
        self.network.train()
        if self.group is not None and self.group.rank == 0:
            self._call_the_others(windows, rate)
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
        return total / max(targets, 1e-9), events

    def _step(self, batch: TrainingBatch, sampler: NegativeSampler, rate: float) -> float:
        hidden = self.rng.random(batch.inputs.items.shape, np.float32) < UNKNOWN_SHARE
        items = np.where(hidden & (batch.inputs.items != PADDING), UNKNOWN, batch.inputs.items)
        chosen = batch.weights > 0  # (B, T)
        network, device = self.network, self.device
        table: Tensor = network.items.weight
        bias: Tensor = network.item_bias
        rows: Tensor | None = None
        if self._full:
            negatives = np.arange(FIRST_ITEM, len(table))
            log_expected = np.zeros(len(negatives), np.float32)
            used = None
        else:
            # Only the rows a step needs become its table, so that its cost does not grow with V.
            drawn = sampler.draw(self.rng)
            log_expected = sampler.log_expected(drawn)
            used = np.unique(np.concatenate((items.ravel(), batch.targets[chosen], drawn)))
            rows = torch.from_numpy(used).to(device)
            negatives = np.searchsorted(used, drawn)
            table = table.detach().index_select(0, rows).requires_grad_()
            bias = bias.detach().index_select(0, rows).requires_grad_()
        if self.group is not None:  # all that is drawn was drawn for the whole batch
            batch, items, chosen = self._own_rows(batch, items, chosen)
        numbered, targets = items, batch.targets[chosen]  # (B, T), (P,)
        if used is not None:
            numbered, targets = np.searchsorted(used, items), np.searchsorted(used, targets)
        categories = network.item_categories if rows is None else network.item_categories[rows]
        inputs = InputTensors.of(batch.inputs, device, torch.from_numpy(numbered).to(device))
        with torch.autocast(device.type, torch.bfloat16, self._narrow):
            x, y = network(inputs, table, categories)
        x, y = x.float(), y.float()
        flat = torch.from_numpy(np.flatnonzero(chosen)).to(device)  # (P,)
        states = y.flatten(0, 1).index_select(0, flat)  # (P, D)
        value = log_softmax_at(states, table, bias, targets, negatives, log_expected, self.product)
        if network.copy_head is not None:
            seen = torch.from_numpy(items).to(device)
            shares, gate = network.copy_head(x, y, seen, self.repeats.current_may_recur)
            wanted = torch.from_numpy(batch.targets).to(device)
            pointed = (shares * (seen[:, None, :] == wanted[:, :, None])).sum(-1)  # (B, T)
            value = mix_with_copies(value, pointed.flatten()[flat], gate.flatten()[flat])
        loss = -(value * torch.from_numpy(batch.weights[chosen]).to(device)).sum()
        found = float(loss.detach())
        # A fixed divisor, so that the small batches of rare lengths do not count for more.
        (loss / self.settings.batch_events).backward()  # type: ignore[no-untyped-call]
        if self.group is not None:
            found = self.group.sum_gradients([*self._dense, table, bias], found)
        if not math.isfinite(found):
            raise TrainingError(f"the loss became {found}; lower training.learning_rate")
        self._update(rows, table, bias, rate)
        return found

    def _own_rows(
        self, batch: TrainingBatch, items: Int64Array, chosen: BoolArray
    ) -> tuple[TrainingBatch, Int64Array, BoolArray]:
        """This rank's rows of a batch; where there are none, the first row at no weight, so that
        every rank draws and sums alike.
        """
        assert self.group is not None
        mine, share = self.group.rows(len(items)), 1.0
        if not len(mine):
            mine, share = np.zeros(1, np.int64), 0.0
        self._row_share.rows, self._row_share.count = mine, len(items)
        weights = batch.weights[mine] * np.float32(share)
        part = TrainingBatch(batch.inputs.select(mine), batch.targets[mine], weights)
        return part, items[mine], chosen[mine]

    def _call_the_others(self, windows: Windows, rate: Rate) -> None:
        """Have all ranks run this epoch too, from this rank's state: see `recsys.models.lstm.follower_rank`."""
        assert self.group is not None
        if self._told is not windows:
            found = {one.name: getattr(windows.sequences, one.name) for one in fields(Sequences)}
            arrays = {name: a for name, a in found.items() if isinstance(a, np.ndarray)}
            arrays |= {
                "weights": windows.weights,
                "item_categories": self.network.item_categories.cpu().numpy(),
            }
            like = described(arrays)
            told = {"trainer": self._made_of, "arrays": like}
            self.group.send({"kind": "lesson", **told})
            self.group.share_arrays(arrays, like)
            self._told = windows
        tensors, plain = self.state()
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        like, seed = described(arrays), torch.initial_seed()
        state = {"rate": asdict(rate), "plain": plain, "seed": seed, "arrays": like}
        self.group.send({"kind": "epoch", **state})
        self.group.share_arrays(arrays, like)

    def _update(self, rows: Tensor | None, table: Tensor, bias: Tensor, rate: float) -> None:
        assert table.grad is not None and bias.grad is not None
        parameters = [*self._dense, table, bias]
        torch.nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.table_rows.step(rows, table.grad, rate)
        self.bias_rows.step(rows, bias.grad, rate)
        self.network.items.weight.grad = self.network.item_bias.grad = None

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next epoch depends on: tensors by name, and JSON-ready values."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        steps = 0.0
        for number, parameter in enumerate(self._dense):
            moments = self.optimizer.state.get(parameter)
            if moments:
                tensors[f"first.{number}"] = moments["exp_avg"]
                tensors[f"second.{number}"] = moments["exp_avg_sq"]
                steps = float(moments["step"])
        for name, part in (("table", self.table_rows), ("bias", self.bias_rows)):
            tensors[f"{name}.second"] = part.second
            if part.first is not None:
                tensors[f"{name}.first"] = part.first
        plain = {
            "rng": self.rng.bit_generator.state,
            "steps": steps,
            "table_steps": self.table_rows.steps,
        }
        return tensors, plain

    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Go back to what `state` gave. Raises KeyError or RuntimeError where it does not fit."""
        prefix = "network."
        self.network.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        self._prepare()
        for number, parameter in enumerate(self._dense):
            if f"first.{number}" in tensors:
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(plain["steps"])),
                    "exp_avg": tensors[f"first.{number}"].to(self.device),
                    "exp_avg_sq": tensors[f"second.{number}"].to(self.device),
                }
        for name, part in (("table", self.table_rows), ("bias", self.bias_rows)):
            part.second.copy_(tensors[f"{name}.second"])
            part.steps = int(plain["table_steps"])
            if part.first is not None:
                part.first.copy_(tensors[f"{name}.first"])
        self.rng.bit_generator.state = dict(plain["rng"])
