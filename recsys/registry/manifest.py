"""A version's manifest: its format, earlier formats read as this one, and whether each file is the one
that it names. Nothing is used before.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from recsys.errors import ModelFileError
from recsys.events.array_types import AnyArray
from recsys.models.blend import Blend
from recsys.storage.entities.version_rows import VERSION_NAME

FORMAT = 3
FORMATS = (1, 2, FORMAT)  # that are read; see recsys.registry.manifest
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 * 2**20


def check_name(version: str) -> None:
    """Raises ModelFileError where a version's name could be that of another folder."""
    if not VERSION_NAME.fullmatch(version):
        raise ModelFileError("the version's name is not one this registry gives")


def read_manifest(folder: Path, version: str, manifest_sha256: str) -> dict[str, Any]:
    """The manifest of a version that this release reads. Raises ModelFileError."""
    manifest = parsed_manifest(folder, version, manifest_sha256)
    if manifest["format"] not in FORMATS:
        raise ModelFileError(
            f"version {version} has format {manifest['format']!r}; "
            f"this release reads formats {FORMATS[0]} to {FORMAT}"
        )
    return manifest


def parsed_manifest(folder: Path, version: str, manifest_sha256: str) -> dict[str, Any]:
    """The manifest that was registered, of whatever format. Raises ModelFileError."""
    data = _read_bytes(folder / MANIFEST, version, MAX_MANIFEST_BYTES)
    if not secrets.compare_digest(hashlib.sha256(data).hexdigest(), manifest_sha256):
        raise ModelFileError(f"version {version}: {MANIFEST} is not the one that was registered")
    try:
        manifest: dict[str, Any] = orjson.loads(data)
        manifest["format"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ModelFileError(f"version {version}: {MANIFEST} cannot be read") from None
    return manifest


def check_file(folder: Path, version: str, name: str, manifest: dict[str, Any]) -> None:
    """Raises ModelFileError where the file is not the one that was written."""
    if Path(name).name != name:
        raise ModelFileError(f"version {version}: {MANIFEST} names a file outside its folder")
    listed = manifest["files"][name]
    try:
        with open(folder / name, "rb") as file:
            same = os.fstat(file.fileno()).st_size == int(listed["bytes"])
            digest = hashlib.file_digest(file, "sha256").hexdigest() if same else ""
    except OSError as error:
        kind = type(error).__name__
        raise ModelFileError(f"version {version}: {name} cannot be read ({kind})") from None
    if digest != listed["sha256"]:
        raise ModelFileError(f"version {version}: {name} is damaged (its SHA-256 differs)")


def _read_bytes(path: Path, version: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        kind = type(error).__name__
        raise ModelFileError(f"version {version}: {path.name} cannot be read ({kind})") from None


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
