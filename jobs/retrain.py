"""Retrain on the newest events; the gate decides whether the result goes live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from jobs.run_log import RunLog
from recsys import pipeline
from recsys.config import Settings
from recsys.models.version_facts import Check
from recsys.ops import upkeep
from recsys.registry import sweep_parts
from recsys.storage.engine.database import Database


@dataclass(frozen=True)
class RetrainOutcome:
    """The version that was trained, whether it was promoted, and why."""

    version: str
    promoted: bool
    reason: str
    metrics: Mapping[str, float]  # of what the version serves
    checks: Sequence[Check]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "checks": [asdict(check) for check in self.checks]}


def run(settings: Settings, database: Database, log: RunLog) -> RetrainOutcome:
    """Sweep what killed trainings left behind, then train."""
    sweep_parts(settings.registry.path, datetime.now(UTC))
    upkeep.sweep_versions(settings, database, datetime.now(UTC))
    log.at("reading events", 0.0)
    trained = pipeline.train(settings, database, log.training_run(datetime.now(UTC)))
    return RetrainOutcome(
        version=trained.version,
        promoted=trained.promoted,
        reason=trained.reason,
        metrics=trained.evaluation.metrics.get("served", {}),
        checks=trained.facts.checks,
    )
