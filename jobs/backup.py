"""A backup of database and models by the clock; the newest few are kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recsys.config import Settings
from recsys.ops.backup import make_backup, prune_backups
from recsys.storage.engine.database import Database

if TYPE_CHECKING:
    from jobs.runs import RunLog


def run(settings: Settings, database: Database, log: RunLog) -> dict[str, Any]:
    """The outcome: the file's name, what it holds, and how many older ones went."""
    folder = settings.schedule.backup_path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log.at("snapshot", 0.0)
    path, made = make_backup(settings, database, folder, datetime.now(UTC), log.at)
    for version, reason in made.left_out.items():
        log.say(f"{version} is left out: {reason}")
    gone = prune_backups(folder, settings.schedule.backup_keep, datetime.now(UTC))
    return {"file": path.name, "pruned": gone, **made.plain()}
