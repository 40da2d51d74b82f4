"""What a backup is, and one that is opened: nothing of it is used before all of it was checked."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.errors import BackupError
from recsys.registry.copies import COPY_BYTES
from recsys.storage.schema import migrate, table_copy

KIND, FORMAT = "recsys backup", 1
MANIFEST = "backup.json"
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_MEMBERS = 100_000
MAX_ROW_GROUP_BYTES = 2**30
TABLE = re.compile(r"tables/([a-z][a-z0-9_]{0,62})\.parquet")
MODEL = re.compile(r"models/(\d{8}-\d{6}-[0-9a-f]{6})/([a-z][a-z_]{0,40}\.(?:json|safetensors))")
NAME = re.compile(r"recsys-\d{8}-\d{6}\.zip")  # as this project names backups in a folder


@dataclass(frozen=True)
class Backup:
    """What a backup holds, as its manifest says."""

    made_at: str
    release: str
    revision: str
    dialect: str
    rows: dict[str, int]  # by table, in an order in which they can be loaded
    versions: dict[str, str]  # version -> SHA-256 of its manifest
    left_out: dict[str, str]  # version -> why its files are not there
    champion: str | None
    members: dict[str, dict[str, Any]]  # name -> bytes, sha256

    def plain(self) -> dict[str, Any]:
        """The summary, JSON-ready."""
        return {
            "made_at": self.made_at,
            "release": self.release,
            "schema": self.revision,
            "database": self.dialect,
            "events": self.rows.get("events", 0),
            "rows": sum(self.rows.values()),
            "tables": len(self.rows),
            "models": len(self.versions),
            "models_left_out": self.left_out,
            "champion": self.champion,
            "bytes": sum(member["bytes"] for member in self.members.values()),
        }


@contextmanager
def opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, Backup]]:
    """The archive, checked whole, and what it holds. Raises BackupError."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
            archive = stack.enter_context(zipfile.ZipFile(file))
        except OSError as error:
            raise BackupError(path.name, f"cannot be read ({type(error).__name__})") from None
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            raise BackupError(path.name, "is not a backup, or was cut short") from None
        try:
            found = _manifest(path.name, archive)
            _check_members(path.name, archive, found)
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise BackupError(path.name, f"is damaged ({type(error).__name__})") from None
        yield archive, found


def _manifest(name: str, archive: zipfile.ZipFile) -> Backup:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if MANIFEST not in entries or entries[MANIFEST].file_size > MAX_MANIFEST_BYTES:
        raise BackupError(name, f"is not a backup: it has no {MANIFEST}")
    if len(archive.infolist()) > MAX_MEMBERS or len(entries) != len(archive.infolist()):
        raise BackupError(name, "has too many members, or one twice")
    _refuse_odd(name, entries[MANIFEST])
    try:
        said = orjson.loads(archive.read(MANIFEST))
        if said["kind"] != KIND:
            raise BackupError(name, "is not a backup of recsys")
        if said["format"] != FORMAT:
            raise BackupError(
                name, f"has format {said['format']!r}; this release reads format {FORMAT}"
            )
        fields = {key: said[key] for key in Backup.__dataclass_fields__}
        found = Backup(**fields)
        shapes = [
            isinstance(value, int) and value >= 0
            for value in (*found.rows.values(), *(m["bytes"] for m in found.members.values()))
        ]
        shapes += [isinstance(m["sha256"], str) for m in found.members.values()]
        shapes += [isinstance(found.revision, str), isinstance(found.left_out, dict)]
        shapes += [isinstance(digest, str) for digest in found.versions.values()]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise BackupError(name, f"has a {MANIFEST} that cannot be read") from None
    if not all(shapes):
        raise BackupError(name, f"has a {MANIFEST} that cannot be read")
    if not migrate.knows(found.revision):
        raise BackupError(name, f"is of a newer release ({found.release}, schema {found.revision})")
    if set(found.members) | {MANIFEST} != set(entries):
        raise BackupError(name, "does not have the members that it should")
    tables = {match[1] for member in found.members if (match := TABLE.fullmatch(member))}
    models = {match[1] for member in found.members if (match := MODEL.fullmatch(member))}
    odd = [one for one in found.members if not (TABLE.fullmatch(one) or MODEL.fullmatch(one))]
    if odd or tables != set(found.rows) or models != set(found.versions):
        raise BackupError(name, "has members of names that backups do not have")
    return found


def _check_members(name: str, archive: zipfile.ZipFile, found: Backup) -> None:
    for member, said in found.members.items():
        entry = archive.getinfo(member)
        _refuse_odd(name, entry)
        with archive.open(entry) as content:
            digest = _digest(content)
        if entry.file_size != said["bytes"] or digest != said["sha256"]:
            raise BackupError(name, f"is damaged: {member} (its SHA-256 differs)")


def _digest(content: IO[bytes]) -> str:
    found = hashlib.sha256()
    while part := content.read(COPY_BYTES):
        found.update(part)
    return found.hexdigest()


def _refuse_odd(name: str, entry: zipfile.ZipInfo) -> None:
    """Members are stored as they are: none can grow when it is read."""
    stored = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
    if not stored or entry.file_size != entry.compress_size:
        raise BackupError(name, f"has a member that is packed otherwise: {entry.filename}")


def batches(archive: zipfile.ZipFile, table: str, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a table, as many as the backup says. Raises BackupError."""
    with archive.open(f"tables/{table}.parquet") as content:
        file = pq.ParquetFile(pa.PythonFile(content, "r"))
        about = file.metadata
        largest = max(
            (about.row_group(i).total_byte_size for i in range(about.num_row_groups)), default=0
        )
        if about.num_rows != rows or largest > MAX_ROW_GROUP_BYTES:
            raise BackupError(table, "does not hold the rows that the backup says")
        yield from file.iter_batches(table_copy.BATCH_ROWS)
