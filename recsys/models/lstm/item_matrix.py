"""The item table as serving holds it: float32, bfloat16 (half) or int8 (a quarter). No torch.

Legend: B histories, V vocabulary rows, D width.

int8 is symmetric, one scale a row: value = scale * integer. bfloat16 is the upper half of float32's bits,
held as uint16. One state is multiplied by a compiled loop, the same on every processor; several, in
training, by products of parts that are made float32. A row's score does not depend on what is ranked
beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from safetensors.numpy import save as save_arrays

from recsys.events.array_types import AnyArray, Float32Array
from recsys.models.lstm import kernels
from recsys.models.lstm.weights import Network

CHUNK_ROWS = 16_384
KINDS = ("float32", "bfloat16", "int8")


class ItemMatrix:
    """Products of states with every item from a table in a compact form."""

    def __init__(self, table: Float32Array, bias: Float32Array, kind: str = "float32") -> None:
        """table (V, D), bias (V,). Raises ValueError for an unknown kind."""
        if kind not in KINDS:
            raise ValueError(f"no such item matrix: {kind}")
        self.kind = kind
        self.bias = bias
        self._scales = np.ones(0, np.float32)
        self._table: AnyArray = table
        if kind == "bfloat16":
            self._table = np.empty(table.shape, np.uint16)
            for part in _parts(len(table)):
                self._table[part] = upper_halves(table[part])
        elif kind == "int8":
            self._table = np.empty(table.shape, np.int8)
            self._scales = np.empty(len(table), np.float32)
            for part in _parts(len(table)):
                largest = np.abs(table[part]).max(axis=1)
                self._scales[part] = np.maximum(largest, np.float32(1e-12)) / np.float32(127)
                self._table[part] = np.rint(table[part] / self._scales[part][:, None])

    @classmethod
    def of(cls, network: Network, kind: str) -> ItemMatrix:
        """The matrix of a network's item table."""
        held = network.arrays()
        return cls(held["items.weight"], held["item_bias"], kind)

    @classmethod
    def stored(cls, parts: Mapping[str, AnyArray], bias: Float32Array) -> ItemMatrix:
        """An int8 matrix from its own `parts`, which stay where they are.

        Raises ValueError where they are not of as many items as `bias` (V,).
        """
        table, scales = parts["table"], parts["scales"]
        if table.ndim != 2 or not len(table) == scales.size == len(bias):
            raise ValueError("the item matrix is of another vocabulary")
        matrix = cls(np.empty((0, 1), np.float32), bias)
        matrix.kind, matrix._table, matrix._scales = "int8", table, scales
        return matrix

    def packed(self) -> bytes:
        """The table and its scales in safetensors form; `stored` takes those of int8 back."""
        return save_arrays({"table": self._table, "scales": self._scales})

    @property
    def size_bytes(self) -> int:
        return self._table.nbytes + self._scales.nbytes + self.bias.nbytes

    def scores(self, states: Float32Array) -> Float32Array:
        """Scores (B, V) of states (B, D)."""
        out = np.empty((len(states), len(self._table)), np.float32)
        for part in _parts(len(self._table)):
            np.matmul(states, self._rows(part).T, out=out[:, part])
        out += self.bias
        return out

    def scan(self, state: Float32Array, out: Float32Array) -> None:
        """Scores `out` (V,) of one state (D,), as `scores` gives them; of int8 to 1e-4 of the largest, which is
        a hundredth of what its table is rounded by.
        """
        if self.kind == "int8":
            scan = kernels.scan_int8(len(state))
            scan(self._table, self._scales, self.bias, state, out)
        elif self.kind == "bfloat16":
            kernels.scan_bfloat16(self._table, self.bias, state, out)
        else:
            np.dot(self._table, state, out)
            out += self.bias

    def _rows(self, part: slice) -> Float32Array:
        rows = self._table[part]
        if self.kind == "int8":
            return rows * self._scales[part][:, None]
        if self.kind == "bfloat16":
            return (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return rows


def upper_halves(values: Float32Array) -> AnyArray:
    """bfloat16 numbers (uint16) of finite float32 ones: the nearest, of two the even one; any shape.

    >>> upper_halves(np.array([1.0, -2.5, 1.00390625], np.float32)).tolist()
    [16256, 49184, 16256]
    """
    bits = np.ascontiguousarray(values).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)


def _parts(count: int) -> Iterator[slice]:
    """Slices of CHUNK_ROWS of `count` rows."""
    for at in range(0, count, CHUNK_ROWS):
        yield slice(at, min(at + CHUNK_ROWS, count))
