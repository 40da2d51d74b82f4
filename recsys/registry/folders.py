"""The folders of versions: written whole or not at all, deleted, swept and measured."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Container
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from recsys.storage.entities.version_rows import VERSION_NAME

PART_SECONDS = {True: 86_400, False: 3_600}  # what is half-written stays, by whether its process is


def part_of(root: Path, version: str) -> Path:
    """Where a version is written before it is whole."""
    return root / f".{version}.{os.getpid()}.{secrets.token_hex(4)}.part"


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that a loss of power does not empty."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the disk keep what was renamed into the folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def delete_version(root: Path, version: str) -> None:
    """Remove the version's folder, if it is there."""
    if VERSION_NAME.fullmatch(version):
        shutil.rmtree(root / version, ignore_errors=True)


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
