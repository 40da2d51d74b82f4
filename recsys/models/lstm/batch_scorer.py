"""Batch scorer: many histories -> a network's scores of the whole catalogue, by torch, for training.

Legend: B histories, T time, D width, V vocabulary rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from recsys.events.array_types import Float32Array, Int64Array
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.lstm.batches import length_buckets, pad
from recsys.models.lstm.item_matrix import ItemMatrix
from recsys.models.lstm.network import BatchTensors, NextItemNetwork
from recsys.models.lstm.weights import NEVER

BATCH_EVENTS = 16_384


@dataclass(frozen=True)
class Predictions:
    """A network's scores and copy shares for B histories, before calibration (`recsys.models.blend`).

    Where a history holds no known item the states are zero, and so is everything but the bias.
    """

    scores: Float32Array  # (B, V); -inf where an item may not come next
    pointed: Int64Array  # (B, T) item at each place of the history, 0 = none
    shares: Float32Array  # (B, T) the pointer, summing to one or to zero
    gate: Float32Array  # (B,) logit of copying; very negative where there is nothing to copy


class BatchScorer:
    """Predictions of a network, which sees the newest `max_length` events of a history."""

    def __init__(
        self,
        network: NextItemNetwork,
        max_length: int,
        repeats: RepeatPolicy | None = None,
        matrix: ItemMatrix | None = None,
    ) -> None:
        """`matrix`: a compact form of the network's item table to score the catalogue with."""
        self.network = network
        self.matrix = matrix
        self.max_length = max_length
        self.repeats = repeats or RepeatPolicy(True, True)

    @torch.inference_mode()
    def predict(self, histories: Histories) -> Predictions:
        """See `Predictions`. Padding and unknown, and what the repeat policy excludes, score -inf."""
        network = self.network
        if network.training:
            network.eval()
        device = network.item_bias.device
        seen = histories.last(self.max_length)
        lengths = seen.ends - seen.starts
        count, longest = len(seen), int(lengths.max(initial=1))
        states = torch.zeros(count, network.shape.width, device=device)
        pointed = np.zeros((count, longest), np.int64)
        shares = np.zeros((count, longest), np.float32)
        gate = np.full(count, NEVER, np.float32)
        for length, numbers in length_buckets(lengths, self.max_length):
            size = max(1, BATCH_EVENTS // length)
            for at in range(0, len(numbers), size):
                chosen = numbers[at : at + size]
                inputs = pad(seen.select(chosen), length)
                tensors = BatchTensors.of(inputs, device)
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
        scores: Float32Array = (
            network.scores(states).cpu().numpy()
            if self.matrix is None
            else self.matrix.scores(states.cpu().numpy())
        )
        scores[:, :FIRST_ITEM] = -np.inf
        self.repeats.mask(scores, histories)
        return Predictions(scores, pointed, shares, gate)
