"""Histories -> what the network says of the next item, as arrays.

Legend: B histories, T time, D width, V vocabulary rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.data.repeats import RepeatPolicy
from recsys.data.sequences import Histories
from recsys.data.vocabulary import FIRST_ITEM
from recsys.model.batches import Inputs, length_buckets, pad
from recsys.model.item_matrix import ItemMatrix
from recsys.model.network import InputTensors, NextItemNetwork

Float32Array = NDArray[np.float32]
Int64Array = NDArray[np.int64]

BATCH_EVENTS = 16_384


@dataclass(frozen=True)
class Predictions:
    """What a network says of B histories, before its words are weighed (`recsys.rankers.blend`).

    Where a history holds no known item the states are zero, and so is everything but the bias.
    """

    scores: Float32Array  # (B, V); -inf where an item may not come next
    pointed: Int64Array  # (B, T) item at each place of the history, 0 = none
    shares: Float32Array  # (B, T) the pointer, summing to one or to zero
    gate: Float32Array  # (B,) logit of copying; very negative where there is nothing to copy


@dataclass(frozen=True)
class Reading:
    """B histories as the network has read them, before any item is scored."""

    states: torch.Tensor  # (B, D); zero where a history holds no known item
    pointed: Int64Array  # as in `Predictions`, and so on
    shares: Float32Array
    gate: Float32Array


class NetworkScorer:
    """Predictions of a trained network, which sees the newest `max_length` events of a history."""

    def __init__(
        self,
        network: NextItemNetwork,
        max_length: int,
        repeats: RepeatPolicy | None = None,
        matrix: ItemMatrix | None = None,
    ) -> None:
        """`matrix`: a compact form of the network's item table to score the catalogue with."""
        self.network = network
        self._norms: torch.Tensor | None = None
        self.matrix = matrix
        self.max_length = max_length
        self.repeats = repeats or RepeatPolicy(True, True)

    @property
    def rows(self) -> int:
        return self.network.shape.rows

    @torch.inference_mode()
    def predict(self, histories: Histories) -> Predictions:
        """See `Predictions`. Padding and unknown, and what the repeat policy bars, score -inf."""
        read = self.read(histories)
        states = read.states
        found = self.network.scores(states) if self.matrix is None else self.matrix.scores(states)
        scores: Float32Array = found.cpu().numpy()
        scores[:, :FIRST_ITEM] = -np.inf
        self.repeats.mask(scores, histories)
        return Predictions(scores, read.pointed, read.shares, read.gate)

    @torch.inference_mode()
    def read(self, histories: Histories) -> Reading:
        """The histories as states; they are ranked by `scan` and `score`, or by `predict`."""
        network = self.network
        if network.training:
            network.eval()
        device = network.item_bias.device
        seen = histories.last(self.max_length)
        lengths = seen.ends - seen.starts
        count, longest = len(seen), int(lengths.max(initial=1))
        if count == 1 and lengths[0] > 0:  # one history needs no padding
            return self._read_one(pad(seen, longest))
        states = torch.zeros(count, network.shape.width, device=device)
        pointed = np.zeros((count, longest), np.int64)
        shares = np.zeros((count, longest), np.float32)
        gate = np.full(count, -1e9, np.float32)
        for length, numbers in length_buckets(lengths, self.max_length):
            size = max(1, BATCH_EVENTS // length)
            for at in range(0, len(numbers), size):
                chosen = numbers[at : at + size]
                inputs = pad(seen.select(chosen), length)
                tensors = InputTensors.of(inputs, device)
                x, y = network(tensors)  # (B, T, D)
                last = torch.from_numpy(lengths[chosen] - 1).to(device)
                final = y[torch.arange(len(chosen), device=device), last]  # (B, D)
                states[torch.from_numpy(chosen)] = final
                width = min(length, longest)
                pointed[chosen, :width] = inputs.items[:, :width]
                if network.copy_head is not None:
                    pointer, logits = network.copy_head.last(
                        x, final, tensors.items, last, self.repeats.current_may_recur
                    )
                    shares[chosen, :width] = pointer[:, :width].cpu().numpy()
                    gate[chosen] = logits.cpu().numpy()
        return Reading(states, pointed, shares, gate)

    def _read_one(self, inputs: Inputs) -> Reading:
        network, (_, length) = self.network, inputs.shape
        device = network.item_bias.device
        tensors = InputTensors.of(inputs, device)
        x, y = network(tensors)  # (1, T, D)
        final = y[:, -1]
        shares, gate = torch.zeros(1, length), torch.full((1,), -1e9)
        if network.copy_head is not None:
            last = torch.full((1,), length - 1, device=device)
            current = self.repeats.current_may_recur
            shares, gate = network.copy_head.last(x, final, tensors.items, last, current)
        return Reading(final, inputs.items, shares.cpu().numpy(), gate.cpu().numpy())

    @torch.inference_mode()
    def scan(self, state: torch.Tensor) -> Float32Array:
        """Scores (V,) of one state (D,) over the catalogue, as exact as the item matrix is."""
        if self.matrix is not None:
            found: Float32Array = self.matrix.scores(state[None])[0].numpy()
            return found
        table, bias = self.network.items.weight, self.network.item_bias
        # NumPy's product of a matrix and a vector is several times as fast as torch's.
        exact: Float32Array = table.cpu().numpy() @ state.cpu().numpy() + bias.cpu().numpy()
        return exact

    @torch.inference_mode()
    def score(self, state: torch.Tensor, items: Int64Array) -> Float32Array:
        """Exact scores (N,) of some items (N,) for one state (D,)."""
        index = torch.from_numpy(items)
        rows, bias = self.network.items.weight[index], self.network.item_bias[index]
        scores: Float32Array = torch.addmv(bias, rows, state).cpu().numpy()
        return scores

    @torch.inference_mode()
    def similar(self, item: int) -> Float32Array:
        """Cosines (V,) of every item's vector with that of `item`."""
        table = self.network.items.weight
        if self._norms is None:
            self._norms = table.norm(dim=1).clamp(min=1e-9)
        cosines: Float32Array = (table @ table[item] / (self._norms * self._norms[item])).numpy()
        return cosines
