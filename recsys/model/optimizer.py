"""AdamW (Loshchilov and Hutter 2019) on the rows of a table that a step touched.

Dense optimisers read and write every row at every step, so a step's cost grows with the catalogue.
Here the moments of an untouched row stand still ("lazy" Adam): a deviation from AdamW, which would
go on decaying them, and through the first moment go on moving the row for a dozen steps after its
gradient was seen. A row that waits for its next turn gets none of that drift, so the first moment
is left out (beta1 = 0) and a touch moves the row at once by what Adam would have spread out. That
also halves the memory of the optimiser. The bias correction counts all steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class RowAdamW:
    """Moments of one table (V, ...) and the update of some of its rows."""

    table: Tensor
    beta2: float
    weight_decay: float
    epsilon: float = 1e-8
    steps: int = 0
    second: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.second = torch.zeros_like(self.table)

    @torch.no_grad()
    def step(self, rows: Tensor | None, gradient: Tensor, learning_rate: float) -> None:
        """Update `rows` (R,) by `gradient` (R, ...); all rows where `rows` is None."""
        self.steps += 1
        second, values = self.second, self.table
        if rows is not None:
            second, values = second[rows], values[rows]
        second.mul_(self.beta2).addcmul_(gradient, gradient, value=1.0 - self.beta2)
        scale = (1.0 - self.beta2**self.steps) ** 0.5
        values.mul_(1.0 - learning_rate * self.weight_decay)
        denominator = second.sqrt().div_(scale).add_(self.epsilon)
        values.addcdiv_(gradient, denominator, value=-learning_rate)
        if rows is not None:
            self.second[rows], self.table[rows] = second, values
