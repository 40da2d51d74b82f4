"""The LSTM next-item network.

Legend: B batch, T time, V vocabulary rows, D width, R rows of the embedding table in use.

    x_t = LayerNorm(dropout(E[item_t] + channels_t))
    i, f, o = sigmoid(...), g = tanh(...);  c_t = f * c_(t-1) + i * g;  h_t = o * tanh(c_t)
    y_t = LayerNorm(dropout(h_t) + x_t)
    score of item j after step t = y_t . E[j] + b[j]

LSTM: Hochreiter and Schmidhuber 1997, forget gate of Gers et al. 2000, as in `torch.nn.LSTM`.
Input and output embeddings are tied (Press and Wolf 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.model.batches import GAP_BUCKETS


@dataclass(frozen=True)
class NetworkShape:
    """All that is needed to build the network again before its weights are loaded."""

    rows: int  # V: vocabulary rows, padding and unknown included
    width: int  # D
    layers: int
    event_types: int  # rows of the event type channel, missing included
    embedding_dropout: float = 0.0
    dropout: float = 0.0


@dataclass(frozen=True)
class InputTensors:
    """A batch as tensors, each (B, T); see `recsys.model.batches.Inputs`."""

    items: Tensor
    event_types: Tensor
    gaps: Tensor
    session_starts: Tensor


class NextItemNetwork(nn.Module):
    """Maps (B, T) histories to (B, T, D) states whose products with the item table are scores."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.items = nn.Embedding(shape.rows, width)  # (V, D)
        self.item_bias = nn.Parameter(torch.zeros(shape.rows))  # (V,)
        self.event_types = nn.Embedding(shape.event_types, width)
        self.gaps = nn.Embedding(GAP_BUCKETS, width)
        self.session_starts = nn.Embedding(2, width)
        self.embedding_dropout = nn.Dropout(shape.embedding_dropout)
        self.input_norm = nn.LayerNorm(width)
        between = shape.dropout if shape.layers > 1 else 0.0
        self.lstm = nn.LSTM(width, width, shape.layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(shape.dropout)
        self.output_norm = nn.LayerNorm(width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.items.weight, std=0.5 / self.shape.width**0.5)
        for channel in (self.event_types, self.gaps, self.session_starts):
            nn.init.zeros_(channel.weight)

    def body(self) -> dict[str, nn.Parameter]:
        """All parameters but the item table and the item bias, which are updated by row."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name not in ("items.weight", "item_bias")
        }

    def forward(self, inputs: InputTensors, table: Tensor | None = None) -> Tensor:
        """States (B, T, D).

        `table` (R, D) stands in for the item table where `inputs.items` are numbered by its rows.
        """
        table = self.items.weight if table is None else table
        x = nn.functional.embedding(inputs.items, table)  # (B, T, D)
        x = x + self.event_types(inputs.event_types)
        x = x + self.gaps(inputs.gaps) + self.session_starts(inputs.session_starts)
        x = self.input_norm(self.embedding_dropout(x))
        h, _ = self.lstm(x)  # (B, T, D)
        y: Tensor = self.output_norm(self.dropout(h) + x)
        return y

    def scores(self, states: Tensor) -> Tensor:
        """Scores (..., V) of every row for states (..., D)."""
        return states @ self.items.weight.T + self.item_bias
