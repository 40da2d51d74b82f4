"""Copy a version's files to and from the store that all instances share, and install them from backups."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from recsys.errors import ModelFileError
from recsys.registry.folders import delete_version, part_of, sync_folder
from recsys.registry.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    check_file,
    check_name,
    parsed_manifest,
    read_manifest,
)
from recsys.storage.entities.model_files import ModelFiles

COPY_BYTES = 2**20


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
    part = part_of(root, version)
    try:
        part.mkdir()
        _fetch_file(part, version, MANIFEST, files, MAX_MANIFEST_BYTES)
        manifest = read_manifest(part, version, manifest_sha256)
        for name, listed in manifest["files"].items():
            if Path(name).name != name:
                raise ModelFileError(f"version {version}: {MANIFEST} names a file elsewhere")
            _fetch_file(part, version, name, files, int(listed["bytes"]))
            check_file(part, version, name, manifest)
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


def verified_files(root: Path, version: str, manifest_sha256: str) -> dict[str, Path]:
    """The files of a version, manifest last, each found to be the one that was written.

    Of any format: what is copied need not be read. Raises ModelFileError.
    """
    check_name(version)
    folder = root / version
    manifest = parsed_manifest(folder, version, manifest_sha256)
    names = manifest.get("files")
    if not isinstance(names, dict):
        raise ModelFileError(f"version {version}: {MANIFEST} names no files")
    for name in names:
        check_file(folder, version, name, manifest)
    return {name: folder / name for name in (*sorted(names), MANIFEST)}


def install_version(
    root: Path, version: str, manifest_sha256: str, files: Mapping[str, IO[bytes]]
) -> bool:
    """Put a version's files in place, whole or not at all; False where it was there already.

    Raises ModelFileError where they are not what the manifest says.
    """
    check_name(version)
    try:
        verified_files(root, version, manifest_sha256)
        return False
    except ModelFileError:
        delete_version(root, version)  # absent, or damaged: what comes is better
    root.mkdir(parents=True, exist_ok=True)
    temporary = part_of(root, version)
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
        sync_folder(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True
