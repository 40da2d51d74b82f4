"""Jobs: schedules, runs, and one run as it goes."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, g, render_template, request, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from recsys.commands import job_control
from recsys.errors import ConflictError
from recsys.events.times import from_us, rfc3339
from recsys.progress import STAGES, LossPoint
from recsys.storage.entities import job_rows, lease_rows, schedule_rows
from recsys.storage.entities.job_rows import ENDED, FILE_JOBS, JOBS, RunRow
from recsys.storage.entities.schedule_rows import ScheduleRow
from recsys.web.admin.access import PREFIX, done, view
from recsys.web.admin.problems import scheduler_silence_us
from recsys.web.admin.queries import PAGE_ROWS, choice, pages, with_query
from recsys.web.admin.sorting import SORTED_ROWS, Columns, SortedList, sort_of
from recsys.web.admin.svg import Chart, Series
from recsys.web.cursors import read_number, write_cursor
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_jobs", __name__, url_prefix=f"{PREFIX}/jobs")

SILENT_US = 60 * 1_000_000
NARROWED_BY = ("job", "state")
HISTORY = (*NARROWED_BY, "sort", "cursor")  # what the list of runs is asked by
COLUMNS: Columns = {
    "run": lambda row: row.id,
    "job": lambda row: row.job,
    "state": lambda row: row.state,
    "duration": lambda row: _seconds(row),
}
STATES = ("requested", "running", *ENDED)
MEANING = {
    "retrain": "Trains on the log, compares with the champion, and promotes what passes the gate.",
    "refresh": "Attributes clicks, updates counts, tracks new items, monitors the champion.",
    "prune": "Deletes events, answers, runs and versions past their retention.",
    "tune": "Searches settings of the network; the next training tries what it finds.",
    "backup": "Writes the database and models to the backup folder.",
}
CONSEQUENCE = {
    "retrain": "A training starts at low priority; serving continues. If the new version passes the "
    "gate, it goes live automatically.",
    "refresh": "Clicks are attributed and counts updated. A champion that underperforms may be rolled "
    "back.",
    "prune": "Everything past its configured retention is deleted permanently.",
    "tune": "A search over settings starts at low priority; it can take hours.",
    "backup": "A backup is written at low priority; old ones are deleted as configured.",
}


@view(blueprint, "", role="viewer", query=HISTORY)
def index() -> str:
    """Schedules and the history of runs."""
    settings, found = services().settings, _runs()
    scheduled = {row.job: row for row in found["schedules"]}
    lease = found["lease"]
    zone = ZoneInfo(settings.schedule.timezone)
    return render_template(
        "admin/jobs.html",
        jobs=[
            {
                "name": job,
                "meaning": MEANING.get(job, ""),
                "consequence": CONSEQUENCE.get(job, "It starts at low priority."),
                "row": scheduled.get(job),
                "next": _in_zone(scheduled.get(job), zone),
            }
            for job in JOBS
        ],
        zone=settings.schedule.timezone,
        silence=scheduler_silence_us(lease),
        heard_of=_heard_of(lease),
        kinds=(*JOBS, *FILE_JOBS),
        states=STATES,
        **found,
    )


@view(blueprint, "/runs", role="viewer", live=True, query=(*HISTORY, "shown", "scheduled"))
def runs() -> Response | str:
    """The history's table, for the page to keep up to date; 204 where nothing has changed.

    Where a scheduler has come or gone, or schedules have, the whole page is asked for anew.
    """
    found = _runs()
    if request.args.get("scheduled") != found["scheduled"]:  # not what the page shows above
        return Response(status=200, headers={"HX-Refresh": "true"})
    if request.args.get("shown") == found["fingerprint"]:
        return Response(status=204)
    return render_template("admin/run_table.html", **found)


@view(blueprint, "/runs/<int:run_id>", role="viewer")
def run(run_id: int) -> str:
    """One run with its log."""
    return render_template("admin/run.html", **_run(run_id))


@view(blueprint, "/runs/<int:run_id>/live", role="viewer", live=True, query=("shown",))
def run_live(run_id: int) -> Response | str:
    """The part of a run's page that moves; the page is loaded anew once the run has ended."""
    found = _run(run_id)
    if found["run"].state in ENDED:
        return Response(status=200, headers={"HX-Refresh": "true"})
    if request.args.get("shown") == found["fingerprint"]:
        return Response(status=204)
    return render_template("admin/run_live.html", **found)


@view(blueprint, "/<job>/run", role="operator", methods=("POST",))
def run_now(job: str) -> AnyResponse:
    """Ask for a run."""
    try:
        made = job_control.run_job(services().database, actor(), job, now_us())
    except ConflictError:
        with services().database.connect() as connection:
            newest = job_rows.list_runs(connection, 2, job=job)
        busy = next((run for run in newest if run.state not in ENDED), None)
        if busy is not None:
            g.way_on = (f"run {busy.id}", url_for("admin_jobs.run", run_id=busy.id))
        raise
    return done(f"Run {made.id} of {job} requested.", "admin_jobs.run", run_id=made.id)


@view(blueprint, "/<job>/pause", role="operator", methods=("POST",))
def pause(job: str) -> AnyResponse:
    """Start no more runs of a job by its schedule."""
    job_control.set_paused(services().database, actor(), job, True, now_us())
    return done(f"Schedule of {job} paused.", "admin_jobs.index")


@view(blueprint, "/<job>/resume", role="operator", methods=("POST",))
def resume(job: str) -> AnyResponse:
    """Let a schedule go on."""
    job_control.set_paused(services().database, actor(), job, False, now_us())
    return done(f"Schedule of {job} resumed.", "admin_jobs.index")


@view(blueprint, "/runs/<int:run_id>/cancel", role="operator", methods=("POST",))
def cancel(run_id: int) -> AnyResponse:
    """Cancel a run."""
    cancelled = job_control.cancel_run(services().database, actor(), run_id, now_us())
    ended = cancelled.state in ENDED
    text = f"Run {run_id} cancelled." if ended else f"Run {run_id} is being cancelled."
    return done(text, "admin_jobs.run", run_id=run_id)


def _runs() -> dict[str, Any]:
    """A page of the history, as the query string asks: newest first, or the newest SORTED_ROWS sorted."""
    sort = sort_of(COLUMNS, "-run")
    job, state = choice("job", (*JOBS, *FILE_JOBS)), choice("state", STATES)
    with services().database.connect() as connection:
        if sort == "-run":
            before = read_number(request.args.get("cursor"))
            rows = job_rows.list_runs(connection, PAGE_ROWS, before, job, state)
            cursor = write_cursor(str(rows[-1].id)) if len(rows) == PAGE_ROWS else None
        else:
            every = job_rows.list_runs(connection, SORTED_ROWS, None, job, state)
            rows, cursor = SortedList(COLUMNS, sort, lambda row: row.id).page(every)
        schedules = schedule_rows.list_schedules(connection)
        lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
    scheduled = _fingerprint([[(row.job, row.paused) for row in schedules], _heard_of(lease)])
    fingerprint = _fingerprint([(row.id, row.state, row.stage, row.progress) for row in rows])
    live = with_query(shown=fingerprint, scheduled=scheduled).replace(
        f"{PREFIX}/jobs?", f"{PREFIX}/jobs/runs?"
    )
    index_pages = {
        name: address and address.replace("/jobs/runs?", "/jobs?").replace("/jobs/runs", "/jobs")
        for name, address in pages(cursor).items()
    }
    return {
        "runs": rows,
        "sort": sort,
        "query": {k: v for k, v in request.args.items() if k in NARROWED_BY},
        "seconds": {row.id: _seconds(row) for row in rows},
        "fingerprint": fingerprint,
        "scheduled": scheduled,
        "schedules": schedules,
        "lease": lease,
        "live": live,
        **index_pages,
    }


def _heard_of(lease: lease_rows.LeaseRow) -> str:
    """What the page's head says of the scheduler."""
    silence = scheduler_silence_us(lease)
    return "none" if silence is None else "silent" if silence > SILENT_US else "alive"


def _run(run_id: int) -> dict[str, Any]:
    with services().database.connect() as connection:
        found = job_rows.get_run(connection, run_id)
        lines = job_rows.get_lines(connection, run_id)
        lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
    now = now_us()
    outcome = dict(found.outcome or {})
    points = [point for line in lines if (point := LossPoint.read(line["message"]))]
    return {
        "run": found,
        "lines": lines,
        "ended": found.state in ENDED,
        "stages": STAGES if found.job == "retrain" else (),
        "stage": (found.stage or "").partition(":")[0],
        "losses": _loss_charts(run_id, points),
        "seconds": _seconds(found, now),
        "estimated_us": found.estimated_end_us(now),
        "nobody": found.state == "requested" and scheduler_silence_us(lease) is None,
        "checks": outcome.pop("checks", []),
        "metrics": outcome.pop("metrics", {}),
        "outcome": outcome,
        "fingerprint": _fingerprint([found.state, found.stage, found.progress, len(lines)]),
    }


def _loss_charts(run_id: int, points: list[LossPoint]) -> list[Chart]:
    """The loss by epochs, a chart for each part of the fitting: each has its own number of epochs."""
    parts: dict[str, list[LossPoint]] = {}
    for point in points:
        parts.setdefault(point.part, []).append(point)
    return [
        Chart(
            f"loss-{part.replace(' ', '-')}-run-{run_id}",
            f"Training loss: {part}",
            [one.epochs for one in found],
            [Series("loss", [one.loss for one in found])],
            f"{found[-1].loss:.3f} after {found[-1].epochs:.1f} epochs, {found[0].loss:.3f} at first.",
            x_kind="number",
            x_label="epochs",
        )
        for part, found in parts.items()
    ]


def _seconds(row: RunRow, now: int | None = None) -> float | None:
    end_us = row.finished_at_us or now
    return None if not row.started_at_us or not end_us else (end_us - row.started_at_us) / 1e6


def _in_zone(row: ScheduleRow | None, zone: ZoneInfo) -> str | Markup:
    """The next run; the page's script shows it in the schedule's own zone."""
    if row is None or row.next_run_us is None:
        return ""
    moment: datetime = from_us(row.next_run_us).astimezone(zone)
    return Markup('<time datetime="{}" data-zone="{}">{}</time>').format(
        rfc3339(row.next_run_us), zone.key, f"{moment:%Y-%m-%d %H:%M}"
    )


def _fingerprint(values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
