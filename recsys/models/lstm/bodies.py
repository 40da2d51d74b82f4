"""Bodies of the network: LSTM, GRU or self-attention, all (B, T, D) -> (B, T, D) and causal; dropout.

Legend: B batch, T time, D width.

The LSTM is the product; the others stand beside it under the same inputs, heads, loss and loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recsys.events.array_types import Int64Array
from recsys.models.lstm.weights import BLOCKS, HEADS

FORGET_BIAS = 1.0


@dataclass
class RowShare:
    """Which rows of a batch a process computes; `rows` None = all of them."""

    rows: Int64Array | None = None
    count: int = 0  # rows of the whole batch


class ByteDropout(nn.Module):
    """Dropout from random bytes: zeroes each element with probability `share` while training.

    A mask costs one byte an element; `torch.nn.functional.dropout` draws every element by itself on
    a CPU, which took 6% of a training step. The share is rounded to a 256th (an absolute error of at
    most 0.002), and the rest is scaled up by the rounded share, so that the expectation is kept.

    Where several ranks share a batch, each draws the bytes of all its rows and takes its own: what
    is dropped then does not depend on how many they are. `rng` is shared with the training loop, so that one seed and one saved state say it all.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.threshold = min(255, round(256 * share))
        self.rng: np.random.Generator | None = None
        self.row_share = RowShare()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.threshold == 0:
            return x
        if self.rng is None:
            raise RuntimeError("a network in training mode needs a random generator")
        share = self.row_share
        count = len(x) if share.rows is None else share.count
        size = count * x[0].numel() if len(x) else 0
        drawn = torch.frombuffer(bytearray(self.rng.bytes(size)), dtype=torch.uint8)
        drawn = drawn.view(count, *x.shape[1:])
        if share.rows is not None:
            drawn = drawn[torch.from_numpy(share.rows)]
        kept = (drawn >= self.threshold).to(x.dtype).mul_(256 / (256 - self.threshold))
        return x * kept.to(x.device)


class Lstm(nn.Module):
    """x + dropout(h) of an LSTM, as `torch.nn.LSTM`:

        i_t, f_t, o_t = sigmoid(W x_t + R h_{t-1} + b)     input, forget and output gate
        g_t = tanh(W_g x_t + R_g h_{t-1} + b_g)            cell candidate
        c_t = f_t * c_{t-1} + i_t * g_t                    cell
        h_t = o_t * tanh(c_t)                              hidden state

    Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000, which starts open: its bias
    is FORGET_BIAS more than drawn, so that a cell keeps what it holds until it has learned to let it go
    (Jozefowicz et al. 2015).
    """

    def __init__(self, width: int, layers: int, dropout: float, _max_length: int) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=between)
        for layer in range(layers):
            bias = self.lstm.get_parameter(
                f"bias_ih_l{layer}"
            ).data  # (4 D,), in the order i, f, g, o
            bias[width : 2 * width] += FORGET_BIAS
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
