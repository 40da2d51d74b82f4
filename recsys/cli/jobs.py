"""recsys jobs list | run | cancel | pause | resume | logs"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from recsys.cli.terminal import ConfigOption, JsonOption, say, settings_of, show, steering

app = typer.Typer(name="jobs", help="Run, schedule and cancel jobs.", no_args_is_help=True)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List schedules and runs, newest first.

    Example: recsys jobs list
    """
    from recsys.events.times import from_us, rfc3339
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import job_rows, lease_rows, schedule_rows

    settings = settings_of(config)
    zone = ZoneInfo(settings.schedule.timezone)
    with open_database(settings).connect() as connection:
        schedules = schedule_rows.list_schedules(connection)
        runs = job_rows.list_runs(connection, limit)
        lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)

    def local(time_us: int | None) -> str:
        return f"{from_us(time_us).astimezone(zone):%Y-%m-%d %H:%M %Z}" if time_us else "-"

    lines = [
        f"scheduler  {lease.holder or 'none'}, last heartbeat {local(lease.renewed_at_us)}",
        *(
            f"{row.job:<10} {row.trigger:<24} next {local(row.next_run_us)}"
            + (" (paused)" if row.paused else "")
            for row in schedules
        ),
    ]
    lines += [
        f"{run.id:>6}  {run.job:<10} {run.state:<10} {rfc3339(run.requested_at_us)}  "
        f"{run.error or (run.outcome or {}).get('reason', '') or run.stage or ''}".rstrip()
        for run in runs
    ]
    shown = {
        "scheduler": vars(lease),
        "schedules": [vars(row) for row in schedules],
        "runs": [vars(run) for run in runs],
    }
    show(shown, as_json, "\n".join(lines))


@app.command("run")
def run(
    job: Annotated[str, typer.Argument(help="retrain, refresh, prune, tune or backup.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the scheduler for a run now.

    Example: recsys jobs run retrain
    """
    from recsys.commands import job_control
    from recsys.storage.entities import lease_rows

    database, actor, now_us = steering(config)
    made = job_control.run_job(database, actor, job, now_us)
    with database.connect() as connection:
        lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
    if lease.holder is None:
        say("no scheduler is running: the run waits for one (recsys schedule)")
    show({"run_id": made.id, "state": made.state}, as_json)


@app.command("cancel")
def cancel(
    run_id: Annotated[int, typer.Argument(help="The run's number.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a run.

    Example: recsys jobs cancel 12
    """
    from recsys.commands import job_control

    database, actor, now_us = steering(config)
    state = job_control.cancel_run(database, actor, run_id, now_us).state
    show({"run_id": run_id, "state": state, "cancel_requested": True}, as_json)


@app.command("pause")
def pause(
    job: Annotated[str, typer.Argument(help="retrain, refresh, prune, tune or backup.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pause a job's schedule; runs can still be started by hand.

    Example: recsys jobs pause retrain
    """
    _set_paused(job, True, config, as_json)


@app.command("resume")
def resume(
    job: Annotated[str, typer.Argument(help="retrain, refresh, prune, tune or backup.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Resume a paused schedule at its next run.

    Example: recsys jobs resume retrain
    """
    _set_paused(job, False, config, as_json)


def _set_paused(job: str, paused: bool, config: Path | None, as_json: bool) -> None:
    from recsys.commands import job_control

    database, actor, now_us = steering(config)
    job_control.set_paused(database, actor, job, paused, now_us)
    show({"job": job, "paused": paused}, as_json)


@app.command("logs")
def logs(
    run_id: Annotated[int, typer.Argument(help="The run's number.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a run's log.

    Example: recsys jobs logs 12
    """
    from recsys.events.times import rfc3339
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import job_rows

    with open_database(settings_of(config)).connect() as connection:
        job_rows.get_run(connection, run_id)
        lines = job_rows.get_lines(connection, run_id)
    text = "\n".join(f"{rfc3339(line['at_us'])}  {line['message']}" for line in lines)
    show({"lines": lines}, as_json, text or "no lines yet")
