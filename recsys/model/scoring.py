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


class NetworkScorer:
    """Predictions of a trained network, which sees the newest `max_length` events of a history."""

    def __init__(
        self,
        network: NextItemNetwork,
        max_length: int,
        repeats: RepeatPolicy | None = None,
        matrix: ItemMatrix | None = None,
    ) -> None:
        """`matrix` stands in for the network's own item table, which may then be gone."""
        self.network = network
        self.matrix = matrix
        self.max_length = max_length
        self.repeats = repeats or RepeatPolicy(True, True)

    @property
    def rows(self) -> int:
        return self.network.shape.rows

    @torch.inference_mode()
    def predict(self, histories: Histories) -> Predictions:
        """See `Predictions`. Padding and unknown, and what the repeat policy bars, score -inf."""
        network = self.network
        network.eval()
        device = network.item_bias.device
        seen = histories.last(self.max_length)
        lengths = seen.ends - seen.starts
        count, longest = len(seen), int(lengths.max(initial=1))
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
                x, y = self._run(inputs, tensors)  # (B, T, D)
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
        found = network.scores(states) if self.matrix is None else self.matrix.scores(states)
        scores: Float32Array = found.cpu().numpy()
        scores[:, :FIRST_ITEM] = -np.inf
        self.repeats.mask(scores, histories)
        return Predictions(scores, pointed, shares, gate)

    def item_vectors(self) -> Float32Array:
        """The item table (V, D)."""
        table = self.network.items.weight if self.matrix is None else self.matrix.everything()
        vectors: Float32Array = table.detach().cpu().numpy()
        return vectors

    def _run(self, inputs: Inputs, tensors: InputTensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs x and states y of the network, both (B, T, D)."""
        x: torch.Tensor
        y: torch.Tensor
        if self.matrix is None:
            x, y = self.network(tensors)
            return x, y
        used, numbered = np.unique(inputs.items, return_inverse=True)
        rows = torch.from_numpy(used)
        items = torch.from_numpy(numbered.reshape(inputs.items.shape))
        own = InputTensors(items, tensors.channels)
        categories = self.network.item_categories[rows]
        x, y = self.network(own, self.matrix.rows(rows), categories)
        return x, y
