"""Data quality: rejected rows, missing data, anomalies, and how far the log has drifted."""

from __future__ import annotations

from itertools import pairwise
from operator import itemgetter
from statistics import median
from typing import Any

import orjson
from flask import Blueprint, Response, render_template, request

from recsys.errors import NotFoundError
from recsys.events.times import DAY_US, HOUR_US, rfc3339
from recsys.storage.dashboard import quality_rows
from recsys.storage.dashboard.activity_rows import events_by_hour
from recsys.storage.dashboard.quality_rows import Report
from recsys.storage.engine.database import Connection
from recsys.storage.entities import (
    job_rows,
    rejected_rows,
    stream_rows,
    unmapped_rows,
    version_rows,
)
from recsys.storage.entities.version_rows import VersionRow
from recsys.web.admin import figures
from recsys.web.admin.access import PREFIX, view
from recsys.web.admin.queries import PAGE_ROWS, RANGE, TimeRange, choice, pages, time_range, words
from recsys.web.admin.sorting import SORTED_ROWS, Columns, SortedList, sort_of
from recsys.web.admin.svg import Chart, Series
from recsys.web.cursors import read_number, write_cursor
from recsys.web.services import now_us, services

blueprint = Blueprint("admin_data_quality", __name__, url_prefix=f"{PREFIX}/data-quality")

STATES = ("waiting", "replayed", "all")
NARROWED_BY = ("state", "source", "q")  # the quarantine
NEWEST = "-rejected"
COLUMNS: Columns = {
    "rejected": lambda row: row["id"],
    "source": lambda row: row["source"],
    "row": lambda row: row["position"],
    "reason": lambda row: row["reason"],
}
BUSIEST: Columns = {
    name: itemgetter(name) for name in ("events", "items", "median_gap_seconds", "most_in_an_hour")
}
USUAL_DAYS = 7  # before a day, whose median is what is usual
DROP, SURGE = 0.5, 2.0  # times the usual, past which a day stands out
LEAST_USUAL = 20  # events a day; below it nothing stands out
LEAST_SILENCE_HOURS = 3
STREAM_SILENT_US = 60_000_000
SHOWN = 8  # days and silences
RETRAININGS = 20  # among which the last one with checks is looked for


@view(blueprint, "", role="viewer", query=(*RANGE, "sort"))
def index() -> str:
    """The page."""
    now = now_us()
    chosen, sort = time_range(request.args, now, "30d"), sort_of(BUSIEST, "-events")
    with services().database.connect() as connection:
        report = quality_rows.newest_report(connection)
        champion = version_rows.champion(connection)
        hours = events_by_hour(connection, chosen.since_us - (USUAL_DAYS + 1) * DAY_US, now)
        return render_template(
            "admin/data_quality.html",
            range=chosen,
            report=report,
            mapped=services().settings.events.mapped,
            facts=report.facts if report else None,
            busiest=_busiest(report, sort),
            sort=sort,
            query={k: v for k, v in request.args.items() if k in RANGE},
            stale=report is not None
            and report.facts["champion"] != (champion and champion.version),
            rejected_today=rejected_rows.rejected_since(connection, now - DAY_US),
            unmapped=unmapped_rows.list_names(connection),
            odd_days=_odd_days(hours, chosen, now),
            silences=_silences(hours, chosen, now),
            checks=_checks(connection, champion),
            streams=_streams(connection, now),
            charts=_charts(connection, chosen, report),
        )


@view(blueprint, "/quarantine", role="viewer", query=(*NARROWED_BY, "sort", "cursor"))
def quarantine() -> str:
    """The rows that could not become events."""
    sort, source, text = sort_of(COLUMNS, NEWEST), words("source"), words("q")
    state = choice("state", STATES, "waiting")
    waiting = None if state == "all" else state == "waiting"
    with services().database.connect() as connection:
        if sort == NEWEST:
            before = read_number(request.args.get("cursor"))
            rows = quality_rows.list_rejected(
                connection, PAGE_ROWS + 1, before, source, text, waiting
            )
            shown = rows[:PAGE_ROWS]
            more = write_cursor(str(shown[-1]["id"])) if len(rows) > PAGE_ROWS else None
        else:
            rows = quality_rows.list_rejected(connection, SORTED_ROWS, None, source, text, waiting)
            shown, more = SortedList(COLUMNS, sort, lambda row: row["id"]).page(rows)
        report = quality_rows.newest_report(connection)
    return render_template(
        "admin/quarantine.html",
        rows=shown,
        sort=sort,
        query={k: v for k, v in request.args.items() if k in NARROWED_BY},
        state=state,
        states=STATES,
        sources=[name for name, _ in report.facts["rejected"]["sources"]] if report else [],
        filtered=bool(source or text or state != "waiting"),
        looked_at=quality_rows.LOOKED_AT,
        **pages(more),
    )


@view(blueprint, "/report.json", role="viewer")
def download() -> Response:
    """The figures of the last look, as JSON."""
    with services().database.connect() as connection:
        report = quality_rows.newest_report(connection)
    if report is None:
        raise NotFoundError("report", "data quality")
    facts = {"made_at": rfc3339(report.made_at_us), **report.facts}
    headers = {"Content-Disposition": "attachment; filename=data-quality.json"}
    text = orjson.dumps(facts, option=orjson.OPT_INDENT_2)
    return Response(text, mimetype="application/json", headers=headers)


def _busiest(report: Report | None, sort: str) -> list[dict[str, Any]]:
    """The users with the most of the newest events, sorted."""
    found = report.facts["newest"]["busiest"] if report else []
    return SortedList(BUSIEST, sort, lambda one: one["key"]).page(found)[0]


def _charts(
    connection: Connection, chosen: TimeRange, report: Report | None
) -> dict[str, Chart | None]:
    events = _by_day(figures.event_figures(connection, chosen), chosen)
    posted = figures.service_figures(figures.service_rows(connection, "posted", chosen), chosen)
    facts = report.facts if report else {}
    unknown = [
        row
        for row in facts.get("newest", {}).get("unknown_by_day", [])
        if chosen.since_us - DAY_US < row[0] < chosen.until_us
    ]
    curve = facts.get("sequences", {}).get("popularity", {"items": [], "events": []})
    rejected = dict(map(tuple, facts.get("rejected", {}).get("by_day", [])))
    days = chosen.steps(DAY_US)
    return {
        "events": Chart(
            "events-by-type", "Events by type", events.x, events.series(),
            f"{events.total:,} events.", "stacked", whole=True,
        ),
        "posted": Chart(
            "posted", "Posted events by outcome", posted.x, posted.series(),
            f"{posted.total:,} events posted." if posted.total else "No events were posted in this "
            "range.", "stacked", whole=True,
        ),
        "unknown": Chart(
            "unknown-items", "Events of items unknown to the champion",
            [row[0] / 1e6 for row in unknown], [Series("unknown", [row[2] for row in unknown])],
            "None in this range, judging by the newest events.", kind="bars", unit="%",
        ),
        "rejected": Chart(
            "rejected", "Quarantined rows", [day / 1e6 for day in days],
            [Series("rows", [rejected.get(day, 0) for day in days])],
            "" if any(rejected.get(day) for day in days) else "None in this range.", kind="bars",
            whole=True,
        ),
        "popularity": Chart(
            "popularity", "Concentration of popularity",
            [100 * share for share in curve["items"]],
            [Series("share of the events", curve["events"])], x_kind="number",
            x_label="most popular items, %", unit="%",
        ),
    }  # fmt: skip


def _by_day(found: figures.Figures, chosen: TimeRange) -> figures.Figures:
    """Added up by day, where the range is shown by hours."""
    rows = (
        (step, name, values[at])
        for name, values in found.names.items()
        for at, step in enumerate(found.steps)
    )
    return figures.by_name(rows, chosen, DAY_US)


def _odd_days(
    hours: list[tuple[int, str, int]], chosen: TimeRange, now: int
) -> list[dict[str, Any]]:
    """Whole days with far fewer or more events than usual, the newest first."""
    counts: dict[int, int] = {}
    for hour_us, _, number in hours:
        day = hour_us - hour_us % DAY_US
        counts[day] = counts.get(day, 0) + number
    if not counts:
        return []
    found = []
    day = min(counts) + USUAL_DAYS * DAY_US
    while day < now - now % DAY_US:
        usual = median(counts.get(day - back * DAY_US, 0) for back in range(1, USUAL_DAYS + 1))
        number = counts.get(day, 0)
        if usual >= LEAST_USUAL and day >= chosen.since_us - DAY_US and day < chosen.until_us:
            times = number / usual
            if times < DROP or times > SURGE:
                found.append({"day_us": day, "events": number, "usual": usual, "times": times})
        day += DAY_US
    return found[::-1][:SHOWN]


def _silences(
    hours: list[tuple[int, str, int]], chosen: TimeRange, now: int
) -> list[dict[str, int]]:
    """Hours in a row without any event, the longest first; the one that goes on now too."""
    busy = sorted({hour_us for hour_us, _, _ in hours if hour_us >= chosen.since_us - HOUR_US})
    end_us = min(now - now % HOUR_US, chosen.until_us)
    found = []
    for hour_us, next_us in pairwise([*busy, end_us]):
        silent = (next_us - hour_us) // HOUR_US - 1
        if silent >= LEAST_SILENCE_HOURS:
            found.append({"from_us": hour_us + HOUR_US, "until_us": next_us, "hours": silent})
    return sorted(found, key=lambda one: -one["hours"])[:SHOWN]


def _streams(connection: Connection, now: int) -> list[dict[str, Any]]:
    """The partitions that `recsys consume` reads, each with what keeps it from being read."""
    problems = {
        (one.source, one.consumer): one.problem for one in stream_rows.list_consumers(connection)
    }
    found = []
    for row in stream_rows.list_partitions(connection):
        alive = (row.source, row.consumer) in problems
        problem = row.problem or problems.get((row.source, row.consumer or ""))
        silent = row.reported_at_us is None or now - row.reported_at_us > STREAM_SILENT_US
        if problem is None and (not alive or silent):
            problem = "no consumer reads it" if not alive else "its consumer is silent"
        found.append({"row": row, "problem": problem})
    return found


def _checks(connection: Connection, champion: VersionRow | None) -> dict[str, Any] | None:
    """The checks before the last training that told of any, else those of the champion's."""
    for run in job_rows.list_runs(connection, RETRAININGS, job="retrain"):
        found = (run.outcome or {}).get("checks")
        if found:
            return {"checks": found, "run_id": run.id, "at_us": run.finished_at_us}
        if run.state == "failed" and run.error and "training." in run.error:
            return {"checks": [], "run_id": run.id, "at_us": run.finished_at_us, "error": run.error}
    if champion is None or not champion.facts.get("checks"):
        return None
    return {"checks": champion.facts["checks"], "run_id": None, "at_us": champion.created_at_us}
