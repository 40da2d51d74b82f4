"""What the overview opens with: one paragraph for everybody, and the figures that matter with their change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from recsys.events.times import DAY_US, HOUR_US
from recsys.storage.dashboard.revenue import revenue
from recsys.storage.engine.database import Connection
from recsys.storage.entities import answer_count_rows, schedule_rows, version_rows
from recsys.storage.entities.live_quality_rows import LiveQuality
from recsys.web.admin import figures, svg
from recsys.web.admin.formats import compact, duration, money, number, percent, points
from recsys.web.admin.queries import TimeRange

SERVED, POPULAR, RECALL = "served", "popular_recent", "recall@20"
FLAT = 0.005  # a change below half a per cent is none


@dataclass(frozen=True)
class Headline:
    """One of the large figures at the top."""

    label: str
    value: str | Markup
    change: str  # compared with the time before; empty where that is not known
    tone: str  # 'up', 'down' or nothing
    spark: Markup
    term: str | None = None  # explained beside the label


def opening(
    champion: version_rows.VersionRow | None,
    schedules: Sequence[schedule_rows.ScheduleRow],
    problems: int,
    now_us: int,
) -> list[str]:
    """The sentences that say how things stand.

    >>> opening(None, [], 1, 0)[0]
    'No model is serving: visitors see popular and latest items.'
    """
    if champion is None:
        said = ["No model is serving: visitors see popular and latest items."]
    else:
        said = [f"Version {champion.version} is serving.", *_compared(champion.facts)]
    training = next((one for one in schedules if one.job == "retrain"), None)
    if training is not None and training.paused:
        said.append("Training is paused.")
    elif training is not None and training.next_run_us is not None:
        left = max(0, training.next_run_us - now_us) // 1_000_000
        said.append(
            f"The next training starts in {duration(left)}." if left else "A training is due."
        )
    if problems == 0:
        said.append("Nothing needs your attention.")
    else:
        said.append(
            f"{problems} {'things need' if problems > 1 else 'thing needs'} your attention."
        )
    return said


def _compared(facts: Mapping[str, Any]) -> list[str]:
    """How much more often than popular items the version finds what comes next.

    >>> metrics = {"served": {"recall@20": 0.6}, "popular_recent": {"recall@20": 0.15}}
    >>> _compared({"metrics": metrics})[0].partition("in ")[2]
    '60.0% of cases, among the 20 most popular ones in 15.0%: 4.0 times as often.'
    >>> _compared({})
    []
    """
    metrics: Mapping[str, Any] = facts.get("metrics", {})
    served, popular = (metrics.get(name, {}).get(RECALL) for name in (SERVED, POPULAR))
    if not served or popular is None:
        return []
    said = (
        f"In its evaluation the next item was among its first 20 in {percent(served)} of cases, "
        f"among the 20 most popular ones in {percent(popular)}"
    )
    return [f"{said}: {served / popular:.1f} times as often." if popular > 0 else f"{said}."]


def headlines(
    connection: Connection,
    chosen: TimeRange,
    counter: Markup,
    users: Sequence[int],
    events: figures.Figures,
    hours: Sequence[LiveQuality],
) -> list[Headline]:
    """Events, users, click-through and live quality, of this range and of the one before.

    `users` by day, `events` and `hours` (live quality) of this range: the page shows them too.
    """
    before = chosen.before
    events_before = figures.event_figures(connection, before)
    days, days_before = users, figures.users_series(connection, before)[1]
    rates = [_click_through(connection, one) for one in (chosen, before)]
    earlier = figures.live_quality_figures(connection, before)[1]
    recalls = [sum(of, LiveQuality(chosen.since_us)).recall("live") for of in (hours, earlier)]
    return [
        Headline(
            "Events",
            counter,
            *_grown(events.total, events_before.total, f"{compact(events.total)} in this range"),
            svg.sparkline(events.totals, "Events in this range"),
        ),
        Headline(
            "Active users",
            number(days[-1] if days else 0),
            *_grown(_mean(days), _mean(days_before), "today"),
            svg.sparkline(days, "Active users by day"),
        ),
        Headline(
            "Click-through",
            percent(rates[0], 2),
            *_moved(rates, ""),
            svg.sparkline(_by_day(connection, chosen), "Click-through by day"),
            "click-through",
        ),
        Headline(
            "Live recall@20",
            percent(recalls[0]),
            *_moved(recalls, ""),
            svg.sparkline([hour.recall("live") or 0.0 for hour in hours], "Live recall@20"),
            "recall@20",
        ),
    ]


def money_headline(connection: Connection, chosen: TimeRange, currency: str) -> list[Headline]:
    """What answers brought in this range; nothing where nothing was sold in it or before."""
    found, earlier = (
        revenue(connection, one.since_us, one.until_us, currency) for one in (chosen, chosen.before)
    )
    if not (found.total or earlier.total):
        return []
    note = "nothing was sold" if found.share is None else f"{percent(found.share)} of all value"
    return [
        Headline(
            "From recommendations",
            _amount(found.attributed, currency),
            *_grown(found.attributed, earlier.attributed, note),
            svg.sparkline(
                [max(0.0, day) for day in found.by_day], "Value from recommendations by day"
            ),
            "conversion",
        )
    ]


def _amount(value: float, currency: str) -> str:
    """Money in the width of a headline.

    >>> _amount(1234.5, "EUR"), _amount(90_175.72, "EUR"), _amount(-2e6, "")
    ('1,234.50 EUR', '90.2k EUR', '-2.0M')
    """
    if abs(value) < 10_000:
        return money(value, currency)
    return f"{compact(value)} {currency}".rstrip()


def _grown(now: float, before: float, note: str) -> tuple[str, str]:
    """A note with the change of a count, and its direction.

    >>> _grown(110, 100, "today"), _grown(5, 0, "today")
    (('today, +10% vs. previous period', 'up'), ('today', ''))
    """
    if before <= 0:
        return note, ""
    change = now / before - 1
    if abs(change) < FLAT:
        return f"{note}, unchanged", ""
    return f"{note}, {change:+.0%} vs. previous period", _tone(change)


def _moved(shares: Sequence[float | None], note: str) -> tuple[str, str]:
    """The change of a share, in percentage points, and its direction."""
    now, before = shares
    if now is None or before is None:
        return note, ""
    return f"{points(now - before)} vs. previous period", _tone(now - before)


def _tone(change: float) -> str:
    return "up" if change > 0 else "down" if change < 0 else ""


def _mean(values: Sequence[int]) -> float:
    """The mean of all but the last day, which is not over, where there are more."""
    whole = values[:-1] if len(values) > 1 else values
    return sum(whole) / max(1, len(whole))


def _click_through(connection: Connection, chosen: TimeRange) -> float | None:
    shown, clicks = _answers(answer_count_rows.counts(connection, *_hours(chosen), ("arm",)))
    return clicks / shown if shown else None


def _by_day(connection: Connection, chosen: TimeRange) -> list[float]:
    """Click-through of each day, 0 where nothing was answered."""
    days = chosen.steps(DAY_US)
    rows = answer_count_rows.counts(connection, *_hours(chosen), ("hour_us",))
    found = []
    for day in days:
        shown, clicks = _answers([row for row in rows if day <= row["hour_us"] < day + DAY_US])
        found.append(clicks / shown if shown else 0.0)
    return found


def _answers(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Answers that were given, and those with a click."""
    return sum(row["shown"] for row in rows), sum(row["clicks"] for row in rows)


def _hours(chosen: TimeRange) -> tuple[int, int]:
    """The range from the start of its first hour on."""
    return chosen.since_us - chosen.since_us % HOUR_US, chosen.until_us
