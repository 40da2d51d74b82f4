"""What a version's files call things, and those of earlier releases as this one writes them.

format 3    names the network "lstm" as a ranking and as a component, whatever its body: `stored_*`
            and `loaded_*` map that to the body's own name in memory and back
format 2    has no item table in int8: it is made when the version is loaded
format 1    has no blends, categories or copy head; its session kNN has no order decay, so it keeps
            no place of an item in its session
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recsys.events.array_types import AnyArray
from recsys.models.blend import Blend

NETWORK = "lstm"  # the network's name in files


def stored_name(name: str, network: str | None) -> str:
    """A ranking's or component's name in files; `network` is the network's in memory."""
    return NETWORK if name == network else name


def loaded_name(name: str, network: str | None) -> str:
    """The name in memory of what files call `name`."""
    return network if name == NETWORK and network is not None else name


def stored_blends(blends: Mapping[str, Blend], network: str | None) -> dict[str, dict[str, Any]]:
    """Blends by name as a manifest holds them; JSON-ready."""
    found = {}
    for name, blend in blends.items():
        weights = {stored_name(n, network): weight for n, weight in blend.weights.items()}
        found[stored_name(name, network)] = {**blend.plain(), "weights": weights}
    return found


def loaded_blends(blends: Mapping[str, Mapping[str, Any]], network: str | None) -> dict[str, Blend]:
    """The blends of a manifest. Raises KeyError or TypeError where they are none."""
    found = {}
    for name, plain in blends.items():
        weights = {loaded_name(n, network): weight for n, weight in plain["weights"].items()}
        found[loaded_name(name, network)] = Blend(**{**plain, "weights": weights})
    return found


def manifest_of_1(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of format 1 as one of format 3."""
    alone = {"weights": {NETWORK: 1.0}, "sharpness": 1.0, "gate_shift": 0.0, "recency": 0.0}
    network = manifest["network"]
    if network is not None:
        network = {
            **{name: network[name] for name in ("rows", "width", "layers")},
            **{name: network[name] for name in ("embedding_dropout", "dropout")},
            "max_length": manifest["max_length"],
            "copy": False,
            "channels": {"event_type": network["event_types"], "gap": 27, "session": 2},
        }
    return {**manifest, "network": network, "blends": {NETWORK: alone}}


def rankers_of_1(arrays: dict[str, AnyArray]) -> dict[str, AnyArray]:
    """The arrays of all rankers of format 1, by the names they have in format 3."""
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
