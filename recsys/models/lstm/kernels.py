"""The loops of a single answer, compiled: one history, one state, one row of scores.

A batch of one is too small for a tensor library: calling it costs more than what it does, and at
each call the interpreter's lock goes to another thread. These loops say the same as the network's
own modules, in one call each (a test holds them to one another).

Legend: T time, D width, K width of the copy head's keys, V vocabulary rows, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from recsys.events.array_types import (
    BoolArray,
    Float32Array,
    Int8Array,
    Int32Array,
    Int64Array,
    UInt16Array,
)

Function = TypeVar("Function", bound=Callable[..., Any])
Number = TypeVar("Number", np.float32, np.int64)

WIDTHS = 64  # of networks that loops are held for
FEW_ROWS = 16
SUM_OF_PRODUCTS = (2**31 - 1) // 127  # of whole numbers by 8-bit ones, in 32 bits
BLOCK = 64  # scores looked at together when the largest are searched
NEVER = np.float32(-1e9)
EPSILON = np.float32(1e-5)  # of torch.nn.LayerNorm


def compiled(function: Function, nogil: bool = False) -> Function:
    """Compile at the first call, once for all processes where the folder can be written to.

    With `nogil` other threads go on meanwhile.
    """
    options: dict[str, Any] = {"fastmath": {"contract", "reassoc", "nsz", "arcp"}, "nogil": nogil}
    try:
        made: Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder for the compiled code
        made = numba.njit(**options)(function)
    return made


@compiled
def layer_norm(x: Float32Array, gain: Float32Array, bias: Float32Array) -> Float32Array:
    """LayerNorm (Ba et al. 2016) of each row of x (T, D)."""
    out = np.empty_like(x)
    width = x.shape[1]
    for t in range(x.shape[0]):
        mean = np.float32(0)
        for d in range(width):
            mean += x[t, d]
        mean /= np.float32(width)
        variance = np.float32(0)
        for d in range(width):
            variance += (x[t, d] - mean) * (x[t, d] - mean)
        scale = np.float32(1) / np.sqrt(variance / np.float32(width) + EPSILON)
        for d in range(width):
            out[t, d] = (x[t, d] - mean) * scale * gain[d] + bias[d]
    return out


@compiled
def embed(
    items: Int64Array,
    table: Float32Array,
    codes: Int64Array,
    channels: Float32Array,
    gain: Float32Array,
    bias: Float32Array,
) -> Float32Array:
    """Inputs x (T, D) of one history: LayerNorm(item + channels).

    items (T,); table (V, D); codes (channels, T), rows of `channels`, in which the tables of all
    channels stand one below the other.
    """
    x = np.empty((len(items), table.shape[1]), np.float32)
    for t in range(len(items)):
        for d in range(table.shape[1]):
            x[t, d] = table[items[t], d]
        for c in range(codes.shape[0]):
            for d in range(table.shape[1]):
                x[t, d] += channels[codes[c, t], d]
    return layer_norm(x, gain, bias)


@compiled
def point(
    x: Float32Array,
    y: Float32Array,
    barred: BoolArray,
    query: Float32Array,
    query_bias: Float32Array,
    key: Float32Array,
    key_bias: Float32Array,
    distance: Float32Array,
) -> Float32Array:
    """The pointer (T,) of the copy head after a history's last step: see `recsys.models.lstm.copy_head`.

    x (T, D) inputs, y (D,) the last state; query and key (K, D). The keys' product with the query is
    taken as x . (key^T q), which is K times less work than the keys themselves.
    """
    width, keys = x.shape[1], query.shape[0]
    turned = np.zeros(width, np.float32)  # key^T q
    constant = np.float32(0)
    for k in range(keys):
        q = query_bias[k]
        for d in range(width):
            q += query[k, d] * y[d]
        constant += q * key_bias[k]
        for d in range(width):
            turned[d] += q * key[k, d]
    shares = np.zeros(x.shape[0], np.float32)
    top = NEVER
    scale = np.float32(1.0 / np.sqrt(keys))
    for t in range(x.shape[0]):
        if barred[t]:
            continue
        logit = constant
        for d in range(width):
            logit += x[t, d] * turned[d]
        back = min(x.shape[0] - 1 - t, len(distance) - 1)
        shares[t] = logit * scale + distance[back]
        top = max(top, shares[t])
    total = np.float32(0)
    for t in range(x.shape[0]):
        if not barred[t]:
            shares[t] = np.exp(shares[t] - top)
            total += shares[t]
    if total > 0:
        for t in range(x.shape[0]):
            shares[t] /= total
    return shares


@lru_cache(WIDTHS)
def scan_int8(width: int) -> Callable[..., None]:
    """The pass over a table of whole numbers, compiled for one width D, which the loops then need not look up: a
    third quicker.
    """

    def scan(
        table: Int8Array,
        scales: Float32Array,
        bias: Float32Array,
        state: Float32Array,
        out: Float32Array,
    ) -> None:
        """Scores `out` (V,) of one state (D,) over a table (V, D) of whole numbers times scales (V,), plus bias.

        The state is rounded to 16 bits, to 2e-5 of its largest number, so that products and sums are of whole
        numbers: the same bits on every processor, at the speed at which a large table is read. Without the
        interpreter's lock, since a table may have a million rows.
        """
        top = np.float32(1e-30)
        for d in range(width):
            top = max(top, abs(state[d]))
        most = np.float32(min(32_767, SUM_OF_PRODUCTS // width))
        whole = np.empty(width, np.int16)
        for d in range(width):
            whole[d] = np.int16(np.rint(state[d] * (most / top)))
        unit = top / most
        for v in range(len(table)):
            total = np.int32(0)
            for d in range(width):
                product = np.int32(np.int16(table[v, d])) * np.int32(whole[d])
                total = np.int32(total + np.int32(product))
            out[v] = np.float32(total) * (unit * scales[v]) + bias[v]

    return compiled(scan, nogil=True)


def scan_bfloat16(
    table: UInt16Array, bias: Float32Array, state: Float32Array, out: Float32Array
) -> None:
    """Scores `out` (V,) of one state (D,) over a table (V, D) of bfloat16 numbers, plus bias (V,)."""
    bits = np.empty(len(state), np.uint32)  # of a row as float32
    row = bits.view(np.float32)
    for v in range(len(table)):
        for d in range(len(state)):
            bits[d] = np.uint32(table[v, d]) << np.uint32(16)
        total = np.float32(0)
        for d in range(len(state)):
            total += row[d] * state[d]
        out[v] = total + bias[v]


scan_bfloat16 = compiled(scan_bfloat16, nogil=True)


@compiled
def add_scaled(values: Float32Array, weight: np.float32, more: Float32Array) -> None:
    """values += weight * more, in place, as far as `more` goes; (V,) and at most as many."""
    for v in range(len(more)):
        values[v] += weight * more[v]


@compiled
def score_rows(
    table: Float32Array, bias: Float32Array, state: Float32Array, rows: Int64Array
) -> Float32Array:
    """Exact scores (C,) of some rows (C,) of the table (V, D) for one state (D,)."""
    out = np.empty(len(rows), np.float32)
    for c in range(len(rows)):
        row = rows[c]
        total = np.float32(0)
        for d in range(len(state)):
            total += table[row, d] * state[d]
        out[c] = total + bias[row]
    return out


@compiled
def kth_largest(values: NDArray[Number], k: int) -> Number:
    """The k-th largest (k from 1) of `values` (n,), in place: the k largest stand first then.

    Quickselect (Hoare 1961). np.partition does the same and takes four seconds to compile, this less
    than half of one.
    """
    low, high = 0, len(values) - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] > pivot:
                left += 1
            while values[right] < pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left, right = left + 1, right - 1
        # By now what stands up to `right` is no smaller, what stands from `left` on no larger.
        if k - 1 <= right:
            high = right
        elif k - 1 >= left:
            low = left
        else:
            break
    return values[k - 1]


@compiled
def largest(values: Float32Array, count: int) -> Int64Array:
    """Indices of the `count` largest of `values` (V,), of more where some are equal, ascending.

    -inf is left out. The largest of each block bounds the search: the count-th largest value is no
    smaller than the count-th largest of them.
    """
    size = len(values)
    blocks = (size + BLOCK - 1) // BLOCK
    tops = np.empty(blocks, np.float32)
    for b in range(blocks):
        top = np.float32(-np.inf)
        for v in range(b * BLOCK, min(b * BLOCK + BLOCK, size)):
            top = max(top, values[v])
        tops[b] = top
    edge = np.float32(-np.inf)
    if blocks > count:
        edge = kth_largest(tops.copy(), count)
    room = 0
    for b in range(blocks):
        room += tops[b] >= edge and tops[b] > -np.inf
    found = np.empty(room * BLOCK, np.int64)
    used = 0
    for b in range(blocks):
        if tops[b] < edge or tops[b] == -np.inf:
            continue
        for v in range(b * BLOCK, min(b * BLOCK + BLOCK, size)):
            if values[v] >= edge and values[v] > -np.inf:
                found[used] = v
                used += 1
    if used > count:
        kept = np.empty(used, np.float32)
        for n in range(used):
            kept[n] = values[found[n]]
        edge = kth_largest(kept, count)
        above = 0
        for n in range(used):
            if values[found[n]] >= edge:
                found[above] = found[n]
                above += 1
        used = above
    return found[:used].copy()


@compiled
def sigmoid(z: Float32Array, powers: Int32Array) -> None:
    """1 / (1 + exp(-z)) in place, to 2e-7; z (n,), `powers` (n,) is room to work in.

    exp(r) by the Taylor series on |r| <= ln(2) / 2, times a power of two made in its exponent bits:
    loops that a processor runs on eight numbers or more at once, which a call of exp is not.
    """
    factors = powers.view(np.float32)
    for n in range(len(z)):
        x = min(max(-z[n], np.float32(-87)), np.float32(87))
        whole = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
        powers[n] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        r = x - whole * np.float32(0.693359375) + whole * np.float32(2.12194440e-4)
        series = np.float32(1.0 / 5040)
        series = series * r + np.float32(1.0 / 720)
        series = series * r + np.float32(1.0 / 120)
        series = series * r + np.float32(1.0 / 24)
        series = series * r + np.float32(1.0 / 6)
        series = series * r + np.float32(0.5)
        series = series * r + np.float32(1)
        z[n] = series * r + np.float32(1)
    for n in range(len(z)):
        z[n] = np.float32(1) / (np.float32(1) + z[n] * factors[n])


@lru_cache(WIDTHS)
def run_lstm(width: int) -> Callable[[Float32Array, Float32Array], Float32Array]:
    """An LSTM layer after its inputs were projected, compiled for one width D."""

    def run(projected: Float32Array, recurrent: Float32Array) -> Float32Array:
        """The hidden states h (T, D) of an LSTM layer that starts from zero.

        projected (T, 4 D): W x + both biases, in torch's order i, f, g, o; recurrent (4 D, D).
        """
        steps = projected.shape[0]
        h, c = np.zeros(width, np.float32), np.zeros(width, np.float32)
        out = np.empty((steps, width), np.float32)
        gates = np.empty(4 * width, np.float32)
        powers = np.empty(4 * width, np.int32)
        for t in range(steps):
            for j in range(4 * width):
                total = np.float32(0)
                for d in range(width):
                    total += recurrent[j, d] * h[d]
                # tanh(z) = 2 sigmoid(2 z) - 1, so that all four gates take one exponential.
                twice = np.float32(2) if 2 * width <= j < 3 * width else np.float32(1)
                gates[j] = (total + projected[t, j]) * twice
            sigmoid(gates, powers)
            for d in range(width):
                candidate = np.float32(2) * gates[2 * width + d] - np.float32(1)
                c[d] = gates[width + d] * c[d] + gates[d] * candidate
                gates[d] = np.float32(2) * c[d]
            sigmoid(gates[:width], powers[:width])
            for d in range(width):
                h[d] = gates[3 * width + d] * (np.float32(2) * gates[d] - np.float32(1))
                out[t, d] = h[d]
        return out

    return compiled(run)


def project(x: Float32Array, weight: Float32Array, bias: Float32Array) -> Float32Array:
    """W x + b (T, J) of x (T, D), weight (J, D) and bias (J,): few rows by a loop, as a matrix library lays out
    the whole of `weight` anew before it multiplies.
    """
    if len(x) > FEW_ROWS:
        projected: Float32Array = x @ weight.T
        projected += bias
        return projected
    return _project_few(x.shape[1])(x, weight, bias)


@lru_cache(WIDTHS)
def _project_few(
    width: int,
) -> Callable[[Float32Array, Float32Array, Float32Array], Float32Array]:
    def run(x: Float32Array, weight: Float32Array, bias: Float32Array) -> Float32Array:
        out = np.empty((x.shape[0], weight.shape[0]), np.float32)
        for j in range(weight.shape[0]):
            for t in range(x.shape[0]):
                total = np.float32(0)
                for d in range(width):
                    total += weight[j, d] * x[t, d]
                out[t, j] = total + bias[j]
        return out

    return compiled(run)
