"""One history through the network, for an answer: what `NextItemNetwork` does, by compiled loops. No torch.

Legend: T time, D width, V vocabulary rows, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recsys.events.array_types import Float32Array, Int32Array, Int64Array
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM, UNKNOWN
from recsys.models.lstm import kernels
from recsys.models.lstm.batches import PaddedBatch, unpadded
from recsys.models.lstm.body_steps import body_steps
from recsys.models.lstm.weights import NEVER, Network

VectorsOf = Callable[[Int64Array], Float32Array]  # rows (n,) -> vectors (n, D)


@dataclass(frozen=True)
class NetworkState:
    """The network's state after one history, before any item is scored."""

    vector: Float32Array  # (D,); zero where the history holds no event
    pointed: Int64Array  # (T,) item at each place
    shares: Float32Array  # (T,) the pointer, summing to one or to zero
    gate: float  # logit of copying; very negative where there is nothing to copy


class HistoryEncoder:
    """Encodes histories one at a time, with the weights as they are when it is made."""

    def __init__(self, network: Network, max_length: int, repeats: RepeatPolicy) -> None:
        held, shape = network.arrays(), network.shape
        self._max_length = max_length
        self._repeats = repeats
        self._names = list(shape.channels)
        self.table, self._bias = held["items.weight"], held["item_bias"]
        tables = [held[f"channels.{name}.weight"] for name in self._names]
        self._channels = np.concatenate([np.zeros((0, shape.width), np.float32), *tables])
        self._offsets = np.cumsum([0, *(len(table) for table in tables)])[: len(tables)]
        self._input_norm = held["input_norm.weight"], held["input_norm.bias"]
        self._output_norm = held["output_norm.weight"], held["output_norm.bias"]
        self._categories = held["item_categories"]
        self._body = body_steps(held, shape)
        self._copies = shape.copy
        if shape.copy:
            parts = ("query.weight", "query.bias", "key.weight", "key.bias", "distance")
            self._pointer = tuple(held[f"copy_head.{part}"] for part in parts)
            self._gate = held["copy_head.gate.weight"][0], float(held["copy_head.gate.bias"][0])

    def state(self, history: Histories, beyond: VectorsOf | None = None) -> NetworkState:
        """The state after one history (B = 1): after its newest `max_length` events.

        `beyond` gives vectors of rows at and beyond V; without it there are none in the history.
        """
        seen = history.last(self._max_length)
        length = int(seen.ends[0] - seen.starts[0])
        if length == 0:
            nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
            return NetworkState(np.zeros(self.table.shape[1], np.float32), *nothing, NEVER)
        inputs = unpadded(seen)
        items = inputs.items[0]
        table, rows = self.table, items
        if beyond is not None and items.max() >= len(table):
            table, rows = self.vectors(items, beyond), np.arange(length)
        x = kernels.embed(
            rows, table, self._codes(inputs), self._channels, *self._input_norm
        )  # (T, D)
        state = kernels.layer_norm(self._body.last(x)[None], *self._output_norm)[0]  # (D,)
        if not self._copies:
            return NetworkState(state, items, np.zeros(length, np.float32), NEVER)
        excluded = items < FIRST_ITEM
        if not self._repeats.current_may_recur:
            excluded |= items == items[-1]
        if excluded.all():
            return NetworkState(state, items, np.zeros(length, np.float32), NEVER)
        weight, bias = self._gate
        shares = kernels.point(x, state, excluded, *self._pointer)
        return NetworkState(state, items, shares, float(weight @ state) + bias)

    def vectors(self, items: Int64Array, beyond: VectorsOf) -> Float32Array:
        """The vectors (T, D) of items (T,), of which some may be newer than the network."""
        newer = items >= len(self.table)
        vectors: Float32Array = self.table[np.where(newer, UNKNOWN, items)]
        vectors[newer] = beyond(items[newer])
        return vectors

    def score(self, state: Float32Array, rows: Int64Array) -> Float32Array:
        """Exact scores (C,) of some rows (C,) for one state (D,)."""
        return kernels.score_rows(self.table, self._bias, state, rows)

    def scan(self, state: Float32Array, out: Float32Array) -> None:
        """Exact scores `out` (V,) of one state (D,)."""
        np.dot(self.table, state, out)
        out += self._bias

    def _codes(self, inputs: PaddedBatch) -> Int64Array:
        """(channels, T) rows of the channels' tables, in which all stand one below the other."""
        given = {
            "event_type": inputs.event_types,
            "gap": inputs.gaps,
            "session": inputs.session_starts,
        }
        codes = np.empty((len(self._offsets), inputs.shape[1]), np.int64)
        for number, name in enumerate(self._names):
            found = self._category_of(inputs.items) if name == "category" else given[name]
            codes[number] = found[0] + self._offsets[number]
        return codes

    def _category_of(self, items: Int64Array) -> Int32Array:
        """Category codes of items (1, T); of those newer than the network none is known."""
        known = items < len(self._categories)
        found: Int32Array = np.where(known, self._categories[np.where(known, items, 0)], 0)
        return found
