"""Versions as immutable files, facts about them as rows.

A version is a folder `<registry.path>/<version>/`:

    network.safetensors    the network's weights (absent where none was trained)
    items.safetensors      its item table in int8, with a scale for each row
    content.safetensors    the map from an item's content to its vector (absent where there is none)
    rankers.safetensors    every ranker's arrays, named '<ranker>.<array>'
    vocabulary.json        item ids by index, event types and categories by code
    manifest.json          format, shapes, settings, data window, metrics, and each file's SHA-256

The row keeps the manifest's own SHA-256, so that a file changed, cut or swapped anywhere is found
before a byte of it is used. A folder is written beside its place and renamed into it. Arrays are
mapped, not read: the processes of one machine hold each of them once.
"""

from recsys.registry.copies import keep_version
from recsys.registry.folders import (
    delete_version,
    folder_bytes,
    sweep_parts,
    sweep_unregistered,
)
from recsys.registry.manifest import FORMAT, MANIFEST
from recsys.registry.version_files import (
    known_items,
    load_champion,
    new_version,
    read_version,
    write_version,
)

__all__ = [
    "FORMAT",
    "MANIFEST",
    "delete_version",
    "folder_bytes",
    "keep_version",
    "known_items",
    "load_champion",
    "new_version",
    "read_version",
    "sweep_parts",
    "sweep_unregistered",
    "write_version",
]
