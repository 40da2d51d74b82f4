"""The item table as serving holds it: float32, bfloat16 (half) or int8 (a quarter).

Legend: B histories, V vocabulary rows, D width.

int8 is symmetric, one scale a row: value = scale * integer. One state is multiplied by a compiled loop,
the same on every processor; several, in training, by products of parts that are made float32. A row's
score does not depend on what is ranked beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from recsys.events.array_types import Float32Array
from recsys.models.lstm import kernels
from recsys.models.lstm.network import NextItemNetwork

CHUNK_ROWS = 16_384
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
        return _by_chunks(states, self._rows, len(self._table)).add_(self.bias)

    def scan(self, state: Float32Array, out: Float32Array) -> None:
        """Scores `out` (V,) of one state (D,), as `scores` gives them."""
        if self.kind == "int8":
            table, scales = self._table.numpy(), self._scales.numpy()
            kernels.scan_int8(table, scales, self.bias.numpy(), state, out)
            return
        with torch.inference_mode():
            out[:] = self.scores(torch.from_numpy(state)[None])[0].numpy()

    def _rows(self, part: slice) -> Tensor:
        rows = self._table[part].float()
        return rows if self.kind != "int8" else rows.mul_(self._scales[part][:, None])


def _by_chunks(states: Tensor, rows: Callable[[slice], Tensor], count: int) -> Tensor:
    """Products with `rows(part)` (C, D), a part of the table at a time."""
    out = torch.empty(len(states), count)
    for at in range(0, count, CHUNK_ROWS):
        part = slice(at, min(at + CHUNK_ROWS, count))
        out[:, part] = states @ rows(part).T
    return out
