"""How the network is stepped: AdamW for dense weights and for tables of which a step touches few rows,
the device, and the number type of large products.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from recsys.config import TrainingSettings
from recsys.models.lstm.network import NextItemNetwork

BETAS = (0.9, 0.98)
EPSILON = 1e-8
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
    epsilon: float = EPSILON
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


class DenseAdamW:
    """AdamW for parameters that a step moves whole: torch's fused update.

    Not by way of `torch.optim`, whose optimizers load torch's compiler: 1.3 s and 70 MB of every
    training. A test holds this to `torch.optim.AdamW`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], weight_decay: float) -> None:
        """Matrices decay; biases, gains and other vectors do not."""
        self.parameters = list(parameters)
        self.decays = [weight_decay if p.dim() > 1 else 0.0 for p in self.parameters]
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update each parameter that has a gradient, and drop the gradients."""
        gradients = [parameter.grad for parameter in self.parameters]
        for decay in dict.fromkeys(self.decays):
            moved = {
                n: gradient
                for n, gradient in enumerate(gradients)
                if gradient is not None and self.decays[n] == decay
            }
            at = list(moved)
            if not at:
                continue
            steps = [self.steps[n] for n in at]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                [self.parameters[n] for n in at],
                list(moved.values()),
                [self.first[n] for n in at],
                [self.second[n] for n in at],
                [],
                steps,
                lr=learning_rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )
        for parameter in self.parameters:
            parameter.grad = None


class NetworkOptimizer:
    """`DenseAdamW` for the dense parameters of a network, `TableAdamW` for its item table and bias."""

    def __init__(self, network: NextItemNetwork, settings: TrainingSettings, lazy: bool) -> None:
        """`lazy`: steps name the rows they use; see `TableAdamW`."""
        self.clip = settings.gradient_clip
        self.dense = list(network.dense_parameters().values())
        decay = settings.weight_decay
        self._dense_adamw = DenseAdamW(self.dense, decay)
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
        self._dense_adamw.step(rate)
        self._tables["table"].step(rows, table.grad, rate)
        self._tables["bias"].step(rows, bias.grad, rate)

    def state(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """All moments by name, and the steps made; `restore` takes them back."""
        tensors: dict[str, Tensor] = {}
        steps = 0.0
        dense = self._dense_adamw
        for number, made in enumerate(dense.steps):
            if made:  # those that never had a gradient have no moments
                tensors[f"first.{number}"] = dense.first[number]
                tensors[f"second.{number}"] = dense.second[number]
                steps = float(made)
        for name, part in self._tables.items():
            tensors[f"{name}.second"] = part.second
            if part.first is not None:
                tensors[f"{name}.first"] = part.first
        return tensors, {"steps": steps, "table_steps": self._tables["table"].steps}

    def restore(self, tensors: Mapping[str, Tensor], steps: Mapping[str, float]) -> None:
        """Take back what `state` gave, in a fresh optimizer. Raises KeyError where it does not fit."""
        dense = self._dense_adamw
        for number, made in enumerate(dense.steps):
            if f"first.{number}" in tensors:
                made.fill_(float(steps["steps"]))
                dense.first[number].copy_(tensors[f"first.{number}"])
                dense.second[number].copy_(tensors[f"second.{number}"])
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
