"""AdamW (Loshchilov and Hutter 2019) on a table, over all rows or those that a step touched.

Dense optimisers read and write every row at every step, so a step's cost grows with the catalogue.
With rows given, the moments of an untouched row stand still ("lazy" Adam): a deviation from AdamW,
which would go on decaying them, and through the first moment go on moving the row for a dozen steps
after its gradient was seen. A row that waits for its next turn gets none of that drift, so the
first moment is then left out (beta1 = 0) and a touch moves the row at once by what Adam would have
spread out. That also halves the optimiser's memory. The bias corrections count all steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class TableAdamW:
    """Moments of one table (V, ...) and its update; `lazy` where steps name the rows in use."""

    table: Tensor
    betas: tuple[float, float]
    weight_decay: float
    lazy: bool
    epsilon: float = 1e-8
    steps: int = 0
    first: Tensor | None = field(init=False)
    second: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.first = None if self.lazy else torch.zeros_like(self.table)
        self.second = torch.zeros_like(self.table)

    @torch.no_grad()
    def step(self, rows: Tensor | None, gradient: Tensor, learning_rate: float) -> None:
        """Update `rows` (R,), or the whole table where `rows` is None, by `gradient` (R, ...)."""
        self.steps += 1
        beta1, beta2 = self.betas
        second, values = self.second, self.table
        if rows is not None:
            second, values = second.index_select(0, rows), values.index_select(0, rows)
        rate = learning_rate
        if self.first is not None:
            gradient_mean = self.first.lerp_(gradient, 1.0 - beta1)
            rate /= 1.0 - beta1**self.steps
        else:
            gradient_mean = gradient
        second.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        scale = (1.0 - beta2**self.steps) ** 0.5
        values.mul_(1.0 - learning_rate * self.weight_decay)
        values.addcdiv_(gradient_mean, second.sqrt().div_(scale).add_(self.epsilon), value=-rate)
        if rows is not None:
            self.second.index_copy_(0, rows, second)
            self.table.index_copy_(0, rows, values)
