"""Weights as bytes and back. Nothing is ever unpickled: safetensors holds numbers only."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor

from recsys.errors import ModelFileError
from recsys.models.lstm.network import NetworkShape, NextItemNetwork


def network_bytes(network: NextItemNetwork) -> bytes:
    """The weights in safetensors form."""
    return save_tensors({name: t.contiguous() for name, t in network.state_dict().items()})


def shape_plain(network: NextItemNetwork) -> dict[str, Any]:
    """The network's shape, JSON-ready; `network_from` takes it back."""
    return asdict(network.shape)


def mapped_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, mapped: processes that map one file share its memory.

    Raises ModelFileError where it is not such a file.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        kind = type(error).__name__
        raise ModelFileError(f"{path.name} cannot be read ({kind})") from None


def network_from(tensors: dict[str, Tensor], shape: dict[str, Any]) -> NextItemNetwork:
    """The network of `shape` whose weights are `tensors` themselves, in evaluation mode.

    Raises ModelFileError where the tensors are not those of the shape, or hold a number that is not
    finite.
    """
    try:
        with torch.device("meta"):  # shapes alone: nothing is allocated or drawn
            network = NextItemNetwork(NetworkShape(**shape))
        network.load_state_dict(tensors, assign=True)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        kind = type(error).__name__
        raise ModelFileError(f"the network's weights do not fit its manifest ({kind})") from None
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ModelFileError("the network's weights hold a number that is not finite")
    network.eval()
    return network


@dataclass(frozen=True)
class TrainingCheckpoint:
    """The state of a training after its last finished epoch, in one file.

    The file is the SHA-256 of what follows, the length of a JSON part, that part, and safetensors.
    It is read back only under the same `key`, which names the data and the settings.
    """

    path: Path
    key: str

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Replace the file whole; a kill leaves the old one or the new one."""
        # The generator's state holds integers of 128 bits, which only this parser keeps.
        text = json.dumps({"key": self.key, **facts}).encode()
        numbers = save_tensors({name: t.contiguous().clone() for name, t in tensors.items()})
        content = len(text).to_bytes(8, "little") + text + numbers
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        with open(part, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state, or None where there is none of this key or the file is damaged."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return None
        content = data[32:]
        if hashlib.sha256(content).digest() != data[:32]:
            return None
        size = int.from_bytes(content[:8], "little")
        facts: dict[str, Any] = json.loads(content[8 : 8 + size])
        if facts["key"] != self.key:
            return None
        return load_tensors(content[8 + size :]), facts

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
