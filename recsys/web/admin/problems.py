"""The overview's list of problems that need an operator."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from recsys.config import Settings
from recsys.events.times import DAY_US, HOUR_US, to_us
from recsys.storage.dashboard import quality_rows
from recsys.storage.engine.database import Connection
from recsys.storage.entities import (
    job_rows,
    lease_rows,
    live_quality_rows,
    rejected_rows,
    version_rows,
)
from recsys.web.admin.formats import duration, number, percent

SILENT_US = 60 * 1_000_000  # a scheduler that has said nothing for so long does not run
OLD_HOURS = 7 * 24  # of a model, where schedule.max_model_age_hours says nothing
MANY_REJECTED = 100  # rows a day in quarantine
FULL_DAYS = 14


@dataclass(frozen=True)
class Problem:
    """One line: what is wrong, what to do, and where."""

    tone: str  # 'bad' or 'warn'
    text: str
    advice: str
    endpoint: str | None = None
    values: dict[str, Any] | None = None


def scheduler_silence_us(lease: lease_rows.LeaseRow) -> int | None:
    """How long the leading scheduler has said nothing; None where none leads.

    By the machine's own clock, as the lease is: `services.now_us` is ahead of one that was set back.
    """
    if lease.holder is None or lease.renewed_at_us is None:
        return None
    return max(0, to_us(datetime.now(UTC)) - lease.renewed_at_us)


def find_problems(connection: Connection, settings: Settings, now_us: int) -> list[Problem]:
    """The worst first."""
    found = [
        *_scheduler(connection, settings),
        *_model(connection, settings, now_us),
        *_live_quality(connection, now_us),
        *_runs(connection, now_us),
        *_quarantine(connection, now_us),
        *_disk(connection),
    ]
    return sorted(found, key=lambda problem: problem.tone != "bad")


def _scheduler(connection: Connection, settings: Settings) -> list[Problem]:
    lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
    silence = scheduler_silence_us(lease)
    if silence is None:
        text = "No scheduler is running"
        return [
            Problem("bad", text, "Nothing is retrained or refreshed. Start one: recsys schedule")
        ]
    if silence > max(SILENT_US, 4e6 * settings.schedule.lease_seconds):
        text = f"The scheduler's last heartbeat was {duration(silence // 1_000_000)} ago"
        return [Problem("bad", text, "Check its log, or start another: recsys schedule")]
    return []


def _model(connection: Connection, settings: Settings, now_us: int) -> list[Problem]:
    champion = version_rows.champion(connection)
    if champion is None:
        advice = "Popular and latest items are shown instead. Run a training."
        return [Problem("bad", "No model is serving", advice, "admin_jobs.index")]
    hours = settings.schedule.max_model_age_hours or OLD_HOURS
    age_us = now_us - champion.data_end_us
    if age_us <= hours * HOUR_US:
        return []
    text = f"The model has not seen the last {duration(age_us // 1_000_000)}"
    advice = "Check whether new events arrive and trainings succeed."
    return [Problem("warn", text, advice, "admin_models.index")]


def _live_quality(connection: Connection, now_us: int) -> list[Problem]:
    found = live_quality_rows.of_late(connection, now_us)
    if found is None or not found.falls_below_popular:
        return []
    live, popular = (percent(found.recall(system)) for system in ("live", "popular"))
    text = f"Popular items alone would find more of what comes next: {popular}, not {live}"
    advice = f"By {number(found.positions)} clicks of late. Compare versions, roll back, or train."
    return [Problem("warn", text, advice, "admin_models.index")]


def _runs(connection: Connection, now_us: int) -> list[Problem]:
    """Jobs whose last ended run of the week failed."""
    found = []
    for job in job_rows.JOBS:
        ended = [
            run
            for run in job_rows.list_runs(connection, 5, job=job)
            if run.state in ("succeeded", "failed", "timed_out")
        ]
        if not ended or ended[0].state == "succeeded":
            continue
        if (ended[0].finished_at_us or 0) < now_us - 7 * DAY_US:
            continue
        advice = ended[0].error or "Check its log."
        values = {"run_id": ended[0].id}
        text = f"The last run of {job} {ended[0].state.replace('_', ' ')}"
        found.append(Problem("bad", text, advice, "admin_jobs.run", values))
    return found


def _quarantine(connection: Connection, now_us: int) -> list[Problem]:
    number_ = rejected_rows.rejected_since(connection, now_us - DAY_US)
    if number_ < MANY_REJECTED:
        return []
    text = f"{number(number_)}{'+' if number_ >= 10_000 else ''} rows were rejected in a day"
    advice = "See which fields are wrong, fix the source and replay the rows."
    return [Problem("warn", text, advice, "admin_data_quality.index")]


def _disk(connection: Connection) -> list[Problem]:
    growth = quality_rows.growth(connection)
    left = None if growth is None else growth.days_left
    if left is None or left > FULL_DAYS:
        return []
    tone = "bad" if left < 3 else "warn"
    return [
        Problem(tone, f"The disk will be full in {left:.0f} days", "Shorten events.retention_days.")
    ]
