"""Database and models in one file, and back: online, of one moment, every part known by its SHA-256.

A backup is a ZIP file whose members are stored as they are:

    tables/<name>.parquet            every table's rows, compressed by Parquet itself
    models/<version>/<file>          the files of every version, as the registry has them
    backup.json                      format, schema revision, rows, and each member's SHA-256

Rows carry no dialect, so a backup of SQLite restores into PostgreSQL and the other way round. Nothing
is extracted by the name it has in the archive: what is not expected is refused.
"""

from recsys.ops.backup.archive import MANIFEST, NAME, Backup
from recsys.ops.backup.making import backup_name, make_backup, prune_backups
from recsys.ops.backup.restoring import restore_backup, verify_backup

__all__ = [
    "MANIFEST",
    "NAME",
    "Backup",
    "backup_name",
    "make_backup",
    "prune_backups",
    "restore_backup",
    "verify_backup",
]
