"""Runs of jobs: the web asks, the scheduler runs."""

from __future__ import annotations

from typing import Any

from flask import Blueprint
from pydantic import BaseModel

from recsys.commands import job_control
from recsys.events.times import rfc3339
from recsys.storage.entities import job_rows, lease_rows, schedule_rows
from recsys.storage.entities.job_rows import RunRow
from recsys.storage.entities.schedule_rows import ScheduleRow
from recsys.web.cursors import read_number, write_cursor
from recsys.web.fields import PageQuery
from recsys.web.operations import operation
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("jobs", __name__, url_prefix="/api/v1")


class RunOut(BaseModel):
    run_id: int
    job: str
    state: str
    requested_by: str
    requested_at: str
    scheduled_at: str | None
    started_at: str | None
    finished_at: str | None
    estimated_end_at: str | None
    stage: str | None
    progress: float | None
    outcome: dict[str, Any] | None
    error: str | None
    resources: dict[str, Any] | None


class ScheduleOut(BaseModel):
    job: str
    trigger: str
    next_run_at: str | None
    paused: bool


class SchedulerOut(BaseModel):
    """The leading scheduler and its last heartbeat; null if there has been none."""

    holder: str | None
    renewed_at: str | None


class JobsAnswer(BaseModel):
    scheduler: SchedulerOut
    schedules: list[ScheduleOut]
    runs: list[RunOut]
    next_cursor: str | None


@operation(blueprint, "GET", "/jobs", scope="read", query=PageQuery, answer=JobsAnswer)
def list_jobs(query: PageQuery) -> JobsAnswer:
    """List schedules and runs, newest first."""
    before = read_number(query.cursor)
    with services().database.connect() as connection:
        schedules = schedule_rows.list_schedules(connection)
        runs = job_rows.list_runs(connection, query.limit, before)
        lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
    return JobsAnswer(
        scheduler=SchedulerOut(holder=lease.holder, renewed_at=rfc3339(lease.renewed_at_us)),
        schedules=[_schedule(row) for row in schedules],
        runs=[_run(run) for run in runs],
        next_cursor=write_cursor(str(runs[-1].id)) if len(runs) == query.limit else None,
    )


@operation(
    blueprint, "POST", "/jobs/<id:job>/run", scope="admin", answer=RunOut, statuses=(202, 404, 409)
)
def run_job(job: str) -> tuple[RunOut, int]:
    """Request a run now; the scheduler picks it up."""
    return _run(job_control.run_job(services().database, actor(), job, now_us())), 202


@operation(
    blueprint,
    "POST",
    "/jobs/<id:job>/pause",
    scope="admin",
    answer=ScheduleOut,
    statuses=(200, 404),
)
def pause_job(job: str) -> ScheduleOut:
    """Pause a job's schedule; runs can still be requested."""
    return _schedule(job_control.set_paused(services().database, actor(), job, True, now_us()))


@operation(
    blueprint,
    "POST",
    "/jobs/<id:job>/resume",
    scope="admin",
    answer=ScheduleOut,
    statuses=(200, 404),
)
def resume_job(job: str) -> ScheduleOut:
    """Resume a job's schedule at its next run."""
    return _schedule(job_control.set_paused(services().database, actor(), job, False, now_us()))


@operation(
    blueprint, "GET", "/jobs/runs/<int:run_id>", scope="read", answer=RunOut, statuses=(200, 404)
)
def get_run(run_id: int) -> RunOut:
    """Get one run with its state, progress and outcome."""
    with services().database.connect() as connection:
        return _run(job_rows.get_run(connection, run_id))


@operation(
    blueprint,
    "POST",
    "/jobs/runs/<int:run_id>/cancel",
    scope="admin",
    answer=RunOut,
    statuses=(200, 404, 409),
)
def cancel_run(run_id: int) -> RunOut:
    """Cancel a run: at once if it is waiting, within seconds if it is running."""
    return _run(job_control.cancel_run(services().database, actor(), run_id, now_us()))


def _schedule(row: ScheduleRow) -> ScheduleOut:
    return ScheduleOut(
        job=row.job,
        trigger=row.trigger,
        next_run_at=rfc3339(row.next_run_us),
        paused=row.paused,
    )


def _run(run: RunRow) -> RunOut:
    return RunOut(
        run_id=run.id,
        job=run.job,
        state=run.state,
        requested_by=run.requested_by,
        requested_at=rfc3339(run.requested_at_us),
        scheduled_at=rfc3339(run.scheduled_at_us),
        started_at=rfc3339(run.started_at_us),
        finished_at=rfc3339(run.finished_at_us),
        estimated_end_at=rfc3339(run.estimated_end_us(now_us())),
        stage=run.stage,
        progress=run.progress,
        outcome=run.outcome,
        error=run.error,
        resources=run.resources,
    )
