"""A backup -> database and registry, whole or not at all; or a look at whether it would do."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from recsys.config import Settings
from recsys.errors import BackupError
from recsys.events.times import to_us
from recsys.ops.backup.archive import Backup, batches, opened
from recsys.progress import Say, quiet
from recsys.registry import keep_version
from recsys.registry.copies import install_version
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Database
from recsys.storage.entities.model_files import open_model_files
from recsys.storage.schema import lasting_changes, table_copy
from recsys.storage.schema.lasting_changes import Carried


def verify_backup(path: Path) -> Backup:
    """What the backup holds, every member found to be what was written.

    Raises BackupError, naming what is damaged, foreign or of a newer release.
    """
    with opened(path) as (_, found):
        return found


def restore_backup(
    settings: Settings,
    database: Database,
    path: Path,
    now: datetime,
    replace: bool = False,
    revoke_keys: bool = False,
    say: Say = quiet,
) -> tuple[Backup, Carried]:
    """Put the backup's database and models in place of what is there; all of the database or nothing.

    The whole file is checked first. Models come next, each whole or not at all, and the database last,
    in one transaction: until that commits, what served goes on to serve. A schema of a newer release
    is dropped in it. What was revoked, closed and erased in the database stays so (see
    `storage.schema.lasting_changes`); `revoke_keys` revokes every key of the backup. Raises BackupError, and ConflictError where the database holds data and `replace`
    does not allow for that, or where a newer release's tables cannot be told from others.
    """
    now_us = to_us(now)
    with ExitStack() as stack:
        archive, found = stack.enter_context(opened(path))
        say(f"made {found.made_at} from {found.dialect}, {sum(found.rows.values()):,} rows; whole")
        made_at_us = _made_at_us(path, found)
        database.make_folder()
        with database.connect() as connection:
            table_copy.refuse_unless_empty(connection, replace)
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
            yield from batches(archive, table, found.rows[table])

        try:
            with database.begin() as connection:
                advisory_lock.take_turns(connection, "schema")
                table_copy.refuse_unless_empty(connection, replace)  # two restores at once
                changes = lasting_changes.read_changes(connection, made_at_us)
                order = list(found.rows)
                table_copy.replace_all(connection, found.revision, order, read, now_us)
                table_copy.forget_versions(connection, list(found.left_out))
                carried = lasting_changes.carry_over(connection, changes, now_us, revoke_keys)
                details = {"made_at": found.made_at, "events": found.rows.get("events", 0)}
                lasting_changes.note_restore(connection, path.name, details, now_us)
            for version in found.versions:
                keep_version(settings.registry.path, version, open_model_files(settings, database))
        except (pa.ArrowException, zipfile.BadZipFile) as error:
            raise BackupError(path.name, f"cannot be read ({type(error).__name__})") from None
    return found, carried


def _made_at_us(path: Path, found: Backup) -> int:
    try:
        return to_us(datetime.fromisoformat(found.made_at))
    except (ValueError, TypeError):
        raise BackupError(path.name, "does not say when it was made") from None
