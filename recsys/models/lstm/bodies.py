"""What runs along a history: LSTM, GRU or self-attention, all (B, T, D) -> (B, T, D) and causal.

Legend: B batch, T time, D width.

The LSTM is the product; the others stand beside it under the same inputs, heads, loss and loop.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from recsys.models.lstm.dropout import ByteDropout

HEADS = 2
BLOCKS = 2  # SASRec's own default


class Lstm(nn.Module):
    """x + dropout(h): i, f, o = sigmoid(..), g = tanh(..); c = f * c + i * g; h = o * tanh(c).

    Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000, as `torch.nn.LSTM`.
    """

    def __init__(self, width: int, layers: int, dropout: float, _max_length: int) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=between)
        self.dropout = ByteDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.lstm(x)
        y: Tensor = x + self.dropout(h)
        return y


class Gru(nn.Module):
    """x + dropout(h) of a GRU (Cho et al. 2014), as GRU4Rec has one."""

    def __init__(self, width: int, layers: int, dropout: float, _max_length: int) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.gru = nn.GRU(width, width, layers, batch_first=True, dropout=between)
        self.dropout = ByteDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.gru(x)
        y: Tensor = x + self.dropout(h)
        return y


class SelfAttention(nn.Module):
    """SASRec (Kang and McAuley 2018): learned places, causal self-attention, feed-forward.

    Deviations: LayerNorm before each part and GELU, which train more stably; two blocks whatever
    `layers` says for the recurrent bodies, times that number.
    """

    def __init__(self, width: int, layers: int, dropout: float, max_length: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(max_length, width))
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(BLOCKS * layers))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.places[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return x


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.forward_norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = ByteDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        heads = self.projections(self.attention_norm(x)).view(batch, time, 3, HEADS, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (B, heads, T, D / heads)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, time, width)))
        hidden = nn.functional.gelu(self.up(self.forward_norm(x)))
        y: Tensor = x + self.dropout(self.down(hidden))
        return y


BODIES: dict[str, Callable[[int, int, float, int], nn.Module]] = {
    "lstm": Lstm,
    "gru": Gru,
    "sasrec": SelfAttention,
}
