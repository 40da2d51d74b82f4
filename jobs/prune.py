"""Retention: delete old events, attributes, answers and runs in small batches, and versions beyond those kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from jobs.run_log import RunLog
from recsys.config import Settings
from recsys.ops import upkeep
from recsys.ops.conversions import forget_owners
from recsys.storage.engine.database import Database


@dataclass(frozen=True)
class PruneOutcome:
    """How many of each were deleted."""

    events: int
    attributes: int  # of users
    answers: int
    versions: int
    runs: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(settings: Settings, database: Database, log: RunLog) -> PruneOutcome:
    """Delete what is past its time."""
    log.at("events", 0.0)
    events = upkeep.prune_events(settings, database, datetime.now(UTC), log.at)
    forget_owners(settings, database, datetime.now(UTC))
    log.at("attributes", 0.7)
    attributes = upkeep.prune_attributes(settings, database, datetime.now(UTC))
    log.at("answers", 0.8)
    answers = upkeep.prune_impressions(settings, database, datetime.now(UTC))
    log.at("versions", 0.9)
    versions = upkeep.prune_versions(settings, database)
    upkeep.sweep_versions(settings, database, datetime.now(UTC))
    runs = upkeep.prune_runs(settings, database, datetime.now(UTC))
    return PruneOutcome(events, attributes, answers, versions, runs)
