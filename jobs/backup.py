"""Back up database and models by the clock; the newest few backups are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobs.run_log import RunLog
from recsys.config import Settings
from recsys.ops.backup import Backup, make_backup, prune_backups
from recsys.storage.engine.database import Database


@dataclass(frozen=True)
class BackupOutcome:
    """The backup that was made, and how many older ones were deleted."""

    file: str
    pruned: int
    made: Backup

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file, "pruned": self.pruned, **self.made.plain()}


def run(settings: Settings, database: Database, log: RunLog) -> BackupOutcome:
    """Make a backup, then delete those beyond `schedule.backup_keep`."""
    folder = settings.schedule.backup_path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log.at("snapshot", 0.0)
    path, made = make_backup(settings, database, folder, datetime.now(UTC), log.at)
    for version, reason in made.left_out.items():
        log.say(f"{version} is left out: {reason}")
    pruned = prune_backups(folder, settings.schedule.backup_keep, datetime.now(UTC))
    return BackupOutcome(path.name, pruned, made)
