"""Retention: old events, answers and runs go in small batches, and versions beyond those to be kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recsys.config import Settings
from recsys.ops import upkeep
from recsys.storage.engine.database import Database

if TYPE_CHECKING:
    from jobs.runs import RunLog


def run(settings: Settings, database: Database, log: RunLog) -> dict[str, Any]:
    """The outcome counts what went."""
    log.at("events", 0.0)
    events = upkeep.prune_events(settings, database, datetime.now(UTC), log.at)
    log.at("answers", 0.8)
    answers = upkeep.prune_impressions(settings, database, datetime.now(UTC))
    log.at("versions", 0.9)
    versions = upkeep.prune_versions(settings, database)
    upkeep.sweep_versions(settings, database, datetime.now(UTC))
    runs = upkeep.prune_runs(settings, database, datetime.now(UTC))
    return {"events": events, "answers": answers, "versions": versions, "runs": runs}
