"""A version's manifest, and whether each file is the one that it names. Nothing is used before."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

import orjson

from recsys.errors import ModelFileError
from recsys.storage.entities.version_rows import VERSION_NAME

FORMAT = 3
FORMATS = (1, 2, FORMAT)  # that are read; see recsys.registry.formats
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
