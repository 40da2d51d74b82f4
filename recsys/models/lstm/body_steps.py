"""The bodies of `recsys.models.lstm.bodies` for one history, without torch: inputs x (T, D) -> the last output.

Legend: T time, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import erf
from typing import Protocol

import numpy as np

from recsys.events.array_types import AnyArray, Float32Array
from recsys.models.lstm import kernels
from recsys.models.lstm.kernels import compiled, sigmoid
from recsys.models.lstm.weights import BLOCKS, HEADS, NetworkShape


class BodySteps(Protocol):
    """A network's body, with the weights as they were when it was made."""

    def last(self, x: Float32Array) -> Float32Array:
        """The body's output (D,) after the last of x (T, D)."""


def body_steps(held: Mapping[str, AnyArray], shape: NetworkShape) -> BodySteps:
    """The body of a network of `shape` whose weights are the arrays `held`."""
    return STEPS[shape.body](held, shape)


class LstmSteps:
    """See `recsys.models.lstm.bodies.Lstm`."""

    def __init__(self, held: Mapping[str, AnyArray], shape: NetworkShape) -> None:
        self._layers = [
            (
                held[f"body.lstm.weight_ih_l{layer}"],  # (4 D, D)
                held[f"body.lstm.bias_ih_l{layer}"] + held[f"body.lstm.bias_hh_l{layer}"],  # (4 D,)
                held[f"body.lstm.weight_hh_l{layer}"],  # (4 D, D)
            )
            for layer in range(shape.layers)
        ]

    def last(self, x: Float32Array) -> Float32Array:
        h = x
        run = kernels.run_lstm(x.shape[1])
        for weight, bias, recurrent in self._layers:
            h = run(kernels.project(h, weight, bias), recurrent)
        last: Float32Array = x[-1] + h[-1]
        return last


class GruSteps:
    """See `recsys.models.lstm.bodies.Gru`."""

    def __init__(self, held: Mapping[str, AnyArray], shape: NetworkShape) -> None:
        width = shape.width
        self._layers = []
        for layer in range(shape.layers):
            bias = held[f"body.gru.bias_ih_l{layer}"].copy()  # (3 D,)
            hidden = held[f"body.gru.bias_hh_l{layer}"]
            bias[: 2 * width] += hidden[: 2 * width]
            weight = held[f"body.gru.weight_ih_l{layer}"]  # (3 D, D)
            recurrent = held[f"body.gru.weight_hh_l{layer}"]  # (3 D, D)
            self._layers.append((weight, bias, recurrent, hidden[2 * width :]))

    def last(self, x: Float32Array) -> Float32Array:
        h = x
        for weight, bias, recurrent, candidate_bias in self._layers:
            start = np.zeros(x.shape[1], np.float32)
            h = run_gru(kernels.project(h, weight, bias), recurrent, candidate_bias, start)
        last: Float32Array = x[-1] + h[-1]
        return last


class AttentionSteps:
    """See `recsys.models.lstm.bodies.SelfAttention`."""

    def __init__(self, held: Mapping[str, AnyArray], shape: NetworkShape) -> None:
        self._places = held["body.places"]  # (longest T, D)
        self._blocks = []
        for block in range(BLOCKS * shape.layers):
            prefix = f"body.blocks.{block}."
            parts = {k.removeprefix(prefix): v for k, v in held.items() if k.startswith(prefix)}
            self._blocks.append(parts)

    def last(self, x: Float32Array) -> Float32Array:
        x = x + self._places[: len(x)]
        for parts in self._blocks:
            mixed = _attend(_linear(_norm(x, parts, "attention_norm"), parts, "projections"))
            x = x + _linear(mixed, parts, "out")
            hidden = _linear(_norm(x, parts, "forward_norm"), parts, "up")
            gelu(hidden)
            x = x + _linear(hidden, parts, "down")
        last: Float32Array = x[-1]
        return last


STEPS: dict[str, type[LstmSteps] | type[GruSteps] | type[AttentionSteps]] = {
    "lstm": LstmSteps,
    "gru": GruSteps,
    "sasrec": AttentionSteps,
}


def _linear(x: Float32Array, parts: dict[str, Float32Array], name: str) -> Float32Array:
    found: Float32Array = x @ parts[f"{name}.weight"].T + parts[f"{name}.bias"]
    return found


def _norm(x: Float32Array, parts: dict[str, Float32Array], name: str) -> Float32Array:
    return kernels.layer_norm(x, parts[f"{name}.weight"], parts[f"{name}.bias"])


def _attend(projected: Float32Array) -> Float32Array:
    """Causal attention (T, D) of queries, keys and values that stand side by side, (T, 3 D)."""
    time = len(projected)
    heads = projected.reshape(time, 3, HEADS, -1).transpose(1, 2, 0, 3)
    query, key, value = heads  # each (H, T, D / H)
    logits = query @ key.transpose(0, 2, 1) * np.float32(query.shape[2] ** -0.5)  # (H, T, T)
    logits[:, np.triu(np.ones((time, time), np.bool_), 1)] = -np.inf
    shares = np.exp(logits - logits.max(axis=2, keepdims=True))
    shares /= shares.sum(axis=2, keepdims=True)
    mixed: Float32Array = (shares @ value).transpose(1, 0, 2).reshape(time, -1)
    return mixed


@compiled
def gelu(x: Float32Array) -> None:
    """x * Phi(x) in place, Phi the normal distribution's (Hendrycks and Gimpel 2016); x (T, D)."""
    for t in range(x.shape[0]):
        for d in range(x.shape[1]):
            x[t, d] *= np.float32(0.5 + 0.5 * erf(x[t, d] * 0.7071067811865476))


@compiled
def run_gru(
    projected: Float32Array,
    recurrent: Float32Array,
    candidate_bias: Float32Array,
    h: Float32Array,
) -> Float32Array:
    """The hidden states h (T, D) of a GRU layer (Cho et al. 2014), whose last h (D,) is left in place.

    projected (T, 3 D): W x + b, in torch's order r, z, n, with both biases of r and z; recurrent
    (3 D, D); candidate_bias (D,): of the recurrent part of n, which r multiplies.
    """
    steps, width = projected.shape[0], len(h)
    out = np.empty((steps, width), np.float32)
    gates = np.empty(2 * width, np.float32)
    candidate = np.empty(width, np.float32)
    powers = np.empty(2 * width, np.int32)
    for t in range(steps):
        for j in range(2 * width):
            total = np.float32(0)
            for d in range(width):
                total += recurrent[j, d] * h[d]
            gates[j] = total + projected[t, j]
        sigmoid(gates, powers)
        for j in range(width):
            total = candidate_bias[j]
            for d in range(width):
                total += recurrent[2 * width + j, d] * h[d]
            # tanh(z) = 2 sigmoid(2 z) - 1, as in the LSTM.
            candidate[j] = np.float32(2) * (projected[t, 2 * width + j] + gates[j] * total)
        sigmoid(candidate, powers[:width])
        for d in range(width):
            n = np.float32(2) * candidate[d] - np.float32(1)
            h[d] = n + gates[width + d] * (h[d] - n)
            out[t, d] = h[d]
    return out
