"""Runs of jobs and their schedules, as people steer them; the scheduler does the work."""

from __future__ import annotations

from recsys.errors import NotFoundError
from recsys.storage.engine.database import Database
from recsys.storage.entities import job_rows, schedule_rows
from recsys.storage.entities.account_rows import ROLES
from recsys.storage.entities.audit_rows import Actor, add_audit
from recsys.storage.entities.job_rows import JOBS, RunRow
from recsys.storage.entities.schedule_rows import ScheduleRow


def run_job(database: Database, actor: Actor, job: str, now_us: int) -> RunRow:
    """Ask for a run now. Raises NotFoundError, or ConflictError where one waits or runs."""
    if job not in JOBS:
        raise NotFoundError("job", job)
    with database.begin() as connection:
        run_id = job_rows.request_run(connection, job, _requested_by(actor), now_us)
        add_audit(connection, actor, "job.run", job, now_us, {"run_id": run_id})
        return job_rows.get_run(connection, run_id)


def cancel_run(database: Database, actor: Actor, run_id: int, now_us: int) -> RunRow:
    """Cancel a run: at once where it waits, soon where it runs.

    Raises NotFoundError, or ConflictError where it has ended.
    """
    with database.begin() as connection:
        job_rows.cancel_run(connection, run_id, now_us)
        run = job_rows.get_run(connection, run_id)
        add_audit(connection, actor, "job.cancel", run.job, now_us, {"run_id": run_id})
        return run


def set_paused(
    database: Database, actor: Actor, job: str, paused: bool, now_us: int
) -> ScheduleRow:
    """Pause a job's schedule or let it go on; its row. Raises NotFoundError where it has none."""
    with database.begin() as connection:
        schedule_rows.set_paused(connection, job, paused, now_us)
        action = "job.pause" if paused else "job.resume"
        add_audit(connection, actor, action, job, now_us)
        return schedule_rows.get_schedule(connection, job)


def _requested_by(actor: Actor) -> str:
    """The way a run was asked for, as its row says it."""
    if actor.role in ROLES:
        return "dashboard"
    return {"key": "rest", "cli": "cli"}[actor.role]
