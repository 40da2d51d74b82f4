"""Retrain on the newest events; the gate decides whether the result goes live."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recsys import pipeline
from recsys.config import Settings
from recsys.ops import upkeep
from recsys.registry import sweep_parts
from recsys.storage.engine.database import Database
from recsys.storage.entities.audit_rows import SCHEDULE

if TYPE_CHECKING:
    from jobs.runs import RunLog
    from recsys.models.lstm.training_loop import Progress


def run(settings: Settings, database: Database, log: RunLog) -> dict[str, Any]:
    """The outcome for the run's row: version, whether it was promoted, and why."""
    sweep_parts(settings.registry.path, datetime.now(UTC))
    upkeep.sweep_versions(settings, database, datetime.now(UTC))

    def on_progress(at: Progress) -> None:
        log.at(f"{at.stage} {at.epoch}/{at.epochs}", at.done)

    log.at("reading events", 0.0)
    trained = pipeline.train(
        settings,
        database,
        datetime.now(UTC),
        actor=SCHEDULE,
        run_id=log.run_id,
        fence=log.fence,
        on_progress=on_progress,
        say=log.say,
    )
    return {
        "version": trained.version,
        "promoted": trained.promoted,
        "reason": trained.verdict.reason,
        "metrics": trained.trial.metrics.get("served", {}),
        "checks": trained.facts["checks"],
    }
