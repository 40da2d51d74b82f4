"""A network's weights as NumPy arrays: their names and shapes, and how a file holds them. No torch.

Legend: V vocabulary rows, D width, K width of the copy head's keys, T length of a history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import save as save_arrays

from recsys.errors import ModelFileError
from recsys.events.array_types import AnyArray

HEADS = 2  # of self-attention
BLOCKS = 2  # SASRec's own default
KEY_WIDTH = 64  # K
DISTANCES = 64  # steps back that the copy head tells apart; all beyond share the last
NEVER = -1e9  # the logit of what cannot be


@dataclass(frozen=True)
class NetworkShape:
    """All that is needed to build the network again before its weights are loaded."""

    rows: int  # V: vocabulary rows, padding and unknown included
    width: int  # D
    layers: int
    max_length: int
    body: str = "lstm"  # a key of `recsys.models.lstm.bodies.BODIES`
    copy: bool = True
    channels: dict[str, int] = field(default_factory=dict)  # name -> rows; row 0 = missing
    embedding_dropout: float = 0.0
    dropout: float = 0.0


class Network(Protocol):
    """A network: as torch trains it (`NextItemNetwork`), or as a file holds it (`StoredNetwork`)."""

    @property
    def shape(self) -> NetworkShape: ...

    def arrays(self) -> Mapping[str, AnyArray]:
        """Its weights by name, of the shapes that `array_shapes` gives; in its own memory on a CPU."""


@dataclass(frozen=True, eq=False)
class StoredNetwork:
    """A network's shape and weights."""

    shape: NetworkShape
    weights: Mapping[str, AnyArray]

    def arrays(self) -> Mapping[str, AnyArray]:
        return self.weights


def stored_network(weights: Mapping[str, AnyArray], shape: Mapping[str, Any]) -> StoredNetwork:
    """The network of `shape`, as `shape_plain` gave it, whose weights are the arrays themselves.

    Raises ModelFileError where they are not those of the shape, or hold a number that is not finite.
    """
    try:
        chosen = NetworkShape(**shape)
        wanted = array_shapes(chosen)
    except (TypeError, ValueError, KeyError) as error:
        kind = type(error).__name__
        raise ModelFileError(f"the network's shape cannot be read ({kind})") from None
    if {name: array.shape for name, array in weights.items()} != wanted:
        raise ModelFileError("the network's weights do not fit its manifest")
    for name, array in weights.items():
        if array.dtype != (np.int32 if name == "item_categories" else np.float32):
            raise ModelFileError("the network's weights do not fit its manifest")
        if array.size and not np.isfinite((array.min(), array.max())).all():
            raise ModelFileError("the network's weights hold a number that is not finite")
    return StoredNetwork(chosen, weights)


def network_bytes(network: Network) -> bytes:
    """The weights in safetensors form."""
    return save_arrays(
        {name: np.ascontiguousarray(array) for name, array in network.arrays().items()}
    )


def shape_plain(network: Network) -> dict[str, Any]:
    """The network's shape, JSON-ready; `stored_network` takes it back."""
    return asdict(network.shape)


def array_shapes(shape: NetworkShape) -> dict[str, tuple[int, ...]]:
    """The shape of each of a network's arrays by its name, which is torch's. Raises KeyError for an
    unknown body.
    """
    rows, width = shape.rows, shape.width
    found: dict[str, tuple[int, ...]] = {
        "items.weight": (rows, width),
        "item_bias": (rows,),
        "item_categories": (rows,),
        **{f"channels.{name}.weight": (count, width) for name, count in shape.channels.items()},
        **_norm("input_norm", width),
        **_norm("output_norm", width),
        **_BODIES[shape.body](shape),
    }
    if shape.copy:
        found |= _linear("copy_head.query", width, KEY_WIDTH)
        found |= _linear("copy_head.key", width, KEY_WIDTH)
        found |= _linear("copy_head.gate", width, 1)
        found["copy_head.distance"] = (DISTANCES,)
    return found


def _linear(name: str, width: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, width), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _recurrent(name: str, gates: int, shape: NetworkShape) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for layer in range(shape.layers):
        for side in ("ih", "hh"):
            found[f"body.{name}.weight_{side}_l{layer}"] = (gates * shape.width, shape.width)
            found[f"body.{name}.bias_{side}_l{layer}"] = (gates * shape.width,)
    return found


def _attention(shape: NetworkShape) -> dict[str, tuple[int, ...]]:
    width = shape.width
    found: dict[str, tuple[int, ...]] = {"body.places": (shape.max_length, width)}
    for block in range(BLOCKS * shape.layers):
        name = f"body.blocks.{block}"
        found |= _norm(f"{name}.attention_norm", width) | _norm(f"{name}.forward_norm", width)
        found |= _linear(f"{name}.projections", width, 3 * width)
        for part in ("out", "up", "down"):
            found |= _linear(f"{name}.{part}", width, width)
    return found


_BODIES = {
    "lstm": lambda shape: _recurrent("lstm", 4, shape),
    "gru": lambda shape: _recurrent("gru", 3, shape),
    "sasrec": _attention,
}


def weights_of_format_1(weights: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """A network's arrays of model format 1, by the names they have now."""
    renamed = {
        "event_types.weight": "channels.event_type.weight",
        "gaps.weight": "channels.gap.weight",
        "session_starts.weight": "channels.session.weight",
    }
    named = {
        renamed.get(name, f"body.{name}" if name.startswith("lstm.") else name): array
        for name, array in weights.items()
    }
    return {**named, "item_categories": np.zeros(len(weights["items.weight"]), np.int32)}
