"""Network scorer: one history -> a network's state and its scores of the next item. No torch.

Legend: D width, V vocabulary rows, N items.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from recsys.events.array_types import Float32Array, Int64Array
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Histories
from recsys.models.lstm.inference import HistoryEncoder, NetworkState, VectorsOf
from recsys.models.lstm.item_matrix import ItemMatrix
from recsys.models.lstm.weights import Network

SHORTEST_VECTOR = np.float32(1e-9)  # none counts as shorter, so that a zero vector is like no item


class NetworkScorer:
    """Scores of a trained network, which sees the newest `max_length` events of a history."""

    def __init__(
        self,
        network: Network,
        max_length: int,
        repeats: RepeatPolicy | None = None,
        matrix: ItemMatrix | None = None,
    ) -> None:
        """`matrix`: a compact form of the network's item table to score the catalogue with."""
        self._encoder = HistoryEncoder(network, max_length, repeats or RepeatPolicy(True, True))
        self._matrix = matrix

    @property
    def rows(self) -> int:
        return len(self._encoder.table)

    def state(self, history: Histories, beyond: VectorsOf | None = None) -> NetworkState:
        """The state after one history (B = 1), for which `scan` and `score` rank items.

        `beyond` gives vectors of rows at and beyond V, which are items newer than the network.
        """
        return self._encoder.state(history, beyond)

    def scan(self, state: Float32Array, out: Float32Array) -> None:
        """Scores `out` (V,) of one state (D,) over the catalogue, as exact as the item matrix is."""
        (self._matrix or self._encoder).scan(state, out)

    def score(self, state: Float32Array, items: Int64Array) -> Float32Array:
        """Exact scores (N,) of some items (N,) for one state (D,)."""
        return self._encoder.score(state, items)

    def vectors(self, rows: Int64Array, beyond: VectorsOf | None = None) -> Float32Array:
        """The vectors (N, D) of rows (N,); those at and beyond V come from `beyond`."""
        if beyond is None:
            found: Float32Array = self._encoder.table[rows]
            return found
        return self._encoder.vectors(rows, beyond)

    def similar(self, item: int, new: Float32Array | None = None) -> Float32Array:
        """Cosines (V + N,) of every item's vector with that of row `item`.

        `new` (N, D): vectors of items newer than the network, whose rows are V and up; one that is
        zero has a cosine of zero.
        """
        table = self._encoder.table
        beyond = table[:0] if new is None else new
        vector = table[item] if item < len(table) else beyond[item - len(table)]
        products = np.concatenate((table @ vector, beyond @ vector))
        norms = np.concatenate((self._norms, _norms_of(beyond)))
        length = max(np.float32(np.linalg.norm(vector)), SHORTEST_VECTOR)
        cosines: Float32Array = products / (norms * length)
        return cosines

    @cached_property
    def _norms(self) -> Float32Array:
        return _norms_of(self._encoder.table)


def _norms_of(vectors: Float32Array) -> Float32Array:
    """The length (N,) of each vector (N, D)."""
    found: Float32Array = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return np.maximum(found, SHORTEST_VECTOR)
