"""The item table as serving holds it: float32, bfloat16 (half) or int8 (a quarter).

Legend: B histories, V vocabulary rows, D width.

int8 is symmetric, one scale a row: value = scale * integer. Weights alone are rounded, states stay
float32, so a row's score does not depend on what is ranked beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from recsys.model.network import NextItemNetwork

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
        """An int8 matrix from its own `parts`, which stay where they are."""
        matrix = cls(torch.empty(0, 1), bias)
        matrix.kind, matrix._table, matrix._scales = "int8", parts["table"], parts["scales"]
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
        if self.kind == "int8" and hasattr(torch, "_weight_int8pack_mm"):
            return torch._weight_int8pack_mm(states, self._table, self._scales).add_(self.bias)
        out = torch.empty(len(states), len(self._table))
        for at in range(0, len(self._table), CHUNK_ROWS):
            part = slice(at, min(at + CHUNK_ROWS, len(self._table)))
            out[:, part] = states @ self._rows(part).T
        return out.add_(self.bias)

    def _rows(self, index: Tensor | slice) -> Tensor:
        if self.kind == "int8":
            return self._table[index].float() * self._scales[index][:, None]
        return self._table[index].float()
