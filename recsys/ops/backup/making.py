"""Database and registry -> a backup, of one moment, while everything goes on."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow.parquet as pq

from recsys import __version__
from recsys.config import Settings
from recsys.errors import ConflictError, ModelFileError
from recsys.events.times import rfc3339, to_us
from recsys.ops.backup.archive import FORMAT, KIND, MANIFEST, NAME, Backup
from recsys.progress import OnShare, quiet
from recsys.registry import sweep_parts
from recsys.registry.copies import COPY_BYTES, fetch_version, verified_files
from recsys.registry.folders import sync_folder
from recsys.storage.engine.database import Database
from recsys.storage.entities.model_files import open_model_files
from recsys.storage.schema import migrate, table_copy


def backup_name(now: datetime) -> str:
    """A name that sorts by time."""
    return f"recsys-{now:%Y%m%d-%H%M%S}.zip"


def make_backup(
    settings: Settings,
    database: Database,
    path: Path,
    now: datetime,
    on_progress: OnShare = quiet,
) -> tuple[Path, Backup]:
    """Write a backup to `path`, or into it under a name of its own where it is a folder.

    The service may go on meanwhile. The file appears under its name once it is whole, readable by its
    owner alone. Raises ConflictError where there is one already, ModelFileError where the champion's
    files are damaged; another version whose files are, is left out and told of.
    """
    migrate.check(database)
    if path.is_dir():
        path = path / backup_name(now)
    if path.exists():
        raise ConflictError(f"{path} already exists; it was not changed")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}.part")
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w+b") as file:
            made = _write(settings, database, file, now, on_progress)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # unlike a rename, this never takes another file's place
    except FileExistsError:
        raise ConflictError(f"{path} already exists; it was not changed") from None
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)
    return path, made


class _Member:
    """A member being written: what Parquet asks of a file, and the hash."""

    closed = False

    def __init__(self, target: IO[bytes]) -> None:
        self._target, self._hash, self.bytes = target, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._hash.update(view)
        self.bytes += view.nbytes
        self._target.write(view)
        return view.nbytes

    def tell(self) -> int:
        return self.bytes

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """The archive closes its members."""

    def plain(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "sha256": self._hash.hexdigest()}


def _write(
    settings: Settings,
    database: Database,
    file: IO[bytes],
    now: datetime,
    on_progress: OnShare,
) -> Backup:
    members: dict[str, dict[str, Any]] = {}
    rows: dict[str, int] = {}
    kept: dict[str, list[dict[str, Any]]] = {"model_versions": [], "deployments": []}
    ordered = table_copy.COPIED
    store = open_model_files(settings, database)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:

        @contextmanager
        def adding(name: str) -> Iterator[_Member]:
            entry = zipfile.ZipInfo(name)  # of 1980: equal content makes equal bytes
            with archive.open(entry, "w", force_zip64=True) as target:
                member = _Member(target)
                yield member
            members[name] = member.plain()

        with table_copy.snapshot(database) as read:
            for number, table in enumerate(ordered):
                on_progress(f"table {table.name}", 0.8 * number / len(ordered))
                schema, name = table_copy.schema_of(table), str(table.name)
                rows[name] = 0
                with (
                    adding(f"tables/{name}.parquet") as member,
                    pq.ParquetWriter(member, schema, compression="zstd") as writer,
                ):
                    for batch in read(table):
                        writer.write_batch(batch, row_group_size=table_copy.BATCH_ROWS * 8)
                        rows[name] += batch.num_rows
                        if name in kept:
                            kept[name] += batch.to_pylist()
        deployed = sorted(kept["deployments"], key=lambda row: row["id"])
        champion = deployed[-1]["version"] if deployed else None
        versions, left_out = {}, {}
        present = [row for row in kept["model_versions"] if row["state"] != "deleted"]
        for number, row in enumerate(present):
            version, digest = row["version"], row["manifest_sha256"]
            on_progress(f"version {version}", 0.8 + 0.2 * number / len(present))
            with ExitStack() as stack:
                try:
                    if store is not None:
                        fetch_version(settings.registry.path, version, digest, store)
                    files = _opened_version(settings.registry.path, version, digest, stack)
                except ModelFileError as error:
                    if version == champion:
                        raise
                    left_out[version] = str(error)
                    continue
                versions[version] = digest
                for name, given in files.items():
                    with adding(f"models/{version}/{name}") as member:
                        shutil.copyfileobj(given, member, COPY_BYTES)
        made = Backup(
            made_at=str(rfc3339(to_us(now))),
            release=__version__,
            revision=str(migrate.head()),
            dialect=database.dialect,
            rows=rows,
            versions=versions,
            left_out=left_out,
            champion=champion,
            members=dict(members),
        )
        manifest = {"kind": KIND, "format": FORMAT, **vars(made)}
        with adding(MANIFEST) as member:
            member.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    return made


def _opened_version(
    root: Path, version: str, digest: str, stack: ExitStack
) -> dict[str, IO[bytes]]:
    """A version's files, checked; open, so that none goes missing meanwhile. Raises ModelFileError."""
    files = verified_files(root, version, digest)
    try:
        return {name: stack.enter_context(open(path, "rb")) for name, path in files.items()}
    except OSError as error:
        kind = type(error).__name__
        raise ModelFileError(f"version {version}: its files cannot be read ({kind})") from None


def prune_backups(folder: Path, keep: int, now: datetime) -> int:
    """Delete all but the newest `keep` backups that this project named, and parts that a killed
    process left (`recsys.registry.sweep_parts`); how many backups went.
    """
    named = sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))
    for path in named[:-keep]:
        path.unlink(missing_ok=True)
    sweep_parts(folder, now, ".recsys-*.zip.*.part")
    return max(0, len(named) - keep)
