"""Histories -> states and scores, as arrays.

Legend: B histories, T time, D width, V vocabulary rows.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.data.sequences import Histories
from recsys.data.vocabulary import FIRST_ITEM
from recsys.model.batches import Inputs, length_buckets, pad
from recsys.model.network import InputTensors, NextItemNetwork

Float32Array = NDArray[np.float32]
Int64Array = NDArray[np.int64]

BATCH_EVENTS = 16_384


class NetworkScorer:
    """Scores of a trained network for histories of which it sees the newest `max_length` events."""

    def __init__(self, network: NextItemNetwork, max_length: int) -> None:
        self.network = network
        self.max_length = max_length

    @property
    def rows(self) -> int:
        return self.network.shape.rows

    @torch.inference_mode()
    def states(self, histories: Histories) -> Float32Array:
        """The state after each history's last event; (B, D). An empty history's is zero."""
        self.network.eval()
        histories = histories.last(self.max_length)
        lengths = histories.ends - histories.starts
        out = np.zeros((len(histories), self.network.shape.width), np.float32)
        for length, numbers in length_buckets(lengths, self.max_length):
            size = max(1, BATCH_EVENTS // length)
            for at in range(0, len(numbers), size):
                chosen = numbers[at : at + size]
                part = histories.select(chosen)
                states = self.network(_tensors(pad(part, length)))  # (B, T, D)
                last = torch.from_numpy(lengths[chosen] - 1)
                out[chosen] = states[torch.arange(len(chosen)), last].numpy()
        return out

    @torch.inference_mode()
    def scores(self, histories: Histories) -> Float32Array:
        """Scores (B, V); padding and unknown are -inf."""
        return self.scores_of(self.states(histories))

    @torch.inference_mode()
    def scores_of(self, states: Float32Array) -> Float32Array:
        """Scores (B, V) of states (B, D); padding and unknown are -inf."""
        scores: Float32Array = self.network.scores(torch.from_numpy(states)).numpy()
        scores[:, :FIRST_ITEM] = -np.inf
        return scores

    def item_vectors(self) -> Float32Array:
        """The item table (V, D)."""
        vectors: Float32Array = self.network.items.weight.detach().numpy()
        return vectors


def _tensors(inputs: Inputs) -> InputTensors:
    return InputTensors(
        items=torch.from_numpy(inputs.items),
        event_types=torch.from_numpy(inputs.event_types),
        gaps=torch.from_numpy(inputs.gaps),
        session_starts=torch.from_numpy(inputs.session_starts),
    )
