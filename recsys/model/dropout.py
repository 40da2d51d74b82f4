"""Dropout from random bytes: a mask costs one byte an element instead of one draw.

`torch.nn.functional.dropout` draws every element by itself on a CPU, which took 6% of a training
step. Here the share is rounded to a 256th (an absolute error of at most 0.002), and the scale is
that of the rounded share, so that the expectation is kept.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class ByteDropout(nn.Module):
    """Zeroes each element with probability `share` while training, scales the rest up.

    `rng` is shared with the training loop, so that one seed and one saved state say it all.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.threshold = min(255, round(256 * share))
        self.rng: np.random.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.threshold == 0:
            return x
        if self.rng is None:
            raise RuntimeError("a network in training mode needs a random generator")
        drawn = torch.frombuffer(bytearray(self.rng.bytes(x.numel())), dtype=torch.uint8)
        kept = (drawn >= self.threshold).to(x.dtype).mul_(256 / (256 - self.threshold))
        return x * kept.view(x.shape).to(x.device)
