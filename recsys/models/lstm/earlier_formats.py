"""Model versions of earlier releases as this one writes them, so that an upgrade loses none.

format 2    has no item table in int8: it is made when the version is loaded
format 1    has no blends, categories or copy head; its neighbours vote whatever the order
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.events.array_types import AnyArray

_RENAMED = {
    "event_types.weight": "channels.event_type.weight",
    "gaps.weight": "channels.gap.weight",
    "session_starts.weight": "channels.session.weight",
}


def manifest_of_1(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of format 1, read as one of format 3."""
    alone = {"weights": {"lstm": 1.0}, "sharpness": 1.0, "gate_shift": 0.0, "recency": 0.0}
    network = manifest["network"]
    if network is not None:
        network = {
            **{name: network[name] for name in ("rows", "width", "layers")},
            **{name: network[name] for name in ("embedding_dropout", "dropout")},
            "max_length": manifest["max_length"],
            "copy": False,
            "channels": {"event_type": network["event_types"], "gap": 27, "session": 2},
        }
    return {**manifest, "network": network, "blends": {"lstm": alone}}


def weights_of_1(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's tensors by the names they have now."""
    named = {
        _RENAMED.get(name, f"body.{name}" if name.startswith("lstm.") else name): tensor
        for name, tensor in weights.items()
    }
    rows = len(weights["items.weight"])
    return {**named, "item_categories": torch.zeros(rows, dtype=torch.int32)}


def rankers_of_1(arrays: dict[str, AnyArray]) -> dict[str, AnyArray]:
    """The arrays of all rankers; without a decay nobody asks where an item stood in its session."""
    named = dict(arrays)
    share = named.pop("session_knn.copy_share", None)
    if share is not None:
        named["session_knn.settings"] = np.array([0.0, float(share[0])])
        for places, items in (
            ("item_places", "item_sessions"),
            ("session_places", "session_items"),
        ):
            named[f"session_knn.{places}"] = np.zeros_like(named[f"session_knn.{items}"])
    return named
