"""One history through the network, for an answer: what `NextItemNetwork` does, by compiled loops.

Legend: T time, D width, V vocabulary rows, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recsys.events.array_types import Float32Array, Int32Array, Int64Array
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM, UNKNOWN
from recsys.models.lstm import kernels
from recsys.models.lstm.batches import PaddedBatch, pad
from recsys.models.lstm.bodies import Lstm
from recsys.models.lstm.copy_head import NEVER
from recsys.models.lstm.network import NextItemNetwork

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

    def __init__(self, network: NextItemNetwork, max_length: int, repeats: RepeatPolicy) -> None:
        self._network = network.eval()
        self._max_length = max_length
        self._repeats = repeats
        self._table = array(network.items.weight)
        self._bias = array(network.item_bias)
        tables = [
            array(network.get_parameter(f"channels.{name}.weight")) for name in network.channels
        ]
        self._channels = np.concatenate([np.zeros((0, self._table.shape[1]), np.float32), *tables])
        self._offsets = np.cumsum([0, *(len(table) for table in tables)])[: len(tables)]
        self._input_norm = _norm(network.input_norm)
        self._output_norm = _norm(network.output_norm)
        self._categories = network.item_categories.cpu().numpy()
        self._layers = _lstm_layers(network.body) if isinstance(network.body, Lstm) else None
        copy = network.copy_head
        if copy is not None:
            parts = (copy.query.weight, copy.query.bias, copy.key.weight, copy.key.bias)
            self._pointer = tuple(array(part) for part in (*parts, copy.distance))
            self._gate = array(copy.gate.weight)[0], float(array(copy.gate.bias)[0])

    def state(self, history: Histories, beyond: VectorsOf | None = None) -> NetworkState:
        """The state after one history (B = 1): after its newest `max_length` events.

        `beyond` gives vectors of rows at and beyond V; without it there are none in the history.
        """
        seen = history.last(self._max_length)
        length = int(seen.ends[0] - seen.starts[0])
        if length == 0:
            nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
            return NetworkState(np.zeros(self._table.shape[1], np.float32), *nothing, NEVER)
        inputs = pad(seen, length)
        items = inputs.items[0]
        table, rows = self._table, items
        if beyond is not None and items.max() >= len(table):
            table, rows = self._gathered(items, beyond), np.arange(length)
        x = kernels.embed(
            rows, table, self._codes(inputs), self._channels, *self._input_norm
        )  # (T, D)
        state = kernels.layer_norm(self._last(x)[None], *self._output_norm)[0]  # (D,)
        if self._network.copy_head is None:
            return NetworkState(state, items, np.zeros(length, np.float32), NEVER)
        excluded = items < FIRST_ITEM
        if not self._repeats.current_may_recur:
            excluded |= items == items[-1]
        if excluded.all():
            return NetworkState(state, items, np.zeros(length, np.float32), NEVER)
        weight, bias = self._gate
        shares = kernels.point(x, state, excluded, *self._pointer)
        return NetworkState(state, items, shares, float(weight @ state) + bias)

    def _gathered(self, items: Int64Array, beyond: VectorsOf) -> Float32Array:
        """The vectors (T, D) of items (T,), some of them newer than the network."""
        newer = items >= len(self._table)
        vectors: Float32Array = self._table[np.where(newer, UNKNOWN, items)]
        vectors[newer] = beyond(items[newer])
        return vectors

    def score(self, state: Float32Array, rows: Int64Array) -> Float32Array:
        """Exact scores (C,) of some rows (C,) for one state (D,)."""
        return kernels.score_rows(self._table, self._bias, state, rows)

    def scan(self, state: Float32Array, out: Float32Array) -> None:
        """Exact scores `out` (V,) of one state (D,)."""
        np.dot(self._table, state, out)
        out += self._bias

    def _codes(self, inputs: PaddedBatch) -> Int64Array:
        """(channels, T) rows of the channels' tables, in which all stand one below the other."""
        given = {
            "event_type": inputs.event_types,
            "gap": inputs.gaps,
            "session": inputs.session_starts,
        }
        codes = np.empty((len(self._offsets), inputs.shape[1]), np.int64)
        for number, name in enumerate(self._network.channels):
            found = self._category_of(inputs.items) if name == "category" else given[name]
            codes[number] = found[0] + self._offsets[number]
        return codes

    def _category_of(self, items: Int64Array) -> Int32Array:
        """Category codes of items (1, T); of those newer than the network none is known."""
        known = items < len(self._categories)
        found: Int32Array = np.where(known, self._categories[np.where(known, items, 0)], 0)
        return found

    def _last(self, x: Float32Array) -> Float32Array:
        """The body's last output (D,) for inputs x (T, D)."""
        if self._layers is None:
            with torch.inference_mode():
                out: Float32Array = self._network.body(torch.from_numpy(x)[None])[0, -1].numpy()
            return out
        h = x
        for weight, bias, recurrent in self._layers:
            start = np.zeros((2, x.shape[1]), np.float32)
            h = kernels.run_lstm(h @ weight.T + bias, recurrent, start[0], start[1])
        return x[-1] + h[-1]


def array(tensor: Tensor) -> Float32Array:
    """The tensor's own memory as an array, where it is on the CPU."""
    found: Float32Array = np.ascontiguousarray(tensor.detach().float().cpu().numpy())
    return found


def _norm(norm: nn.LayerNorm) -> tuple[Float32Array, Float32Array]:
    return array(norm.weight), array(norm.bias)


def _lstm_layers(body: Lstm) -> list[tuple[Float32Array, Float32Array, Float32Array]]:
    """For each layer W (4 D, D), the sum of its biases (4 D,), and R (4 D, D)."""
    lstm = body.lstm
    return [
        (
            array(getattr(lstm, f"weight_ih_l{layer}")),
            array(getattr(lstm, f"bias_ih_l{layer}")) + array(getattr(lstm, f"bias_hh_l{layer}")),
            array(getattr(lstm, f"weight_hh_l{layer}")),
        )
        for layer in range(lstm.num_layers)
    ]
