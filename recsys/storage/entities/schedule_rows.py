"""Schedules of jobs as rows: the scheduler writes them, everybody else reads them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from recsys.errors import NotFoundError
from recsys.storage.engine.database import upsert
from recsys.storage.schema.tables import job_schedules


@dataclass(frozen=True)
class ScheduleRow:
    """When a job runs next."""

    job: str
    trigger: str  # as it is configured, with its time zone
    next_run_us: int | None
    paused: bool
    updated_at_us: int
    created_at_us: int | None  # slots before it were never due


def put_schedule(
    connection: Connection, job: str, trigger: str, next_run_us: int | None, now_us: int
) -> None:
    """Write down when a job runs next, for those who do not schedule."""
    values = {"trigger": trigger, "next_run_us": next_run_us, "updated_at_us": now_us}
    statement = upsert(connection, job_schedules).values(job=job, created_at_us=now_us, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["job"], set_=values))


def keep_schedules(connection: Connection, jobs: list[str]) -> None:
    """Forget the schedules of other jobs: they are configured no more."""
    connection.execute(delete(job_schedules).where(job_schedules.c.job.not_in(jobs)))


def list_schedules(connection: Connection) -> list[ScheduleRow]:
    """By the name of the job."""
    rows = connection.execute(select(job_schedules).order_by(job_schedules.c.job))
    return [ScheduleRow(**row._mapping) for row in rows]


def set_paused(connection: Connection, job: str, paused: bool, now_us: int) -> None:
    """Pause a job's schedule, or let it go on from its next slot: those meanwhile are not made up for.

    Runs can be asked for all the same. Raises NotFoundError where the job has no schedule.
    """
    values: dict[str, object] = {"paused": paused, "updated_at_us": now_us}
    if not paused:
        values["created_at_us"] = now_us
    statement = update(job_schedules).where(
        job_schedules.c.job == job, job_schedules.c.paused != paused
    )
    if connection.execute(statement.values(values)).rowcount == 0:
        known = select(job_schedules.c.job).where(job_schedules.c.job == job)
        if connection.execute(known).scalar() is None:
            raise NotFoundError("schedule", job)


def get_schedule(connection: Connection, job: str) -> ScheduleRow:
    """The schedule of a job. Raises NotFoundError where the job has no schedule."""
    row = connection.execute(select(job_schedules).where(job_schedules.c.job == job)).first()
    if row is None:
        raise NotFoundError("schedule", job)
    return ScheduleRow(**row._mapping)
