"""The scheduler process: what it does, turn by turn (when slots are, `jobs.slots` says).

One scheduler leads (see `jobs.lease`), however many are started; the others wait. A slot is claimed by
a row that is unique in (job, scheduled time), so that it is run once whoever leads. What is due is
worked out from the triggers and the last slot claimed, at every look: a slot missed while nobody led,
or while a clock was wrong, is found on return, and of several only the last is run.

APScheduler's triggers say when; its own timers are not used, because they wait by the wall clock, and
one set back an hour would stop the lease's renewal for that hour (docs/decisions/0012).
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import SubprocessError
from types import FrameType

import structlog

from jobs.children import Child, stop_orphan
from jobs.lease import Lease, now_us
from jobs.notices import Notices
from jobs.slots import slots
from recsys.config import Settings
from recsys.errors import RecsysError
from recsys.events.times import from_us, to_us
from recsys.storage.engine.database import Database, open_database
from recsys.storage.entities import job_rows, schedule_rows
from recsys.storage.entities.job_rows import RunRow
from recsys.storage.schema import migrate

log = structlog.get_logger(__name__)

LOST_SECONDS = 60.0  # without a heartbeat a run counts as lost
HEAVY = frozenset({"retrain", "tune"})  # one of them at a time
CLOCK_STEP = timedelta(hours=2)  # a clock ahead by less is waited for


class Scheduler:
    """Claims slots when they are due and launches what is requested, while it leads."""

    def __init__(self, settings: Settings, database: Database, config: Path | None) -> None:
        """Raises ConfigError where a schedule cannot be."""
        self._settings, self._database, self._config = settings, database, config
        self._slots = slots(settings)
        self._lease = Lease(database, settings.schedule.lease_seconds, time.monotonic, now_us)
        self._notices = Notices(settings)
        self._children: dict[str, Child] = {}
        self._stop = threading.Event()
        self._token: int | None = None  # under which this process last acted

    def stop(self, *_: object) -> None:
        """Ask `run` to end; callable as a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Until stopped; what runs then is stopped and marked as failed, and the lease let go."""
        chosen = self._settings.schedule
        pause = min(chosen.poll_seconds, chosen.lease_seconds / 3)
        try:
            while not self._stop.is_set():
                try:
                    self.turn()
                except RecsysError as error:
                    log.warning("the scheduler waits", reason=str(error))
                except Exception:
                    log.exception("a turn of the scheduler failed")
                self._stop.wait(pause)
        finally:
            self._stop_children(job_rows.SCHEDULER_STOPPED)
            self._lease.release()

    def turn(self) -> None:
        """One look at everything. Whatever fails in it, runs are kept within their bounds."""
        try:
            self._lead()
        finally:
            self._supervise()

    def _lead(self) -> None:
        self._lease.step()
        if self._lease.token is None:
            self._stop_children("another scheduler leads")
        if self._lease.leads:
            if self._token != self._lease.token:
                self._begin()
                self._token = self._lease.token
            self._claim_due()
            self._sweep_lost()
            self._launch()
            self._notices.look(self._database, now_us())

    def _begin(self) -> None:
        """What a new leader does first: end what an earlier one left, and find what was missed."""
        self._write_schedules()
        assert self._lease.token is not None
        for run in self._running():
            if run.fencing_token is None or run.fencing_token >= self._lease.token:
                continue
            if run.host == socket.gethostname():
                stop_orphan(run)
                self._finish(run.id, "failed", "orphaned: its scheduler is gone")
            else:  # it ends itself, or its heartbeat ends
                with self._database.begin() as connection:
                    job_rows.ask_to_stop(connection, run.id)
            log.warning("orphan", run_id=run.id, host=run.host)

    def _claim_due(self) -> None:
        now = datetime.now(UTC)
        with self._database.connect() as connection:
            held = {row.job: row for row in schedule_rows.list_schedules(connection)}
            # A slot claimed while a clock was days ahead does not stop those until then.
            until_us = to_us(now + CLOCK_STEP)
            last = {j: job_rows.last_slot_us(connection, j, until_us) for j in self._slots}
        if any(job not in held for job in self._slots):  # somebody emptied the table
            self._write_schedules()
            return
        for job, own in self._slots.items():
            row = held[job]
            # Slots before the schedule was first written, or taken up again, were never due.
            begun_us = min(row.created_at_us or row.updated_at_us, to_us(now))
            since_us = max(last[job] or 0, begun_us)
            due = own.last(from_us(since_us), now)
            if due is not None and not row.paused:
                with self._database.begin() as connection:
                    run_id = job_rows.claim_slot(connection, job, to_us(due), now_us())
                log.info("slot due", job=job, run_id=run_id, at=due.isoformat())
                self._write_schedules()

    def _write_schedules(self) -> None:
        now = datetime.now(UTC)
        with self._database.begin() as connection:
            for job, own in self._slots.items():
                due = own.next(now)
                next_us = None if due is None else to_us(due)
                schedule_rows.put_schedule(connection, job, own.line, next_us, now_us())
            schedule_rows.keep_schedules(connection, list(self._slots))

    def _running(self) -> list[RunRow]:
        with self._database.connect() as connection:
            return job_rows.list_runs(connection, limit=1_000, state="running")

    def _sweep_lost(self) -> None:
        """Mark running runs without a heartbeat as failed."""
        oldest = now_us() - int(LOST_SECONDS * 1e6)
        mine = {child.run_id for child in self._children.values()}
        for run in self._running():
            if run.id not in mine and (run.heartbeat_at_us or 0) < oldest:
                if run.host == socket.gethostname():
                    stop_orphan(run)
                self._finish(run.id, "failed", "lost: no sign of life from its process")
                log.warning("run lost", run_id=run.id)

    def _launch(self) -> None:
        """Start requested runs, oldest first; a job never beside itself, nor two heavy ones."""
        with self._database.connect() as connection:
            waiting = job_rows.list_runs(connection, limit=1_000, state="requested")
        busy = {run.job for run in self._running()} | set(self._children)
        for run in sorted(waiting, key=lambda run: run.id):
            if run.job in busy or (run.job in HEAVY and busy & HEAVY):
                continue
            token = self._lease.token
            if token is None or not self._lease.leads:
                return
            with self._database.begin() as connection:
                given = job_rows.assign_run(connection, run.id, token)
            if given:
                try:
                    child = Child.start(self._settings, run, token, self._config)
                except (OSError, SubprocessError) as error:  # it waits on, and is tried again
                    log.error("a run cannot be started", run_id=run.id, kind=type(error).__name__)
                    continue
                self._children[run.job] = child
                busy.add(run.job)

    def _supervise(self) -> None:
        """Stop children that take too long or too much, or are cancelled; write down what ended."""
        chosen = self._settings.schedule
        limit = chosen.timeout_minutes * 60
        for child in list(self._children.values()):
            if child.process.poll() is not None:
                code = child.process.returncode
                reason = f"its process ended without a word (status {code})"
                if child.job in HEAVY and self._settings.training.engine == "ray":
                    reason += "; Ray ends a process whose cluster is gone"
                self._conclude(child, "failed", reason)
            elif time.monotonic() - child.started > limit:
                self._end(child, "timed_out", f"ran longer than {limit / 60:g} minutes")
            elif chosen.memory_mib and child.resident_mib > chosen.memory_mib:
                self._end(
                    child,
                    "failed",
                    f"took more memory than schedule.memory_mib allows ({chosen.memory_mib} MiB)",
                )
            elif self._cancelled(child):
                self._end(child, "cancelled", None)

    def _end(self, child: Child, state: str, reason: str | None) -> None:
        child.verdict = (state, reason)  # kept, should it not be possible to write it down now
        child.stop()
        self._conclude(child, state, reason)

    def _conclude(self, child: Child, state: str, reason: str | None) -> None:
        """Write down how a run ended, unless it has told so itself or was stopped for another reason."""
        self._finish(child.run_id, *(child.verdict or (state, reason)))
        del self._children[child.job]

    def _stop_children(self, reason: str) -> None:
        for child in list(self._children.values()):
            child.stop()
            try:
                self._finish(child.run_id, "failed", reason)
            except RecsysError as error:
                log.warning("a stopped run was not marked", reason=str(error))
            del self._children[child.job]

    def _finish(self, run_id: int, state: str, reason: str | None) -> None:
        with self._database.begin() as connection:
            job_rows.finish_run(connection, run_id, state, now_us(), None, reason)

    def _cancelled(self, child: Child) -> bool:
        """Whether its run is to be cancelled."""
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
    log.info("scheduler started", jobs=list(slots(settings)))
    scheduler.run()
