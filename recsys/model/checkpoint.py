"""Weights as bytes and back. Nothing is ever unpickled: safetensors holds numbers only."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from recsys.errors import ModelFileError
from recsys.model.network import NetworkShape, NextItemNetwork


def network_bytes(network: NextItemNetwork) -> bytes:
    """The weights in safetensors form."""
    return save_tensors({name: t.contiguous() for name, t in network.state_dict().items()})


def shape_plain(network: NextItemNetwork) -> dict[str, Any]:
    """The network's shape, JSON-ready; `network_from` takes it back."""
    return asdict(network.shape)


def network_from(data: bytes, shape: dict[str, Any]) -> NextItemNetwork:
    """The network of `shape` with the weights in `data`, in evaluation mode.

    Raises ModelFileError where the file is damaged, or its tensors are not those of the shape, or
    hold a number that is not finite.
    """
    try:
        network = NextItemNetwork(NetworkShape(**shape))
        tensors = load_tensors(data)
        network.load_state_dict(tensors)
    except (SafetensorError, TypeError, ValueError, RuntimeError, KeyError) as error:
        kind = type(error).__name__
        raise ModelFileError(f"the network's weights do not fit its manifest ({kind})") from None
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ModelFileError("the network's weights hold a number that is not finite")
    network.eval()
    return network
