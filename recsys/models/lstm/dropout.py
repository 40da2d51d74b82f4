"""Dropout from random bytes: a mask costs one byte an element instead of one draw.

`torch.nn.functional.dropout` draws every element by itself on a CPU, which took 6% of a training
step. Here the share is rounded to a 256th (an absolute error of at most 0.002), and the scale is
that of the rounded share, so that the expectation is kept.

Where several processes share a batch, each draws the bytes of all its rows and takes its own: what is
dropped then does not depend on how many they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recsys.events.array_types import Int64Array


@dataclass
class RowShare:
    """Which rows of a batch a process computes; `rows` None = all of them."""

    rows: Int64Array | None = None
    count: int = 0  # rows of the whole batch


class ByteDropout(nn.Module):
    """Zeroes each element with probability `share` while training, scales the rest up.

    `rng` is shared with the training loop, so that one seed and one saved state say it all.
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
