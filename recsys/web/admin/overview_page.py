"""Overview: traffic, quality, and problems that need attention."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, render_template, request
from markupsafe import Markup

from recsys.events.times import DAY_US, HOUR_US
from recsys.serving.uplift import rate, uplift
from recsys.storage.dashboard import activity_rows, quality_rows
from recsys.storage.dashboard.quality_rows import Growth
from recsys.storage.engine.database import Connection
from recsys.storage.entities import answer_count_rows, lease_rows, schedule_rows, version_rows
from recsys.storage.entities.live_quality_rows import SYSTEMS, LiveQuality, System
from recsys.storage.entities.version_rows import VersionRow
from recsys.web.admin import figures, svg
from recsys.web.admin.access import PREFIX, view
from recsys.web.admin.formats import duration, percent, points, utc_day
from recsys.web.admin.overview_summary import headlines, money_headline, opening
from recsys.web.admin.problems import find_problems, scheduler_silence_us
from recsys.web.admin.queries import RANGE, TimeRange, time_range
from recsys.web.admin.svg import Chart, Series
from recsys.web.services import now_us, services

blueprint = Blueprint("admin_overview", __name__, url_prefix=PREFIX)

SYSTEM_LABELS: dict[System, str] = {
    "live": "as served",
    "still": "without live events",
    "popular": "popular items",
}
MAX_VERSIONS = 8  # in the plot of click-through


@view(blueprint, "/overview", role="viewer", query=RANGE)
def index() -> str:
    """The page."""
    now, settings = now_us(), services().settings
    chosen = time_range(request.args, now)
    with services().database.connect() as connection:
        champion = version_rows.champion(connection)
        lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
        answered = figures.service_rows(connection, "latency", chosen)
        latency = figures.latency_figures(answered, chosen)
        lag = figures.latency_figures(figures.service_rows(connection, "lag", chosen), chosen)
        users = figures.users_series(connection, chosen)
        events = figures.event_figures(connection, chosen)
        hours = figures.live_quality_figures(connection, chosen)
        problems = find_problems(connection, settings, now)
        total = activity_rows.event_total(connection, own=not settings.events.mapped)
        counter = Markup(render_template("admin/event_counter.html", total=total))  # noqa: S704
        return render_template(
            "admin/overview.html",
            range=chosen,
            now=now,
            problems=problems,
            opening=opening(champion, schedule_rows.list_schedules(connection), len(problems), now),
            headlines=[
                *headlines(connection, chosen, counter, users[1], events, hours[1]),
                *money_headline(connection, chosen, settings.attribution.currency),
            ],
            champion=champion,
            coverage=_coverage(champion),
            silence=scheduler_silence_us(lease),
            latency=latency,
            lag=lag,
            clicks=_click_through(connection, chosen),
            quality=_live_quality(*hours),
            disk=_disk(quality_rows.growth(connection)),
            charts=_charts(connection, chosen, events, answered, latency, users, champion),
        )


@view(blueprint, "/overview/events", role="viewer", live=True, query=("shown",))
def event_counter() -> Response | str:
    """The number of events, for the page to keep up to date; 204 where it has not changed."""
    with services().database.connect() as connection:
        total = activity_rows.event_total(connection, own=not services().settings.events.mapped)
    if request.args.get("shown") == str(total.events):
        return Response(status=204)
    return render_template("admin/event_counter.html", total=total)


def _events_told(total: int, chosen: TimeRange, champion: VersionRow | None) -> str:
    """How many events the range has, and why none where the champion learned from older ones alone."""
    if total or champion is None or champion.data_end_us >= chosen.since_us:
        return f"{total:,} events."
    return "0 events in this range. The events that the champion learned from are older."


def _charts(
    connection: Connection,
    chosen: TimeRange,
    events: figures.Figures,
    answered: list[figures.ServiceRow],
    latency: figures.Latency,
    users: tuple[list[int], list[int]],
    champion: VersionRow | None,
) -> dict[str, Chart]:
    requests = figures.service_figures(answered, chosen)
    sources, fallbacks = (
        figures.service_figures(figures.service_rows(connection, kind, chosen), chosen)
        for kind in ("source", "fallback")
    )
    seconds = [step / 1e6 for step in latency.steps]
    quantiles = [
        Series(f"p{round(q * 100)}", [None if v is None else v * 1e3 for v in values])
        for q, values in latency.by_step.items()
    ]
    nothing = "Nothing was recommended in this range."
    none = "None: every answer came from the model alone."
    return {
        "events": Chart(
            "events", "Events", events.x, events.series(),
            _events_told(events.total, chosen, champion),
            "stacked", whole=True,
        ),
        "requests": Chart(
            "requests", "Requests", requests.x, requests.series(),
            f"{requests.total:,} requests." if requests.total else "No requests in this range.",
            "stacked", whole=True,
        ),
        "latency": Chart(
            "latency", "Latency", seconds, quantiles,
            "" if latency.count else "No requests in this range.", unit="ms",
        ),
        "users": Chart(
            "active-users", "Daily active users", [day / 1e6 for day in users[0]],
            [Series("users", users[1])], kind="bars", whole=True,
        ),
        "sources": Chart(
            "sources", "Recommended items by source", sources.x, sources.series(),
            "" if sources.total else nothing, "stacked", whole=True,
        ),
        "fallbacks": Chart(
            "fallbacks", "Fallbacks", fallbacks.x,
            fallbacks.series(),
            "" if fallbacks.total else none if sources.total else nothing, "stacked", whole=True,
        ),
    }  # fmt: skip


def _live_quality(steps: list[int], found: list[LiveQuality]) -> dict[str, Any]:
    """Recall@20 by step for each system, positions by step, and the sums of the range."""
    whole = sum(found, LiveQuality(steps[0]))
    x = [step / 1e6 for step in steps]
    return {
        "whole": whole,
        "systems": {SYSTEM_LABELS[system]: system for system in SYSTEMS},
        "recall": Chart(
            "live-quality", "Recall@20 just before each click", x,
            [Series(SYSTEM_LABELS[one], [at.recall(one) for at in found]) for one in SYSTEMS],
            f"{whole.positions:,} clicks ranked." if whole.positions else "No click ranked in this range.",
            unit="%",
        ),
        "positions": Chart(
            "live-quality-positions", "Clicks ranked", x,
            [
                Series("known items", [at.positions - at.unknown for at in found]),
                Series("items new to the model", [at.unknown for at in found]),
            ],
            f"{whole.positions:,} clicks ranked." if whole.positions else "No click ranked in this range.",
            "stacked", whole=True,
        ),
    }  # fmt: skip


def _click_through(connection: Connection, chosen: TimeRange) -> dict[str, Any]:
    """By version, newest first, with intervals; and the champion's uplift over the control."""
    since = chosen.since_us - chosen.since_us % HOUR_US
    until = chosen.until_us
    rows = answer_count_rows.counts(connection, since, until, ("model_version", "arm"))
    hourly = answer_count_rows.counts(connection, since, until, ("hour_us", "arm"))
    rows.sort(key=lambda row: (row["model_version"], row["arm"]), reverse=True)
    plotted = []
    for row in rows[:MAX_VERSIONS]:
        found = rate(row["shown"], row["clicks"])
        share, low, high = (found[name] for name in ("click_through", "low", "high"))
        if share is None or low is None or high is None:
            continue
        name = row["model_version"] or "no model"
        arm = f" ({row['arm']})" if row["arm"] in ("control", "experiment") else ""
        text = f"{percent(share, 2)}  of {row['shown']:,}"
        mark = "diamond" if row["arm"] == "champion" else "ring"
        plotted.append(
            svg.Interval(_short(name) + arm, share * 100, low * 100, high * 100, mark, text)
        )
    shown, clicks = sum(row["shown"] for row in rows), sum(row["clicks"] for row in rows)
    difference = uplift(hourly)
    return {
        "shown": shown,
        "rate": rate(shown, clicks)["click_through"],
        "plot": svg.intervals(plotted, "Click-through by version, in percent", digits=2),
        "uplift": difference,
        "uplift_text": ""
        if difference is None
        else f"{points(difference['difference'])} compared with control "
        f"({points(difference['low'])} to {points(difference['high'])})",
    }


def _short(version: str) -> str:
    """
    >>> _short("20250131-093000-a1b2c3")
    '2025-01-31 a1b2c3'
    """
    parts = version.split("-")
    if len(parts) != 3 or len(parts[0]) != 8:
        return version[-20:]
    return f"{parts[0][:4]}-{parts[0][4:6]}-{parts[0][6:]} {parts[2]}"


def _coverage(champion: version_rows.VersionRow | None) -> float | None:
    """The share of the catalogue that the champion's evaluation recommended."""
    metrics = {} if champion is None else champion.facts.get("metrics", {}).get("served", {})
    found: float | None = metrics.get("coverage@20")
    return found


def _disk(growth: Growth | None) -> dict[str, Any]:
    """When the disk will be full, or why that is not known."""
    if growth is None:
        return {"value": "unknown", "note": "measured by the refresh job"}
    newest, left = growth.newest, growth.days_left
    sizes = {"database": newest.database_bytes, "registry": newest.registry_bytes}
    if growth.bytes_a_day is None:
        return {"value": "unknown", "note": "growth needs two days of measurements", **sizes}
    if newest.free_bytes is None:
        return {"value": "unknown", "note": "free space cannot be read", **sizes}
    if left is None:
        return {"value": "never", "note": "the disk does not fill up", **sizes}
    if left > 3_650:
        return {"value": "> 10 years", "note": "the disk lasts for more than 10 years", **sizes}
    return {
        "value": utc_day(newest.day_us + int(left * DAY_US)),
        "note": f"in {duration(left * 86_400)}",
        **sizes,
        "known": True,
    }
