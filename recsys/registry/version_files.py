"""A bundle <-> the files of its version: what was written is read again, or nothing is."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import orjson
from safetensors import SafetensorError
from safetensors.numpy import save as save_arrays

from recsys.errors import ModelFileError
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.vocabulary import Vocabulary
from recsys.models.bundle import Bundle
from recsys.models.content import ContentMap
from recsys.models.lstm.item_matrix import ItemMatrix
from recsys.models.lstm.weights import (
    network_bytes,
    shape_plain,
    stored_network,
    weights_of_format_1,
)
from recsys.models.ranker import Ranker
from recsys.models.rankers import RANKERS
from recsys.models.version_facts import VersionFacts
from recsys.progress import Say
from recsys.registry.array_files import mapped_arrays
from recsys.registry.copies import fetch_version
from recsys.registry.folders import part_of, sync_folder, write_durably
from recsys.registry.manifest import (
    FORMAT,
    MANIFEST,
    check_file,
    check_name,
    loaded_blends,
    loaded_name,
    manifest_of_1,
    rankers_of_1,
    read_manifest,
    stored_blends,
    stored_name,
)
from recsys.storage.engine.database import Database
from recsys.storage.entities import version_rows
from recsys.storage.entities.model_files import ModelFiles


def new_version(now: datetime) -> str:
    """A name that sorts by time, such as 20250131-093000-a1b2c3."""
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def write_version(root: Path, bundle: Bundle) -> tuple[str, int]:
    """Write `bundle` under `root`; its manifest's SHA-256 and its size in bytes.

    Raises OSError where the disk refuses; nothing half-written is left under the version's name.
    """
    files: dict[str, bytes] = {
        "vocabulary.json": orjson.dumps(
            {
                "item_ids": bundle.vocabulary.item_ids,
                "event_types": bundle.event_types,
                "categories": bundle.categories,
            }
        ),
        "rankers.safetensors": save_arrays(
            {
                f"{name}.{key}": np.ascontiguousarray(array)
                for name, ranker in bundle.rankers.items()
                for key, array in ranker.arrays().items()
            }
        ),
    }
    if bundle.network is not None:
        files["network.safetensors"] = network_bytes(bundle.network)
        files["items.safetensors"] = ItemMatrix.of(bundle.network, "int8").packed()
    if bundle.content is not None:
        files["content.safetensors"] = save_arrays(bundle.content.arrays())
    manifest = {
        "format": FORMAT,
        "version": bundle.version,
        "ranking": stored_name(bundle.ranking, bundle.network_name),
        "network": shape_plain(bundle.network) if bundle.network is not None else None,
        "rankers": sorted(bundle.rankers),
        "blends": stored_blends(bundle.blends, bundle.network_name),
        "repeats": bundle.repeats.plain(),
        "max_length": bundle.max_length,
        "session_gap_seconds": bundle.session_gap_seconds,
        "input_event_types": list(bundle.input_event_types),
        "facts": bundle.facts.to_json(),
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in files.items()
        },
    }
    files[MANIFEST] = orjson.dumps(manifest, option=orjson.OPT_INDENT_2)
    root.mkdir(parents=True, exist_ok=True)
    temporary = part_of(root, bundle.version)
    try:
        temporary.mkdir()
        for name, data in files.items():
            write_durably(temporary / name, data)
        os.rename(temporary, root / bundle.version)
        sync_folder(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    digest = hashlib.sha256(files[MANIFEST]).hexdigest()
    return digest, sum(len(data) for data in files.values())


def read_version(
    root: Path, version: str, manifest_sha256: str, files: ModelFiles | None = None
) -> Bundle:
    """The version's bundle; where the folder has none, it is fetched from `files` first.

    Raises ModelFileError where a file is absent, is not what its hash says, or does not fit.
    """
    check_name(version)
    if files is not None:
        fetch_version(root, version, manifest_sha256, files)
    folder = root / version
    manifest = read_manifest(folder, version, manifest_sha256)
    for name in manifest["files"]:
        check_file(folder, version, name, manifest)
    try:
        first = manifest["format"] == 1
        if first:
            manifest = manifest_of_1(manifest)
        names = orjson.loads((folder / "vocabulary.json").read_bytes())
        vocabulary = Vocabulary(names["item_ids"])
        arrays = mapped_arrays(folder / "rankers.safetensors")
        if first:
            arrays = rankers_of_1(arrays)
        rankers: dict[str, Ranker] = {
            name: RANKERS[name].from_arrays(
                {
                    key.partition(".")[2]: array
                    for key, array in arrays.items()
                    if key.startswith(f"{name}.")
                }
            )
            for name in manifest["rankers"]
        }
        network = light = None
        if manifest["network"] is not None:
            if manifest["network"]["rows"] != len(vocabulary):
                raise ModelFileError("the network is of another vocabulary")
            weights = mapped_arrays(folder / "network.safetensors")
            if first:
                weights = weights_of_format_1(weights)
            network = stored_network(weights, manifest["network"])
            if "items.safetensors" in manifest["files"]:
                parts = mapped_arrays(folder / "items.safetensors")
                light = ItemMatrix.stored(parts, weights["item_bias"])
        content = None
        if "content.safetensors" in manifest["files"]:
            parts = mapped_arrays(folder / "content.safetensors")
            content = ContentMap.from_arrays(parts)
            if network is None or len(content.mean) != network.shape.width:
                raise ModelFileError("the content map is of another network")
        body = None if network is None else network.shape.body
        return Bundle(
            version=version,
            vocabulary=vocabulary,
            event_types=list(names["event_types"]),
            network=network,
            rankers=rankers,
            repeats=RepeatPolicy(**manifest["repeats"]),
            ranking=loaded_name(str(manifest["ranking"]), body),
            max_length=int(manifest["max_length"]),
            session_gap_seconds=float(manifest["session_gap_seconds"]),
            input_event_types=tuple(manifest["input_event_types"]),
            facts=VersionFacts.from_json(manifest["facts"]),
            blends=loaded_blends(manifest["blends"], body),
            categories=list(names.get("categories", ())),
            light=light,
            content=content,
        )
    except ModelFileError as error:  # of a file alone, by whoever reads it
        raise ModelFileError(f"version {version}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, SafetensorError) as error:
        kind = type(error).__name__
        raise ModelFileError(f"version {version}: its files do not fit together ({kind})") from None
    except OSError as error:  # deleted since they were checked
        kind = type(error).__name__
        raise ModelFileError(f"version {version}: its files cannot be read ({kind})") from None


def known_items(root: Path, version: str, manifest_sha256: str) -> frozenset[str]:
    """The items that a version was taught. Raises ModelFileError."""
    folder = root / version
    manifest = read_manifest(folder, version, manifest_sha256)
    check_file(folder, version, "vocabulary.json", manifest)
    try:
        names = orjson.loads((folder / "vocabulary.json").read_bytes())
        return frozenset(names["item_ids"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFileError(f"version {version}: its vocabulary cannot be read") from None


def load_champion(
    root: Path,
    database: Database,
    say: Say,
    files: ModelFiles | None = None,
) -> Bundle | None:
    """The champion's bundle; None where there is none, or where its files are damaged."""
    with database.connect() as connection:
        row = version_rows.champion(connection)
    if row is None:
        return None
    try:
        return read_version(root, row.version, row.manifest_sha256, files)
    except ModelFileError as error:
        say(f"the champion cannot be compared with: {error}")
        return None
