"""Search for better settings, train with the best, and adopt them only if the gate does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobs.run_log import RunLog
from recsys import pipeline
from recsys.config import Settings
from recsys.storage.engine.database import Database
from recsys.training.hyperparameters import SearchBudget, TrialResult, TuningResult

if TYPE_CHECKING:
    from recsys.models.lstm.checkpoint import Progress

SEARCH_SHARE = 0.8  # of the run's progress; the rest is the training


@dataclass(frozen=True)
class TuneOutcome:
    """The best settings, their validation metric, and whether the version with them was promoted."""

    found: TuningResult
    version: str
    promoted: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        found = self.found
        return {
            "best": found.best,
            "trials": found.trials,
            "mrr@20": found.mrr,
            "version": self.version,
            "promoted": self.promoted,
            "reason": self.reason,
        }


def run(settings: Settings, database: Database, log: RunLog) -> TuneOutcome:
    """Search, then train."""
    log.at("reading events", 0.0)
    found = _search(settings, database, log)
    training = log.training_run(datetime.now(UTC), first=SEARCH_SHARE)
    trained = pipeline.train(settings, database, training, tuned=found.best)
    return TuneOutcome(found, trained.version, trained.promoted, trained.reason)


def _search(settings: Settings, database: Database, log: RunLog) -> TuningResult:
    chosen, done = settings.schedule, 0

    def on_progress(at: Progress) -> None:
        log.at(at.stage, SEARCH_SHARE * min(1.0, (done + at.done) / chosen.tune_trials))

    def on_trial(one: TrialResult) -> None:
        nonlocal done
        done += 1
        values = ", ".join(f"{key} {value:.4g}" for key, value in one.values.items())
        figure = "pruned" if one.mrr is None else f"mrr@20 {one.mrr:.4f}"
        log.say(f"trial {one.number}: {figure} ({values})")

    search = replace(log.training_run(datetime.now(UTC)), on_progress=on_progress)
    budget = SearchBudget(chosen.tune_trials, chosen.tune_minutes * 60)
    return pipeline.tune(settings, database, search, budget, on_trial)
