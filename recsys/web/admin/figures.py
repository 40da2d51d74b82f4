"""Sums by hour -> series and percentiles: what the charts of the overview show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from recsys.events.times import DAY_US, HOUR_US
from recsys.storage.dashboard import activity_rows
from recsys.storage.engine.database import Connection
from recsys.storage.entities import live_quality_rows
from recsys.storage.entities.live_quality_rows import LiveQuality
from recsys.web.admin.queries import TimeRange
from recsys.web.admin.svg import Series

MAX_SERIES = 6  # the smallest beyond them are one, 'other'
QUANTILES = (0.5, 0.95, 0.99)
Histogram = dict[float, int]  # upper bound of a bucket -> how many
ServiceRow = tuple[int, str, float, int]  # step in µs, name, bucket, number


@dataclass(frozen=True)
class Figures:
    """One kind of sums over a time range, in steps."""

    steps: list[int]  # where each begins, µs
    names: dict[str, list[int]]  # name -> number in each step, the largest first

    @property
    def x(self) -> list[float]:
        """The steps in seconds since 1970."""
        return [step / 1e6 for step in self.steps]

    @property
    def total(self) -> int:
        return sum(map(sum, self.names.values()))

    @property
    def totals(self) -> list[int]:
        """Of each step, all names together."""
        return [sum(column) for column in zip(*self.names.values(), strict=True)]

    def series(self) -> list[Series]:
        return [Series(name, values) for name, values in self.names.items()]


def event_figures(connection: Connection, chosen: TimeRange) -> Figures:
    """Events by type, in steps of an hour or a day."""
    step = max(chosen.step_us, HOUR_US)
    rows = activity_rows.events_by_hour(
        connection, chosen.since_us - chosen.since_us % step, chosen.until_us
    )
    return by_name(((at, name, number) for at, name, number in rows), chosen, step)


def service_figures(rows: Iterable[ServiceRow], chosen: TimeRange) -> Figures:
    """What the service counted of one kind, by name."""
    return by_name(((at, name, number) for at, name, _, number in rows), chosen, chosen.step_us)


def service_rows(connection: Connection, kind: str, chosen: TimeRange) -> list[ServiceRow]:
    """(step, name, bucket, number); a range's steps are as long as one of the kept spans."""
    step = chosen.step_us
    since = chosen.since_us - chosen.since_us % step
    return activity_rows.service_counts_by_slot(
        connection, kind, step // 1_000_000, since, chosen.until_us
    )


def by_name(rows: Iterable[tuple[int, str, int]], chosen: TimeRange, step_us: int) -> Figures:
    """(moment, name, number) added up by step; at most MAX_SERIES names."""
    steps = chosen.steps(step_us)
    place = {step: at for at, step in enumerate(steps)}
    found: dict[str, list[int]] = defaultdict(lambda: [0] * len(steps))
    for moment, name, number in rows:
        at = place.get(moment - moment % step_us)
        if at is not None:
            found[name][at] += number
    order = sorted(found, key=lambda name: -sum(found[name]))
    names = {name or "all": found[name] for name in order[:MAX_SERIES]}
    if len(order) > MAX_SERIES:
        rest = [found[name] for name in order[MAX_SERIES:]]
        names["other"] = [sum(column) for column in zip(*rest, strict=True)]
    return Figures(steps, names)


@dataclass(frozen=True)
class Latency:
    """How long answers took: over the whole range and in each step, by quantile; seconds."""

    count: int
    whole: dict[float, float | None]
    steps: list[int]
    by_step: dict[float, list[float | None]]


def latency_figures(
    rows: Iterable[ServiceRow], chosen: TimeRange, names: Sequence[str] | None = None
) -> Latency:
    """Quantiles of what was observed, read off histograms."""
    steps = chosen.steps()
    place = {step: at for at, step in enumerate(steps)}
    histograms: list[Histogram] = [defaultdict(int) for _ in steps]
    whole: Histogram = defaultdict(int)
    for moment, name, bucket, number in rows:
        if names is None or name in names:
            whole[bucket] += number
            at = place.get(moment - moment % chosen.step_us)
            if at is not None:
                histograms[at][bucket] += number
    return Latency(
        count=sum(whole.values()),
        whole={q: quantile(whole, q) for q in QUANTILES},
        steps=steps,
        by_step={q: [quantile(one, q) for one in histograms] for q in QUANTILES},
    )


def quantile(histogram: Mapping[float, int], share: float) -> float | None:
    """The value below which `share` lie, taken evenly within a bucket; None of nothing.

    A bucket reaches down to half its bound: the bounds lie about that far apart.

    >>> quantile({0.01: 50, 0.02: 50}, 0.75)
    0.015
    """
    total = sum(histogram.values())
    wanted, seen = share * total, 0
    for bound in sorted(histogram):
        number = histogram[bound]
        if number and seen + number >= wanted:
            return bound * (0.5 + 0.5 * (wanted - seen) / number)
        seen += number
    return None


def live_quality_figures(
    connection: Connection, chosen: TimeRange
) -> tuple[list[int], list[LiveQuality]]:
    """(steps of an hour or a day, live quality in each)."""
    step_us = max(chosen.step_us, HOUR_US)
    steps = chosen.steps(step_us)
    found = {step: LiveQuality(step) for step in steps}
    for hour in live_quality_rows.hours_between(connection, steps[0], chosen.until_us):
        found[hour.hour_us - hour.hour_us % step_us] += hour
    return steps, [found[step] for step in steps]


def users_series(connection: Connection, chosen: TimeRange) -> tuple[list[int], list[int]]:
    """(days, active users of each)."""
    days = chosen.steps(DAY_US)
    found = dict(activity_rows.users_by_day(connection, days[0], chosen.until_us))
    return days, [found.get(day, 0) for day in days]
