"""The network as an ONNX file, for runtimes without torch.

Inputs (int64): `items`, `event_types`, `gaps`, `session_starts`, each (B, T), padded on the right,
and `lengths` (B,). Outputs: `scores` (B, V) of the next item, before sharpening and masking, the
copy head's `shares` (B, T) over the places of the history, and `gate` (B,), its logit; a network
without a copy head gives zero shares. What to do with them is in the manifest's `blends`.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from recsys.errors import MissingExtraError, ModelFileError
from recsys.models.lstm.network import BatchTensors, NextItemNetwork

TOLERANCE = 1e-4
OPSET = 17
INPUTS = ("items", "event_types", "gaps", "session_starts", "lengths")
OUTPUTS = ("scores", "shares", "gate")


class _NextItem(nn.Module):
    """The way from padded inputs to one prediction a history."""

    def __init__(self, network: NextItemNetwork, current_may_recur: bool) -> None:
        super().__init__()
        self.network = network
        self.current_may_recur = current_may_recur

    def forward(
        self,
        items: Tensor,
        event_types: Tensor,
        gaps: Tensor,
        session_starts: Tensor,
        lengths: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        channels = {"event_type": event_types, "gap": gaps, "session": session_starts}
        x, y = self.network(BatchTensors(items, channels))  # (B, T, D)
        last = lengths - 1
        place = last[:, None, None].expand(-1, 1, y.shape[2])
        final = y.gather(1, place).squeeze(1)  # (B, D)
        scores = self.network.scores(final)
        if self.network.copy_head is None:
            return scores, torch.zeros_like(items, dtype=scores.dtype), scores[:, 0] * 0 - 1e9
        shares, gate = self.network.copy_head.last(x, final, items, last, self.current_may_recur)
        return scores, shares, gate


def export_onnx(network: NextItemNetwork, current_may_recur: bool, path: Path) -> float:
    """Write `path` and return the largest difference found to the network itself.

    The file is run beside the network on random histories of several lengths. Raises
    MissingExtraError where the extra `onnx` is not installed, ModelFileError where a difference
    exceeds TOLERANCE; no file is left then.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnx", "to export to ONNX") from None
    wrapped = _NextItem(network, current_may_recur).eval()
    wide = {0: "batch", 1: "time"}
    axes = dict.fromkeys((*INPUTS[:4], "shares"), wide)
    axes |= {name: {0: "batch"} for name in ("lengths", "scores", "gate")}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wrapped,
            _random_inputs(network, 3, 7, 0),
            str(path),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,  # the newer exporter fixes the length of a recurrent network's input
        )
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        worst = 0.0
        lengths = sorted({1, 2, min(13, network.shape.max_length), network.shape.max_length})
        for seed, length in enumerate(lengths, 1):
            inputs = _random_inputs(network, 5, length, seed)
            feed = {k: v.numpy() for k, v in zip(INPUTS, inputs, strict=True)}
            given = {node.name for node in session.get_inputs()}
            found = session.run(None, {k: v for k, v in feed.items() if k in given})
            for ours, theirs in zip(wrapped(*inputs), found, strict=True):
                worst = max(worst, float(np.abs(ours.numpy() - theirs).max()))
    if not worst <= TOLERANCE:
        path.unlink(missing_ok=True)
        raise ModelFileError(f"the ONNX file differs from the network by {worst:.2g}")
    return worst


def _random_inputs(
    network: NextItemNetwork, batch: int, length: int, seed: int
) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    channels = network.shape.channels

    def draw(high: int) -> Tensor:
        return torch.randint(0, max(1, high), (batch, length), generator=generator)

    items = torch.randint(1, network.shape.rows, (batch, length), generator=generator)
    lengths = torch.randint(1, length + 1, (batch,), generator=generator)
    items[torch.arange(length)[None, :] >= lengths[:, None]] = 0
    return (
        items,
        draw(channels.get("event_type", 1)),
        draw(channels.get("gap", 1)),
        draw(channels.get("session", 1)),
        lengths,
    )
