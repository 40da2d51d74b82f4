"""What the machine says of an installation: files, their privacy, access, disk; one function a check."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recsys.config import Settings, has_password, secret_files
from recsys.storage.engine import database_health
from recsys.storage.engine.database import Database

GIB = 2**30
LITTLE_BYTES, TOO_LITTLE_BYTES = 2 * GIB, GIB // 4
LOOPBACK = ("127.0.0.1", "::1", "localhost")
State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    state: State
    found: str
    advice: str = ""  # what to do; empty where nothing needs doing


def files_findings(settings: Settings, config: Path | None) -> Iterator[Finding]:
    yield Finding(
        "configuration", "ok", f"{config or 'defaults and environment'}: all keys are valid"
    )
    private = dict.fromkeys(secret_files(config), "a secret")
    if config is not None and has_password(config):
        private[config] = "the database's password"
    for path, what in private.items():
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o027:  # its group may read, which is how a service is let in
            yield Finding(
                "secrets", "fail", f"{path} holds {what}, mode {mode:o}", f"chmod 640 {path}"
            )
        else:
            yield Finding("secrets", "ok", f"{path}: mode {mode:o}")
    if config is not None and config not in private and config.stat().st_mode & stat.S_IWOTH:
        yield Finding(
            "configuration", "fail", f"anyone can write to {config}", f"chmod o-w {config}"
        )
    registry = settings.registry.path
    place = _nearest(registry)
    try:
        with tempfile.TemporaryFile(dir=place):  # it has no name
            pass
        found = "can be written" if place == registry else f"can be created in {place}"
        yield Finding("registry", "ok", f"{registry} {found}")
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        advice = "make the service's user own that folder, or set registry.path"
        yield Finding("registry", "fail", f"{registry} cannot be written: {reason}", advice)


def privacy_findings(settings: Settings, database: Database) -> Iterator[Finding]:
    """Files of people's clicks that every user of the machine may read, as older releases made them."""
    places = [settings.registry.path, settings.events.upload_path]
    if database.file is not None:
        places += [Path(f"{database.file}{end}") for end in ("", "-wal", "-shm", "-journal")]
    if settings.schedule.backup:
        places.append(settings.schedule.backup_path)
    opened = [
        str(path)
        for path in places
        if path.exists() and path.stat().st_mode & stat.S_IROTH and _is_reached(path)
    ]
    if opened:
        named = ", ".join(opened)
        advice = f"chmod -R o= {' '.join(opened)}"
        yield Finding("privacy", "warn", f"every user of this machine can read {named}", advice)
    else:
        yield Finding(
            "privacy", "ok", "database files, models and backups are private to their user"
        )


def _is_reached(path: Path) -> bool:
    """Whether every user of the machine may go through all the folders on the way to `path`."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)


def auth_findings(settings: Settings) -> Iterator[Finding]:
    host = settings.serving.host
    if settings.auth.enabled:
        yield Finding("access", "ok", "the API requires a key")
    elif host in LOOPBACK:
        yield Finding(
            "access",
            "warn",
            "auth.enabled is false",
            "enable it before others can reach the service",
        )
    else:
        found = f"auth.enabled is false and the service listens on {host}"
        yield Finding(
            "access", "fail", found, "set auth.enabled = true: anyone can read and erase data"
        )


def disk_findings(settings: Settings, database: Database) -> Iterator[Finding]:
    places = {"registry": settings.registry.path}
    if database.file is not None:
        places["database"] = database.file.parent
    if settings.schedule.backup:
        places["backups"] = settings.schedule.backup_path
    for name, wanted in places.items():
        free = shutil.disk_usage(_nearest(wanted)).free
        state: State = "ok"
        if free < LITTLE_BYTES:
            state = "warn" if free >= TOO_LITTLE_BYTES else "fail"
        advice = (
            "free some space, or lower registry.keep, events.retention_days, schedule.backup_keep"
        )
        found = f"{free / GIB:.1f} GiB free for the {name}"
        yield Finding("disk", state, found, "" if state == "ok" else advice)
    if database.file is not None and database.file.parent.is_dir():
        kind = database_health.network_file_system(database.file.parent)
        if kind is not None:
            found = f"the SQLite file is on {kind}, where file locks are unreliable"
            yield Finding("disk", "fail", found, "move it to a local disk, or use PostgreSQL")


def _nearest(wanted: Path) -> Path:
    """`wanted` where it is there, else the folder that it would be made in."""
    return next((path for path in (wanted, *wanted.resolve().parents) if path.exists()), Path("/"))
