"""Runs of jobs as rows: requested, claimed, running, ended; and their log lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, delete, func, select, true, update

from recsys.errors import ConflictError, NotFoundError
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import upsert
from recsys.storage.schema.tables import job_run_lines, job_runs, job_schedules

JOBS = ("retrain", "refresh", "prune", "tune", "backup")
FILE_JOBS = ("check", "import", "undo")  # asked for with a file or an import, never by a schedule
MAX_FILE_RUNS = 20  # of a job that wait or run
ENDED = ("succeeded", "failed", "cancelled", "timed_out")
FAILED = ("failed", "timed_out")
SCHEDULER_STOPPED = "the scheduler was stopped"  # the error of runs that end with their scheduler
MAX_LINES = 2_000  # log lines kept of a run
MAX_LINE_LENGTH = 1_000


@dataclass(frozen=True)
class RunRow:
    """One run of a job."""

    id: int
    job: str
    scheduled_at_us: int | None
    requested_by: str
    state: str
    requested_at_us: int
    started_at_us: int | None
    heartbeat_at_us: int | None
    finished_at_us: int | None
    pid: int | None
    host: str | None
    stage: str | None
    progress: float | None  # 0..1
    cancel_requested: bool
    options: dict[str, Any]
    outcome: dict[str, Any] | None
    error: str | None
    fencing_token: int | None = None
    resources: dict[str, Any] | None = None

    def estimated_end_us(self, now_us: int) -> int | None:
        """When a run that goes on as it has will end; None where that cannot be said."""
        if self.state != "running" or not self.started_at_us or not self.progress:
            return None
        return self.started_at_us + round((now_us - self.started_at_us) / self.progress)


@dataclass(frozen=True)
class LastEnds:
    """When a job last ended well, and badly; None: never."""

    succeeded_at_us: int | None
    failed_at_us: int | None

    @property
    def failing(self) -> bool:
        """Whether the newer end is the bad one."""
        return (self.failed_at_us or 0) > (self.succeeded_at_us or 0)


def request_run(
    connection: Connection, job: str, by: str, now_us: int, options: dict[str, Any] | None = None
) -> int:
    """Ask for a run now; its id.

    A job that already waits or runs raises ConflictError; of FILE_JOBS, whose runs are not alike, one
    of which MAX_FILE_RUNS do.
    """
    advisory_lock.take_turns(connection, "job runs")
    most = MAX_FILE_RUNS if job in FILE_JOBS else 1
    waiting = (
        select(job_runs.c.id, job_runs.c.state)
        .where(job_runs.c.job == job, job_runs.c.state.in_(("requested", "running")))
        .order_by(job_runs.c.id)
        .limit(most)
    )
    found = connection.execute(waiting).all()
    if len(found) == most:
        raise ConflictError(f"run {found[0].id} of {job} is already {found[0].state}")
    return _insert(connection, job, by, now_us, None, options)


def claim_slot(connection: Connection, job: str, scheduled_at_us: int, now_us: int) -> int | None:
    """The id of the run for this slot, or None where it was claimed before, or the job is paused by now.

    The run waits its turn. Where one of the job still waits already, this slot's is cancelled with
    that reason: two in a row would do the same.
    """
    advisory_lock.take_turns(connection, "job runs")
    paused = select(job_schedules.c.paused).where(job_schedules.c.job == job).with_for_update()
    if connection.execute(paused).scalar_one_or_none():
        return None
    waiting = connection.execute(
        select(job_runs.c.id)
        .where(job_runs.c.job == job, job_runs.c.state == "requested")
        .order_by(job_runs.c.id)
        .limit(1)
    ).scalar_one_or_none()
    values: dict[str, Any] = {"state": "requested"}
    if waiting is not None:
        values = {"state": "cancelled", "finished_at_us": now_us}
        values["error"] = f"run {waiting} of {job} was still waiting"
    statement = (
        upsert(connection, job_runs)
        .values(
            job=job,
            scheduled_at_us=scheduled_at_us,
            requested_by="schedule",
            requested_at_us=now_us,
            **values,
        )
        .on_conflict_do_nothing(index_elements=["job", "scheduled_at_us"])
        .returning(job_runs.c.id)
    )
    return connection.execute(statement).scalar_one_or_none()


def last_slot_us(connection: Connection, job: str, until_us: int) -> int | None:
    """The latest slot of a job that was claimed, up to `until_us`."""
    statement = select(func.max(job_runs.c.scheduled_at_us)).where(
        job_runs.c.job == job, job_runs.c.scheduled_at_us <= until_us
    )
    found = connection.execute(statement).scalar_one_or_none()
    return None if found is None else int(found)


def assign_run(connection: Connection, run_id: int, token: int) -> bool:
    """Give a requested run to the leader with `token`; False where it waits no more."""
    given = connection.execute(
        update(job_runs)
        .where(job_runs.c.id == run_id, job_runs.c.state == "requested")
        .values(fencing_token=token)
    )
    return given.rowcount == 1


def start_run(
    connection: Connection,
    run_id: int,
    pid: int,
    host: str,
    now_us: int,
    token: int | None = None,
) -> bool:
    """Take a requested run; False where another took it, it was cancelled, or given to another."""
    mine = job_runs.c.fencing_token == token if token is not None else job_runs.c.id == run_id
    taken = connection.execute(
        update(job_runs)
        .where(job_runs.c.id == run_id, job_runs.c.state == "requested", mine)
        .values(state="running", started_at_us=now_us, heartbeat_at_us=now_us, pid=pid, host=host)
    )
    return taken.rowcount == 1


def beat(
    connection: Connection,
    run_id: int,
    now_us: int,
    stage: str | None = None,
    progress: float | None = None,
) -> bool:
    """Say that the run lives and how far it is; True where it should stop."""
    values: dict[str, Any] = {"heartbeat_at_us": now_us}
    if stage is not None:
        values["stage"] = stage
    if progress is not None:
        values["progress"] = progress
    connection.execute(update(job_runs).where(job_runs.c.id == run_id).values(values))
    statement = select(job_runs.c.cancel_requested).where(job_runs.c.id == run_id)
    return bool(connection.execute(statement).scalar_one_or_none())


def finish_run(
    connection: Connection,
    run_id: int,
    state: str,
    now_us: int,
    outcome: dict[str, Any] | None = None,
    error: str | None = None,
    resources: dict[str, Any] | None = None,
) -> bool:
    """End a run that has not ended; False where it had."""
    ended = connection.execute(
        update(job_runs)
        .where(job_runs.c.id == run_id, job_runs.c.state.not_in(ENDED))
        .values(
            state=state,
            finished_at_us=now_us,
            outcome=None if outcome is None else json.dumps(outcome),
            error=error,
            resources=None if resources is None else json.dumps(resources),
        )
    )
    return ended.rowcount == 1


def cancel_run(connection: Connection, run_id: int, now_us: int) -> str:
    """Cancel a run: at once where it waits, soon where it runs; its state then.

    Raises NotFoundError, or ConflictError where it has ended.
    """
    run = get_run(connection, run_id, lock=True)  # nobody starts or ends it meanwhile
    if run.state in ENDED:
        raise ConflictError(f"run {run_id} has already ended ({run.state})")
    ask_to_stop(connection, run_id)
    if run.state == "requested":
        finish_run(connection, run_id, "cancelled", now_us)
        return "cancelled"
    return run.state


def ask_to_stop(connection: Connection, run_id: int) -> None:
    """Have a run find, at its next heartbeat, that it should end."""
    connection.execute(
        update(job_runs).where(job_runs.c.id == run_id).values(cancel_requested=True)
    )


def get_run(connection: Connection, run_id: int, lock: bool = False) -> RunRow:
    """A run; with `lock`, as it stays until the end of this transaction. Raises NotFoundError."""
    if not 0 <= run_id < 2**63:
        raise NotFoundError("run", run_id)
    statement = select(job_runs).where(job_runs.c.id == run_id)
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    if row is None:
        raise NotFoundError("run", run_id)
    return _run(row)


def list_runs(
    connection: Connection,
    limit: int = 50,
    before_id: int | None = None,
    job: str | None = None,
    state: str | None = None,
) -> list[RunRow]:
    """Newest first."""
    statement = select(job_runs).order_by(job_runs.c.id.desc()).limit(limit)
    if before_id is not None:
        statement = statement.where(job_runs.c.id < before_id)
    if job is not None:
        statement = statement.where(job_runs.c.job == job)
    if state is not None:
        statement = statement.where(job_runs.c.state == state)
    return [_run(row) for row in connection.execute(statement)]


def add_line(connection: Connection, run_id: int, message: str, now_us: int) -> None:
    """Append a line to a run's log; beyond MAX_LINES nothing more is kept."""
    statement = select(func.count()).where(job_run_lines.c.run_id == run_id)
    number = int(connection.execute(statement).scalar_one())
    if number < MAX_LINES:
        line = message[:MAX_LINE_LENGTH]
        values = {"run_id": run_id, "line_number": number, "at_us": now_us, "message": line}
        connection.execute(job_run_lines.insert(), values)


def get_lines(connection: Connection, run_id: int, after: int = -1) -> list[dict[str, Any]]:
    """Log lines of a run after line number `after`."""
    statement = (
        select(job_run_lines.c.line_number, job_run_lines.c.at_us, job_run_lines.c.message)
        .where(job_run_lines.c.run_id == run_id, job_run_lines.c.line_number > after)
        .order_by(job_run_lines.c.line_number)
    )
    return [dict(row._mapping) for row in connection.execute(statement)]


def delete_runs_before(connection: Connection, before_us: int, limit: int) -> int:
    """Delete at most `limit` ended runs requested before `before_us`, their logs too; how many.

    The latest slot of each job stays, so that no slot is claimed again.
    """
    latest = (
        select(func.max(job_runs.c.scheduled_at_us).label("slot"), job_runs.c.job)
        .group_by(job_runs.c.job)
        .subquery()
    )
    old = (
        select(job_runs.c.id)
        .join(latest, latest.c.job == job_runs.c.job)
        .where(
            job_runs.c.requested_at_us < before_us,
            job_runs.c.state.in_(ENDED),
            func.coalesce(job_runs.c.scheduled_at_us != latest.c.slot, true()),
        )
        .order_by(job_runs.c.id)
        .limit(limit)
    )
    found = list(connection.execute(old).scalars())
    if found:
        connection.execute(delete(job_run_lines).where(job_run_lines.c.run_id.in_(found)))
        connection.execute(delete(job_runs).where(job_runs.c.id.in_(found)))
    return len(found)


def state_counts(connection: Connection, since_us: int) -> list[tuple[str, str, int]]:
    """(job, state, runs) of the runs requested since then."""
    statement = (
        select(job_runs.c.job, job_runs.c.state, func.count())
        .where(job_runs.c.requested_at_us >= since_us)
        .group_by(job_runs.c.job, job_runs.c.state)
    )
    return [(row[0], row[1], int(row[2])) for row in connection.execute(statement)]


def last_ends(connection: Connection, failures_since_us: int) -> dict[str, LastEnds]:
    """When each of JOBS last ended well, and badly since then; what was cancelled is neither."""
    good = case((job_runs.c.state == "succeeded", job_runs.c.finished_at_us))
    bad = case(
        (
            job_runs.c.state.in_(FAILED) & (job_runs.c.finished_at_us >= failures_since_us),
            job_runs.c.finished_at_us,
        )
    )
    statement = (
        select(job_runs.c.job, func.max(good), func.max(bad))
        .where(job_runs.c.job.in_(JOBS))
        .group_by(job_runs.c.job)
    )
    return {row[0]: LastEnds(row[1], row[2]) for row in connection.execute(statement)}


def _insert(
    connection: Connection,
    job: str,
    by: str,
    now_us: int,
    scheduled_at_us: int | None,
    options: dict[str, Any] | None,
) -> int:
    statement = (
        job_runs.insert()
        .values(
            job=job,
            scheduled_at_us=scheduled_at_us,
            requested_by=by,
            state="requested",
            requested_at_us=now_us,
            options=json.dumps(options or {}),
        )
        .returning(job_runs.c.id)
    )
    return int(connection.execute(statement).scalar_one())


def _run(row: Any) -> RunRow:
    values = dict(row._mapping)
    values["options"] = json.loads(values["options"])
    for name in ("outcome", "resources"):
        values[name] = json.loads(values[name]) if values[name] else None
    return RunRow(**values)
