"""Versions as immutable files, facts about them as rows.

A version is a folder `<registry.path>/<version>/`:

    network.safetensors    the LSTM's weights (absent where none was trained)
    items.safetensors      its item table in int8, with a scale for each row
    rankers.safetensors    every ranker's arrays, named '<ranker>.<array>'
    vocabulary.json        item ids by index, event types and categories by code
    manifest.json          format, shapes, settings, data window, metrics, and each file's SHA-256

The row keeps the manifest's own SHA-256, so that a file changed, cut or swapped anywhere is found
before a byte of it is used. A folder is written beside its place and renamed into it. Arrays are
mapped, not read: the processes of one machine hold each of them once.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save as save_arrays

from recsys.data.repeats import RepeatPolicy
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ModelFileError
from recsys.model.checkpoint import mapped_tensors, network_bytes, network_from, shape_plain
from recsys.model.earlier_formats import manifest_of_1, rankers_of_1, weights_of_1
from recsys.model.item_matrix import ItemMatrix
from recsys.model.network import NextItemNetwork
from recsys.model.scoring import NetworkScorer
from recsys.rankers import RANKERS, Ranker
from recsys.rankers.blend import Blend
from recsys.rankers.session_knn import SessionKnn
from recsys.storage import version_rows
from recsys.storage.database import Database
from recsys.storage.model_files import ModelFiles
from recsys.storage.version_rows import VERSION_NAME

FORMAT = 3
FORMATS = (1, 2, FORMAT)  # that are read; see model/earlier_formats.py
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 * 2**20
COPY_BYTES = 2**20
PART_SECONDS = {True: 86_400, False: 3_600}  # what is half-written stays, by whether its process is


@dataclass(frozen=True)
class Bundle:
    """One model version in memory."""

    version: str
    vocabulary: Vocabulary
    event_types: list[str]  # code 1.. in order; code 0 is missing
    network: NextItemNetwork | None
    rankers: Mapping[str, Ranker]
    repeats: RepeatPolicy
    ranking: str  # what is served: a blend's name or a ranker's
    max_length: int  # events of a history the network sees
    session_gap_seconds: float
    input_event_types: tuple[str, ...]  # empty = all
    facts: dict[str, Any]  # data window, settings, metrics, learning curve; JSON-ready
    blends: Mapping[str, Blend] = field(default_factory=dict)  # 'lstm' alone, and 'blend'
    categories: list[str] = field(default_factory=list)  # code 1.. in order; code 0 is missing
    light: ItemMatrix | None = None  # the item table in int8, as the version's file holds it
    matrix: ItemMatrix | None = None  # what the catalogue is scanned with, if not with the table

    @cached_property
    def scorer(self) -> NetworkScorer | None:
        if self.network is None:
            return None
        return NetworkScorer(self.network, self.max_length, self.repeats, self.matrix)

    @cached_property
    def recent(self) -> NDArray[np.float32]:
        """log(1 + events of the data's last days) of each row; (V,)."""
        ranker = self.rankers["popular_recent"]
        items, counts = ranker.votes(np.empty(0, np.int32))
        found = np.zeros(len(self.vocabulary), np.float32)
        found[items] = np.log1p(counts)
        return found

    @property
    def network_bytes(self) -> int:
        """What the network's weights take in memory."""
        if self.network is None:
            return 0
        return sum(t.numel() * t.element_size() for t in self.network.state_dict().values())

    def voice(self, name: str) -> Ranker:
        """A ranker as a voice of a blend: the copy head sees to copies, so it adds none itself."""
        return self._voices[name]

    @cached_property
    def _voices(self) -> dict[str, Ranker]:
        return {
            name: replace(ranker, copy_share=0.0) if isinstance(ranker, SessionKnn) else ranker
            for name, ranker in self.rankers.items()
        }


def compacted(bundle: Bundle, kind: str) -> Bundle:
    """`bundle` that scans its catalogue in a compact form (`recsys.model.item_matrix.KINDS`)."""
    if bundle.network is None or kind == "float32":
        return replace(bundle, matrix=None)
    light = bundle.light if kind == "int8" else None
    return replace(bundle, matrix=light or ItemMatrix.of(bundle.network, kind))


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
    manifest = {
        "format": FORMAT,
        "version": bundle.version,
        "ranking": bundle.ranking,
        "network": shape_plain(bundle.network) if bundle.network is not None else None,
        "rankers": sorted(bundle.rankers),
        "blends": {name: blend.plain() for name, blend in bundle.blends.items()},
        "repeats": bundle.repeats.plain(),
        "max_length": bundle.max_length,
        "session_gap_seconds": bundle.session_gap_seconds,
        "input_event_types": list(bundle.input_event_types),
        "facts": bundle.facts,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in files.items()
        },
    }
    files[MANIFEST] = orjson.dumps(manifest, option=orjson.OPT_INDENT_2)
    root.mkdir(parents=True, exist_ok=True)
    temporary = _part(root, bundle.version)
    try:
        temporary.mkdir()
        for name, data in files.items():
            _write_durably(temporary / name, data)
        os.rename(temporary, root / bundle.version)
        _sync_folder(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    digest = hashlib.sha256(files[MANIFEST]).hexdigest()
    return digest, sum(len(data) for data in files.values())


def keep_version(root: Path, version: str, files: ModelFiles | None) -> None:
    """Put the version's files where all instances reach them, before its row names it."""
    if files is not None:
        for path in sorted((root / version).iterdir()):
            files.put(version, path)


def fetch_version(root: Path, version: str, manifest_sha256: str, files: ModelFiles) -> None:
    """The version's folder from `files`, checked, unless it is there already.

    Raises ModelFileError where a file is absent or is not what its hash says.
    """
    if (root / version).is_dir():
        return
    root.mkdir(parents=True, exist_ok=True)
    part = _part(root, version)
    try:
        part.mkdir()
        _fetch_file(part, version, MANIFEST, files, MAX_MANIFEST_BYTES)
        manifest = _read_manifest(part, version, manifest_sha256)
        for name, said in manifest["files"].items():
            if Path(name).name != name:
                raise ModelFileError(f"version {version}: {MANIFEST} names a file elsewhere")
            _fetch_file(part, version, name, files, int(said["bytes"]))
            _check_file(part, version, name, manifest)
        part.rename(root / version)
    except OSError as error:
        if not (root / version).is_dir():  # else another process of this machine was quicker
            kind = type(error).__name__
            raise ModelFileError(f"version {version} cannot be kept on the disk ({kind})") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fetch_file(folder: Path, version: str, name: str, files: ModelFiles, limit: int) -> None:
    with open(folder / name, "wb") as file:
        for content in files.get(version, name):
            limit -= len(content)
            if limit < 0:
                raise ModelFileError(f"version {version}: {name} is larger than it should be")
            file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_version(
    root: Path, version: str, manifest_sha256: str, files: ModelFiles | None = None
) -> Bundle:
    """The version's bundle; where the folder has none, it is fetched from `files` first.

    Raises ModelFileError where a file is absent, is not what its hash says, or does not fit.
    """
    if not VERSION_NAME.fullmatch(version):
        raise ModelFileError("the version's name is not one this registry gives")
    if files is not None:
        fetch_version(root, version, manifest_sha256, files)
    folder = root / version
    manifest = _read_manifest(folder, version, manifest_sha256)
    for name in manifest["files"]:
        _check_file(folder, version, name, manifest)
    try:
        first = manifest["format"] == 1
        if first:
            manifest = manifest_of_1(manifest)
        words = orjson.loads((folder / "vocabulary.json").read_bytes())
        vocabulary = Vocabulary(words["item_ids"])
        stored = mapped_tensors(folder / "rankers.safetensors")
        arrays = {name: tensor.numpy() for name, tensor in stored.items()}
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
            weights = mapped_tensors(folder / "network.safetensors")
            network = network_from(weights_of_1(weights) if first else weights, manifest["network"])
            if "items.safetensors" in manifest["files"]:
                parts = mapped_tensors(folder / "items.safetensors")
                light = ItemMatrix.stored(parts, network.item_bias.detach())
        return Bundle(
            version=version,
            vocabulary=vocabulary,
            event_types=list(words["event_types"]),
            network=network,
            rankers=rankers,
            repeats=RepeatPolicy(**manifest["repeats"]),
            ranking=str(manifest["ranking"]),
            max_length=int(manifest["max_length"]),
            session_gap_seconds=float(manifest["session_gap_seconds"]),
            input_event_types=tuple(manifest["input_event_types"]),
            facts=manifest["facts"],
            blends={name: Blend(**blend) for name, blend in manifest["blends"].items()},
            categories=list(words.get("categories", ())),
            light=light,
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
    manifest = _read_manifest(folder, version, manifest_sha256)
    _check_file(folder, version, "vocabulary.json", manifest)
    try:
        words = orjson.loads((folder / "vocabulary.json").read_bytes())
        return frozenset(words["item_ids"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFileError(f"version {version}: its vocabulary cannot be read") from None


def verified_files(root: Path, version: str, manifest_sha256: str) -> dict[str, Path]:
    """The files of a version, manifest last, each found to be the one that was written.

    Of any format: what is copied need not be read. Raises ModelFileError.
    """
    if not VERSION_NAME.fullmatch(version):
        raise ModelFileError("the version's name is not one this registry gives")
    folder = root / version
    manifest = _parsed_manifest(folder, version, manifest_sha256)
    names = manifest.get("files")
    if not isinstance(names, dict):
        raise ModelFileError(f"version {version}: {MANIFEST} names no files")
    for name in names:
        _check_file(folder, version, name, manifest)
    return {name: folder / name for name in (*sorted(names), MANIFEST)}


def install_version(
    root: Path, version: str, manifest_sha256: str, files: Mapping[str, IO[bytes]]
) -> bool:
    """Put a version's files in place, whole or not at all; False where it was there already.

    Raises ModelFileError where they are not what the manifest says.
    """
    if not VERSION_NAME.fullmatch(version):
        raise ModelFileError("the version's name is not one this registry gives")
    try:
        verified_files(root, version, manifest_sha256)
        return False
    except ModelFileError:
        delete_version(root, version)  # absent, or damaged: what comes is better
    root.mkdir(parents=True, exist_ok=True)
    temporary = _part(root, version)
    try:
        inside = temporary / version
        inside.mkdir(parents=True)
        for name, source in files.items():
            if Path(name).name != name:
                raise ModelFileError(f"version {version}: a file's name leaves its folder")
            with open(inside / name, "wb") as file:
                shutil.copyfileobj(source, file, COPY_BYTES)
                file.flush()
                os.fsync(file.fileno())
        if set(verified_files(temporary, version, manifest_sha256)) != set(files):
            raise ModelFileError(f"version {version}: it has files that its manifest does not name")
        os.rename(inside, root / version)
        _sync_folder(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def load_champion(
    root: Path,
    database: Database,
    say: Callable[[str], None],
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


def delete_version(root: Path, version: str) -> None:
    """Remove the version's folder, if it is there."""
    if VERSION_NAME.fullmatch(version):
        shutil.rmtree(root / version, ignore_errors=True)


def _part(root: Path, version: str) -> Path:
    """Where a version is written before it is whole."""
    return root / f".{version}.{os.getpid()}.{secrets.token_hex(4)}.part"


def sweep_parts(folder: Path, now: datetime, pattern: str = ".*.part") -> int:
    """Remove what killed processes left half-written in `folder`, '.….<pid>.<random>.part'; how much.

    What may still be written stays: for a day after the last change where a process has that id, else
    for an hour, since it may run on another machine.
    """
    gone = 0
    for part in folder.glob(pattern):
        alive = Path("/proc", part.name.split(".")[-3]).exists()
        with suppress(FileNotFoundError):  # done by now, or swept by another process
            if now.timestamp() - part.stat().st_mtime < PART_SECONDS[alive]:
                continue
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink()
            gone += 1
    return gone


def sweep_unregistered(root: Path, registered: Container[str], before: float) -> list[str]:
    """Remove the folders of versions that are not among `registered` and were last written before
    `before` (seconds since 1970); their names.
    """
    gone = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if not VERSION_NAME.fullmatch(folder.name) or folder.name in registered:
            continue
        with suppress(FileNotFoundError):  # swept by another process
            if folder.stat().st_mtime < before:
                delete_version(root, folder.name)
                gone.append(folder.name)
    return gone


def _read_manifest(folder: Path, version: str, manifest_sha256: str) -> dict[str, Any]:
    manifest = _parsed_manifest(folder, version, manifest_sha256)
    if manifest["format"] not in FORMATS:
        raise ModelFileError(
            f"version {version} has format {manifest['format']!r}; "
            f"this release reads formats {FORMATS[0]} to {FORMAT}"
        )
    return manifest


def _parsed_manifest(folder: Path, version: str, manifest_sha256: str) -> dict[str, Any]:
    data = _read_bytes(folder / MANIFEST, version, MAX_MANIFEST_BYTES)
    if not secrets.compare_digest(hashlib.sha256(data).hexdigest(), manifest_sha256):
        raise ModelFileError(f"version {version}: {MANIFEST} is not the one that was registered")
    try:
        manifest: dict[str, Any] = orjson.loads(data)
        manifest["format"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ModelFileError(f"version {version}: {MANIFEST} cannot be read") from None
    return manifest


def _check_file(folder: Path, version: str, name: str, manifest: dict[str, Any]) -> None:
    """Raises ModelFileError where the file is not the one that was written."""
    if Path(name).name != name:
        raise ModelFileError(f"version {version}: {MANIFEST} names a file outside its folder")
    said = manifest["files"][name]
    try:
        with open(folder / name, "rb") as file:
            same = os.fstat(file.fileno()).st_size == int(said["bytes"])
            digest = hashlib.file_digest(file, "sha256").hexdigest() if same else ""
    except OSError as error:
        kind = type(error).__name__
        raise ModelFileError(f"version {version}: {name} cannot be read ({kind})") from None
    if digest != said["sha256"]:
        raise ModelFileError(f"version {version}: {name} is damaged (its SHA-256 differs)")


def _read_bytes(path: Path, version: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        kind = type(error).__name__
        raise ModelFileError(f"version {version}: {path.name} cannot be read ({kind})") from None


def _write_durably(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def folder_bytes(folder: Path) -> tuple[int, int | None]:
    """What all files under `folder` take, and what its disk has left; None where that is unknown."""
    taken = 0
    for inside, _, names in os.walk(folder):  # which passes over what has gone meanwhile
        for name in names:
            with suppress(OSError):
                taken += Path(inside, name).stat().st_size
    try:
        return taken, shutil.disk_usage(folder).free
    except OSError:
        return taken, None
