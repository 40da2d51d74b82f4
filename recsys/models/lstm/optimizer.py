"""How the network is stepped: AdamW for dense weights and for tables of which a step touches few rows,
the device, and the number type of large products.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from recsys.config import TrainingSettings
from recsys.models.lstm.network import NextItemNetwork

BETAS = (0.9, 0.98)
LAST_RATE = 0.01  # of the peak, at the end of the cosine


@dataclass
class Rate:
    """The learning rate: linear warm-up, then half a cosine down to LAST_RATE of the peak."""

    peak: float
    warmup: int
    steps: int
    at: int = 0

    def next(self) -> float:
        self.at += 1
        if self.at <= self.warmup:
            return self.peak * self.at / self.warmup
        share = min(1.0, (self.at - self.warmup) / max(1, self.steps - self.warmup))
        return self.peak * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * share)))


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


class NetworkOptimizer:
    """AdamW for the dense parameters of a network, and `TableAdamW` for its item table and bias."""

    def __init__(self, network: NextItemNetwork, settings: TrainingSettings, lazy: bool) -> None:
        """`lazy`: steps name the rows they use; see `TableAdamW`."""
        self.clip = settings.gradient_clip
        self.dense = list(network.dense_parameters().values())
        decay = settings.weight_decay
        groups = [
            {"params": [p for p in self.dense if p.dim() > 1], "weight_decay": decay},
            {"params": [p for p in self.dense if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self._dense_adamw = torch.optim.AdamW(
            groups, lr=settings.learning_rate, betas=BETAS, fused=True
        )
        table, bias = network.items.weight.data, network.item_bias.data
        self._tables = {
            "table": TableAdamW(table, BETAS, decay, lazy),
            "bias": TableAdamW(bias, BETAS, 0.0, lazy),
        }

    def step(self, rows: Tensor | None, table: Tensor, bias: Tensor, rate: float) -> None:
        """Clip all gradients together, then update every parameter and drop the dense gradients.

        table (R, D) and bias (R,) hold the gradients of `rows` (R,), or of all rows (None).
        """
        assert table.grad is not None and bias.grad is not None
        nn.utils.clip_grad_norm_([*self.dense, table, bias], self.clip)
        for group in self._dense_adamw.param_groups:
            group["lr"] = rate
        self._dense_adamw.step()
        self._dense_adamw.zero_grad(set_to_none=True)
        self._tables["table"].step(rows, table.grad, rate)
        self._tables["bias"].step(rows, bias.grad, rate)

    def state(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """All moments by name, and the steps made; `restore` takes them back."""
        tensors: dict[str, Tensor] = {}
        steps = 0.0
        for number, parameter in enumerate(self.dense):
            moments = self._dense_adamw.state.get(parameter)
            if moments:
                tensors[f"first.{number}"] = moments["exp_avg"]
                tensors[f"second.{number}"] = moments["exp_avg_sq"]
                steps = float(moments["step"])
        for name, part in self._tables.items():
            tensors[f"{name}.second"] = part.second
            if part.first is not None:
                tensors[f"{name}.first"] = part.first
        return tensors, {"steps": steps, "table_steps": self._tables["table"].steps}

    def restore(self, tensors: Mapping[str, Tensor], steps: Mapping[str, float]) -> None:
        """Take back what `state` gave, in a fresh optimizer. Raises KeyError where it does not fit."""
        for number, parameter in enumerate(self.dense):
            if f"first.{number}" in tensors:
                self._dense_adamw.state[parameter] = {
                    "step": torch.tensor(float(steps["steps"])),
                    "exp_avg": tensors[f"first.{number}"].to(parameter.device),
                    "exp_avg_sq": tensors[f"second.{number}"].to(parameter.device),
                }
        for name, part in self._tables.items():
            part.second.copy_(tensors[f"{name}.second"])
            part.steps = int(steps["table_steps"])
            if part.first is not None:
                part.first.copy_(tensors[f"{name}.first"])


PROBE_SIZE = 512
PROBE_ROUNDS = 4
WORTH_IT = 1.5  # times faster than float32 before bfloat16 is taken


def choose_device(wanted: str) -> torch.device:
    """'auto' takes a GPU where there is one; 'cpu' and 'cuda' are taken at their word."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


@functools.cache  # so that all of a training is made in one type, however busy the machine is
def choose_product(wanted: str, device: torch.device) -> torch.dtype:
    """The type of large products: 'float32', 'bfloat16', or 'auto' for whichever is worth it here.

    On a CPU 'auto' times both for some milliseconds: bfloat16 is several times faster where the
    processor multiplies it and slower than float32 where it does not. On a GPU it asks the driver.
    """
    if wanted == "float32":
        return torch.float32
    if wanted == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    narrow, wide = _seconds(torch.bfloat16), _seconds(torch.float32)
    return torch.bfloat16 if narrow * WORTH_IT < wide else torch.float32


def narrow_network(product: torch.dtype, device: torch.device) -> bool:
    """Whether the network itself, not only its large products, can run in `product` = bfloat16.

    A processor without it refuses a recurrent layer in bfloat16, so a tiny one is tried.
    """
    if product != torch.bfloat16:
        return False
    layer = torch.nn.LSTM(8, 8, batch_first=True).to(device)
    try:
        with torch.autocast(device.type, torch.bfloat16):
            layer(torch.zeros(1, 2, 8, device=device))[0].float().sum().backward()
    except RuntimeError:
        return False
    return True


def gemm_gflops(dtype: torch.dtype = torch.float32, size: int = 2_048, rounds: int = 3) -> float:
    """What the machine multiplies in `dtype`, in GFLOP/s: the best of some square products."""
    return 2 * size**3 / _seconds(dtype, size, rounds) / 1e9


def _seconds(dtype: torch.dtype, size: int = PROBE_SIZE, rounds: int = PROBE_ROUNDS) -> float:
    """The best of some rounds of one square product."""
    matrix = torch.ones(size, size, dtype=dtype)
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    return best
