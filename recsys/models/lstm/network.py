"""The next-item network.

Legend: B batch, T time, V vocabulary rows, D width, R rows of the embedding table in use.

    x_t = LayerNorm(dropout(E[item_t] + channels_t))
    y_t = LayerNorm(body(x)_t)                    body: LSTM with a residual; see `bodies`
    score of item j after step t = y_t . E[j] + b[j]
    P(j after t) = (1 - g_t) * softmax(scores)_j + g_t * pointer_t(j)        see `copy_head`

Input and output embeddings are tied (Press and Wolf 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recsys.events.array_types import AnyArray, Float32Array
from recsys.models.lstm.batches import GAP_BUCKETS, PaddedBatch
from recsys.models.lstm.bodies import BODIES, ByteDropout, RowShare
from recsys.models.lstm.copy_head import CopyHead
from recsys.models.lstm.weights import Network, NetworkShape


def channel_rows(names: tuple[str, ...], event_types: int, categories: int) -> dict[str, int]:
    """Rows of each configured channel; both counts include the row of missing values."""
    rows = {
        "event_type": event_types,
        "gap": GAP_BUCKETS,
        "session": 2,
        "category": categories,
    }
    return {name: rows[name] for name in names}


@dataclass(frozen=True)
class BatchTensors:
    """A batch as tensors, each (B, T); see `recsys.models.lstm.batches.PaddedBatch`."""

    items: Tensor
    channels: dict[str, Tensor]  # 'event_type', 'gap', 'session'

    @classmethod
    def of(
        cls, inputs: PaddedBatch, device: torch.device, items: Tensor | None = None
    ) -> BatchTensors:
        """`items` stand in for the batch's own, where they are numbered otherwise."""
        channels = {
            "event_type": inputs.event_types,
            "gap": inputs.gaps,
            "session": inputs.session_starts,
        }
        return cls(
            items=torch.from_numpy(inputs.items).to(device) if items is None else items,
            channels={k: torch.from_numpy(v).to(device) for k, v in channels.items()},
        )


class NextItemNetwork(nn.Module):
    """Maps (B, T) histories to (B, T, D) states whose products with the item table are scores."""

    item_categories: Tensor  # (V,) the category of each row, 0 = missing

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.items = nn.Embedding(shape.rows, width)  # (V, D)
        self.item_bias = nn.Parameter(torch.zeros(shape.rows))  # (V,)
        self.register_buffer("item_categories", torch.zeros(shape.rows, dtype=torch.int32))
        self.channels = nn.ModuleDict()
        for name, rows in shape.channels.items():
            channel = nn.Embedding(rows, width)
            nn.init.zeros_(channel.weight)
            self.channels[name] = channel
        self.embedding_dropout = ByteDropout(shape.embedding_dropout)
        self.input_norm = nn.LayerNorm(width)
        self.body = BODIES[shape.body](width, shape.layers, shape.dropout, shape.max_length)
        self.output_norm = nn.LayerNorm(width)
        self.copy_head = CopyHead(width) if shape.copy else None
        nn.init.normal_(self.items.weight, std=0.5 / width**0.5)

    def arrays(self) -> Mapping[str, AnyArray]:
        """Its weights by name; on a CPU the tensors' own memory. See `recsys.models.lstm.weights`."""
        return {name: tensor.cpu().numpy() for name, tensor in self.state_dict().items()}

    @torch.no_grad()
    def put_items(self, first: int, vectors: Float32Array) -> None:
        """Replace the item table's rows from `first` on by `vectors` (n, D)."""
        self.items.weight[first : first + len(vectors)] = torch.from_numpy(vectors).to(
            self.items.weight
        )

    def share_randomness(self, rng: np.random.Generator, row_share: RowShare) -> None:
        """Have every dropout draw from `rng`, for the rows that `row_share` says at the time."""
        for module in self.modules():
            if isinstance(module, ByteDropout):
                module.rng, module.row_share = rng, row_share

    def dense_parameters(self) -> dict[str, nn.Parameter]:
        """All parameters but the item table and the item bias, which are updated by row."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name not in ("items.weight", "item_bias")
        }

    def forward(
        self, inputs: BatchTensors, table: Tensor | None = None, categories: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """PaddedBatch x and states y, both (B, T, D).

        `table` (R, D) and `categories` (R,) stand in for those of the network where `inputs.items`
        are numbered by their rows.
        """
        table = self.items.weight if table is None else table
        x = nn.functional.embedding(inputs.items, table)  # (B, T, D)
        for name, channel in self.channels.items():
            if name == "category":
                known = self.item_categories if categories is None else categories
                x = x + channel(known[inputs.items])
            else:
                x = x + channel(inputs.channels[name])
        x = self.input_norm(self.embedding_dropout(x))
        return x, self.output_norm(self.body(x))

    def scores(self, states: Tensor) -> Tensor:
        """Scores (..., V) of every row for states (..., D)."""
        return states @ self.items.weight.T + self.item_bias


def as_module(network: Network) -> NextItemNetwork:
    """The network as torch's module, whose weights stay where they are; in evaluation mode if it is made."""
    if isinstance(network, NextItemNetwork):
        return network
    with torch.device("meta"):  # shapes alone: nothing is allocated or drawn
        module = NextItemNetwork(network.shape)
    tensors = {name: torch.from_numpy(array) for name, array in network.arrays().items()}
    module.load_state_dict(tensors, assign=True)
    return module.eval()
