"""Search for better settings, train with the best, and adopt them only if the gate does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recsys import pipeline
from recsys.config import Settings
from recsys.storage.engine.database import Database
from recsys.storage.entities.audit_rows import SCHEDULE

if TYPE_CHECKING:
    from jobs.runs import RunLog
    from recsys.models.lstm.training_loop import Progress


def run(settings: Settings, database: Database, log: RunLog) -> dict[str, Any]:
    """The outcome: the best settings, their validation figure, and whether they were adopted."""
    chosen = settings.schedule
    done = 0

    def on_progress(number: int, at: Progress) -> None:
        log.at(f"trial {number}", 0.8 * min(1.0, (done + at.done) / chosen.tune_trials))

    def on_trial(number: int, mrr: float | None, found: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        values = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
        log.say(f"trial {number}: {'pruned' if mrr is None else f'mrr@20 {mrr:.4f}'} ({values})")

    log.at("reading events", 0.0)
    tuned = pipeline.tune(
        settings,
        database,
        datetime.now(UTC),
        chosen.tune_trials,
        chosen.tune_minutes * 60,
        on_progress,
        on_trial,
    )

    def on_training(at: Progress) -> None:
        log.at(f"{at.stage} {at.epoch}/{at.epochs}", 0.8 + 0.2 * at.done)

    trained = pipeline.train(
        settings,
        database,
        datetime.now(UTC),
        tuned=tuned.best,
        actor=SCHEDULE,
        run_id=log.run_id,
        fence=log.fence,
        on_progress=on_training,
        say=log.say,
    )
    return {
        "best": tuned.best,
        "trials": tuned.trials,
        "mrr@20": tuned.mrr,
        "version": trained.version,
        "promoted": trained.promoted,
        "reason": trained.verdict.reason,
    }
