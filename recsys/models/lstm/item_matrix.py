"""The item table as serving holds it: float32, bfloat16 (half) or int8 (a quarter).

Legend: B histories, V vocabulary rows, D width.

int8 is symmetric, one scale a row: value = scale * integer. How it is multiplied depends on the
processor, so each way is tried once, for its result and its time: whole numbers by whole numbers,
where the state is rounded to int8 too, or whole numbers by floating ones. Either way a row's score
does not depend on what is ranked beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from recsys.events.array_types import Float32Array
from recsys.models.lstm import kernels
from recsys.models.lstm.network import NextItemNetwork

CHUNK_ROWS = 16_384
PROBE_ROWS = 8_192
KINDS = ("float32", "bfloat16", "int8")


class ItemMatrix:
    """Products of states with every item, and single rows, from a table in a compact form."""

    def __init__(self, table: Tensor, bias: Tensor, kind: str = "float32") -> None:
        """table (V, D) float32, bias (V,). Raises ValueError for an unknown kind."""
        if kind not in KINDS:
            raise ValueError(f"no such item matrix: {kind}")
        self.kind = kind
        self.bias = bias
        self._scales = torch.ones(0)
        if kind == "int8":
            self._scales = table.abs().amax(dim=1).clamp(min=1e-12) / 127  # (V,)
            self._table = (table / self._scales[:, None]).round().to(torch.int8)
        else:
            self._table = table if kind == "float32" else table.to(torch.bfloat16)

    @classmethod
    def of(cls, network: NextItemNetwork, kind: str) -> ItemMatrix:
        """The matrix of a network's item table."""
        return cls(network.items.weight.detach(), network.item_bias.detach(), kind)

    @classmethod
    def stored(cls, parts: Mapping[str, Tensor], bias: Tensor) -> ItemMatrix:
        """An int8 matrix from its own `parts`, which stay where they are.

        Raises ValueError where they are not of as many items as `bias` (V,).
        """
        table, scales = parts["table"], parts["scales"]
        if table.ndim != 2 or not len(table) == scales.numel() == len(bias):
            raise ValueError("the item matrix is of another vocabulary")
        matrix = cls(torch.empty(0, 1), bias)
        matrix.kind, matrix._table, matrix._scales = "int8", table, scales
        return matrix

    def packed(self) -> bytes:
        """The table and its scales in safetensors form; `stored` takes those of int8 back."""
        return save_tensors({"table": self._table, "scales": self._scales})

    @property
    def size_bytes(self) -> int:
        parts = (self._table, self._scales, self.bias)
        return sum(part.numel() * part.element_size() for part in parts)

    def scores(self, states: Tensor) -> Tensor:
        """Scores (B, V) of states (B, D)."""
        if self.kind == "float32":
            return torch.addmm(self.bias, states, self._table.T)
        if self.kind == "int8":
            return int8_product()(states, self._table, self._scales).add_(self.bias)
        return _by_chunks(states, self._rows, len(self._table)).add_(self.bias)

    @torch.inference_mode()
    def scan(self, state: Float32Array) -> Float32Array:
        """Scores (V,) of one state (D,), as `scores` gives them."""
        if self.kind == "int8" and int8_product() is _whole_numbers:
            rounded = np.empty(len(state), np.int8)
            step = kernels.rounded(state, rounded)
            products = torch._int_mm(torch.from_numpy(rounded)[None], self._table.T)[0].numpy()
            scales, bias = self._scales.numpy(), self.bias.numpy()
            return kernels.whole_number_scores(products, scales, step, bias)
        found: Float32Array = self.scores(torch.from_numpy(state)[None])[0].numpy()
        return found

    def _rows(self, part: slice) -> Tensor:
        return self._table[part].float()


Int8Product = Callable[[Tensor, Tensor, Tensor], Tensor]


@cache
def int8_product() -> Int8Product:
    """The quickest way of this processor to multiply states (B, D) with rows of int8 (V, D) times
    scales (V,), among those that are right.
    """
    generator = torch.Generator().manual_seed(0)
    table = torch.randint(-127, 128, (PROBE_ROWS, 128), generator=generator, dtype=torch.int8)
    table[:8] = 127  # sums at which a processor that adds in 16 bits would saturate
    scales = torch.full((PROBE_ROWS,), 0.01)
    states = torch.randn(1, 128, generator=generator).abs()
    wanted = states @ (table.float() * scales[:, None]).T
    best, quickest = _dequantised, float("inf")
    for product in (_whole_numbers, _mixed, _dequantised):
        try:
            found = product(states, table, scales)
        except (RuntimeError, AttributeError):
            continue
        if (found - wanted).abs().max() > 0.02 * wanted.abs().max():
            continue
        seconds = min(_seconds(product, states, table, scales) for _ in range(5))
        if seconds < quickest:
            best, quickest = product, seconds
    return best


def _whole_numbers(states: Tensor, table: Tensor, scales: Tensor) -> Tensor:
    steps = states.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127  # (B, 1)
    rounded = (states / steps).round().to(torch.int8)
    return torch._int_mm(rounded, table.T) * scales * steps


def _mixed(states: Tensor, table: Tensor, scales: Tensor) -> Tensor:
    return torch._weight_int8pack_mm(states, table, scales)


def _dequantised(states: Tensor, table: Tensor, scales: Tensor) -> Tensor:
    def rows(part: slice) -> Tensor:
        return table[part].float() * scales[part][:, None]

    return _by_chunks(states, rows, len(table))


def _by_chunks(states: Tensor, rows: Callable[[slice], Tensor], count: int) -> Tensor:
    """Products with `rows(part)` (C, D), a part of the table at a time."""
    out = torch.empty(len(states), count)
    for at in range(0, count, CHUNK_ROWS):
        part = slice(at, min(at + CHUNK_ROWS, count))
        out[:, part] = states @ rows(part).T
    return out


def _seconds(product: Int8Product, states: Tensor, table: Tensor, scales: Tensor) -> float:
    started = time.perf_counter()
    product(states, table, scales)
    return time.perf_counter() - started
