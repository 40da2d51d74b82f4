"""Id, trigger, function: the only home of APScheduler.

One process schedules. A slot is claimed by a row that is unique in (job, scheduled time), so that
two schedulers on one database still run each slot once. The job store is memory: what is scheduled
stands in the configuration, and each job's next time is written to its row for those who ask.
"""

from __future__ import annotations

import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from jobs.runs import Child, now_us, sweep_lost
from recsys.config import Settings
from recsys.data.times import to_us
from recsys.errors import ConfigError, RecsysError
from recsys.storage import job_rows, migrate
from recsys.storage.database import Database, open_database

log = structlog.get_logger(__name__)

PRUNE = "30 4 * * *"


def triggers(settings: Settings) -> dict[str, CronTrigger | IntervalTrigger]:
    """The trigger of each job. Raises ConfigError for a cron line or a zone that cannot be."""
    chosen = settings.schedule
    try:
        zone = ZoneInfo(chosen.timezone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigError(
            "schedule.timezone", chosen.timezone, "expected an IANA name such as Europe/Paris"
        ) from None
    try:
        retrain = CronTrigger.from_crontab(chosen.retrain, timezone=zone)
    except ValueError as error:
        raise ConfigError(
            "schedule.retrain",
            chosen.retrain,
            f"expected five cron fields such as '0 3 * * *' ({error})",
        ) from None
    return {
        "retrain": retrain,
        "refresh": IntervalTrigger(minutes=chosen.refresh_minutes, timezone=zone),
        "prune": CronTrigger.from_crontab(PRUNE, timezone=zone),
    }


class Scheduler:
    """Claims slots when they are due and runs what is requested, one child process at a time."""

    def __init__(self, settings: Settings, database: Database, config: Path | None) -> None:
        self._settings, self._database, self._config = settings, database, config
        self._stop = threading.Event()
        self._clock = BackgroundScheduler(timezone=UTC)
        self._triggers = triggers(settings)

    def start(self) -> None:
        """Begin to claim slots; returns at once."""
        for job, trigger in self._triggers.items():
            self._clock.add_job(
                self._claim,
                trigger,
                args=[job],
                id=job,
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
            )
        self._clock.start()
        self._write_schedules()

    def stop(self, *_: object) -> None:
        """Ask `run` to end; callable as a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Run requested runs until stopped; what runs then is stopped and marked as failed."""
        while not self._stop.is_set():
            try:
                for lost in sweep_lost(self._database):
                    log.warning("run lost", run_id=lost)
                run_id = self._next_requested()
                if run_id is not None:
                    self._supervise(Child.start(self._settings, run_id, self._config))
                    continue
            except RecsysError as error:
                log.warning("the scheduler waits", reason=str(error))
            self._stop.wait(self._settings.schedule.poll_seconds)
        self._clock.shutdown(wait=False)

    def _claim(self, job: str) -> None:
        # The slot is the last time that was due, whoever wakes up late or early for it.
        now = datetime.now(UTC)
        slot_us = to_us(now.replace(second=0, microsecond=0))
        try:
            with self._database.begin() as connection:
                claimed = job_rows.claim_slot(connection, job, slot_us, now_us())
            log.info("slot due", job=job, run_id=claimed, claimed=claimed is not None)
            self._write_schedules()
        except RecsysError as error:
            log.warning("slot not claimed", job=job, reason=str(error))

    def _write_schedules(self) -> None:
        with self._database.begin() as connection:
            for job in self._clock.get_jobs():
                due = job.next_run_time
                next_us = None if due is None else to_us(due)
                job_rows.put_schedule(connection, job.id, str(job.trigger), next_us, now_us())

    def _next_requested(self) -> int | None:
        with self._database.connect() as connection:
            waiting = job_rows.list_runs(connection, limit=1_000, state="requested")
        return min((run.id for run in waiting), default=None)

    def _supervise(self, child: Child) -> None:
        """Wait for a child; stop it where it takes too long, is cancelled, or this process ends."""
        limit = self._settings.schedule.timeout_minutes * 60
        state, reason = "failed", "its process ended without a word"
        while child.process.poll() is None:
            if self._stop.wait(min(1.0, self._settings.schedule.poll_seconds)):
                state, reason = "failed", "the scheduler was stopped"
            elif time.monotonic() - child.started > limit:
                state, reason = "timed_out", f"ran longer than {limit / 60:g} minutes"
            elif self._cancelled(child):
                state, reason = "cancelled", "cancelled on request"
            else:
                continue
            child.stop()
        if child.process.returncode != 0:
            reason = f"{reason} (exit status {child.process.returncode})"
        with self._database.begin() as connection:
            # Does nothing where the run has told its own end.
            job_rows.finish_run(
                connection,
                child.run_id,
                state,
                now_us(),
                None,
                None if state == "cancelled" else reason,
            )

    def _cancelled(self, child: Child) -> bool:
        """Whether a cancelled run has had its time to end by itself."""
        with self._database.connect() as connection:
            run = job_rows.get_run(connection, child.run_id)
        return run.cancel_requested


def run_scheduler(settings: Settings, config: Path | None = None) -> None:
    """The scheduler process: until SIGTERM or SIGINT."""
    database = open_database(settings)
    migrate.check(database)
    scheduler = Scheduler(settings, database, config)

    def stop(signum: int, frame: FrameType | None) -> None:
        scheduler.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    scheduler.start()
    log.info("scheduler started", jobs=list(triggers(settings)))
    scheduler.run()
