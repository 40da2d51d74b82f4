"""Database and models in one file, and back: online, of one moment, every part known by its SHA-256.

A backup is a ZIP file whose members are stored as they are:

    tables/<name>.parquet            every table's rows, compressed by Parquet itself
    models/<version>/<file>          the files of every version, as the registry has them
    backup.json                      format, schema revision, rows, and each member's SHA-256

Rows carry no dialect, so a backup of SQLite restores into PostgreSQL and the other way round. Nothing
is extracted by the name it has in the archive: what is not expected is refused.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import __version__
from recsys.config import Settings
from recsys.data.times import rfc3339, to_us
from recsys.errors import BackupError, ConflictError, ModelFileError
from recsys.registry import keep_version, sweep_parts
from recsys.registry.copies import COPY_BYTES, fetch_version, install_version, verified_files
from recsys.storage import migrate, table_copy
from recsys.storage.database import Database
from recsys.storage.model_files import open_model_files

KIND, FORMAT = "recsys backup", 1
MANIFEST = "backup.json"
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_MEMBERS = 100_000
MAX_ROW_GROUP_BYTES = 2**30
TABLE = re.compile(r"tables/([a-z][a-z0-9_]{0,62})\.parquet")
MODEL = re.compile(r"models/(\d{8}-\d{6}-[0-9a-f]{6})/([a-z][a-z_]{0,40}\.(?:json|safetensors))")
NAME = re.compile(r"recsys-\d{8}-\d{6}\.zip")  # as this project names backups in a folder
Say = Callable[[str], None]


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


def backup_name(now: datetime) -> str:
    """A name that sorts by time."""
    return f"recsys-{now:%Y%m%d-%H%M%S}.zip"


def make_backup(
    settings: Settings,
    database: Database,
    path: Path,
    now: datetime,
    on_progress: Callable[[str, float], None] = lambda stage, share: None,
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
        raise ConflictError(f"{path} exists already; it is left as it is")
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
        raise ConflictError(f"{path} exists already; it is left as it is") from None
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)
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
    on_progress: Callable[[str, float], None],
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


def verify_backup(path: Path) -> Backup:
    """What the backup holds, every member found to be what was written.

    Raises BackupError, naming what is damaged, foreign or of a newer release.
    """
    with _opened(path) as (_, found):
        return found


def restore_backup(
    settings: Settings,
    database: Database,
    path: Path,
    now: datetime,
    replace: bool = False,
    say: Say = lambda line: None,
) -> Backup:
    """Put the backup's database and models in place of what is there; all of the database or nothing.

    The whole file is checked first. Models come next, each whole or not at all, and the database last,
    in one transaction: until that commits, what served goes on to serve. A schema of a newer release
    is dropped in it. Raises BackupError, and ConflictError where the database holds data and `replace`
    does not allow for that, or where a newer release's tables cannot be told from others.
    """
    with ExitStack() as stack:
        archive, found = stack.enter_context(_opened(path))
        say(f"made {found.made_at} from {found.dialect}, {sum(found.rows.values()):,} rows; whole")
        database.make_folder()
        table_copy.refuse_unless_empty(database, replace)
        for version, digest in found.versions.items():
            prefix = f"models/{version}/"
            with ExitStack() as files:
                given = {
                    name.removeprefix(prefix): files.enter_context(archive.open(name))
                    for name in found.members
                    if name.startswith(prefix)
                }
                install_version(settings.registry.path, version, digest, given)
        say(f"{len(found.versions)} model versions are in place")

        def read(table: str) -> Iterator[pa.RecordBatch]:
            yield from _batches(archive, table, found.rows[table])

        try:
            with database.begin() as connection:
                order = list(found.rows)
                table_copy.replace_all(connection, found.revision, order, read, to_us(now))
                table_copy.forget_versions(connection, list(found.left_out))
            for version in found.versions:
                keep_version(settings.registry.path, version, open_model_files(settings, database))
        except (pa.ArrowException, zipfile.BadZipFile) as error:
            raise BackupError(path.name, f"cannot be read ({type(error).__name__})") from None
    return found


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, Backup]]:
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


def _batches(archive: zipfile.ZipFile, table: str, rows: int) -> Iterator[pa.RecordBatch]:
    with archive.open(f"tables/{table}.parquet") as content:
        file = pq.ParquetFile(pa.PythonFile(content, "r"))
        about = file.metadata
        largest = max(
            (about.row_group(i).total_byte_size for i in range(about.num_row_groups)), default=0
        )
        if about.num_rows != rows or largest > MAX_ROW_GROUP_BYTES:
            raise BackupError(table, "does not hold the rows that the backup says")
        yield from file.iter_batches(table_copy.BATCH_ROWS)


def prune_backups(folder: Path, keep: int, now: datetime) -> int:
    """Delete all but the newest `keep` backups that this project named, and parts that a killed
    process left (`recsys.registry.sweep_parts`); how many backups went.
    """
    named = sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))
    for path in named[:-keep]:
        path.unlink(missing_ok=True)
    sweep_parts(folder, now, ".recsys-*.zip.*.part")
    return max(0, len(named) - keep)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
