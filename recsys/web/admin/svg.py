"""Charts as data for static/admin/charts.js, and small pictures drawn on the server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import orjson
from markupsafe import Markup

WIDTH, ROW, LABELS, VALUES = 760, 26, 230, 170


@dataclass(frozen=True)
class Interval:
    """A figure with its interval; `mark` is how its point is drawn."""

    label: str
    value: float
    low: float
    high: float
    mark: str = "dot"  # 'dot', 'diamond' (the one looked at), 'ring'
    text: str = ""  # beside it; the figures where empty


def sparkline(values: Sequence[float], label: str, width: int = 120, height: int = 28) -> Markup:
    """A line without axes; `label` says what it shows."""
    if len(values) < 2 or not any(values):
        return Markup("")
    top = max(values) or 1
    step = (width - 4) / (len(values) - 1)
    points = [
        (2 + at * step, height - 3 - value / top * (height - 6)) for at, value in enumerate(values)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"2,{height} {line} {width - 2},{height}"
    return Markup(
        '<svg class="sparkline" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
        'aria-label="{label}" preserveAspectRatio="none"><polygon points="{area}"/>'
        '<polyline points="{line}"/></svg>'
    ).format(w=width, h=height, label=label, area=area, line=line)


def intervals(rows: Sequence[Interval], label: str, zero: bool = False, digits: int = 3) -> Markup:
    """A row for each figure on one scale; with `zero`, a line where nothing differs."""
    if not rows:
        return Markup("")
    bounds = [bound for row in rows for bound in (row.low, row.high, row.value)]
    low, high = min(bounds), max(bounds)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin
    if not zero:
        low = max(low, 0.0) if min(bounds) >= 0 else low
    inner = WIDTH - LABELS - VALUES
    height = ROW * len(rows) + 22

    def x(value: float) -> float:
        return LABELS + (value - low) / (high - low) * inner

    parts = [
        Markup('<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{y}"/>'
               '<text class="tick" x="{x}" y="{t}" text-anchor="middle">{v}</text>').format(
            x=f"{x(value):.1f}", y=height - 18, t=height - 4, v=f"{value:g}"
        )
        for value in round_values(low, high)
    ]  # fmt: skip
    if zero:
        parts.append(
            Markup('<line class="zero" x1="{x}" x2="{x}" y1="0" y2="{y}"/>').format(
                x=f"{x(0):.1f}", y=height - 18
            )
        )
    for place, row in enumerate(rows):
        y = ROW * place + ROW / 2
        text = row.text or f"{row.value:.{digits}f}  [{row.low:.{digits}f}, {row.high:.{digits}f}]"
        parts.append(
            Markup(
                '<g class="interval {mark}"><title>{label}: {text}</title>'
                '<text class="name" x="0" y="{t}">{label}</text>'
                '<line x1="{a}" x2="{b}" y1="{y}" y2="{y}"/>'
                '<line x1="{a}" x2="{a}" y1="{up}" y2="{down}"/>'
                '<line x1="{b}" x2="{b}" y1="{up}" y2="{down}"/>{point}'
                '<text class="value" x="{w}" y="{t}" text-anchor="end">{text}</text></g>'
            ).format(
                mark=row.mark, label=row.label, text=text, w=WIDTH, t=y + 4, y=y, up=y - 4,
                down=y + 4, a=f"{x(row.low):.1f}", b=f"{x(row.high):.1f}",
                point=_point(row.mark, x(row.value), y),
            )
        )  # fmt: skip
    return Markup(
        '<div class="plot" tabindex="0" role="group" aria-label="{label}"><svg class="intervals" '
        'viewBox="0 0 {w} {h}" role="img" '
        'aria-label="{label}">{parts}</svg></div>'
    ).format(w=WIDTH, h=height, label=label, parts=Markup("").join(parts))


def round_values(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between `low` and `high`, evenly spaced, at most `most` of them.

    >>> round_values(0.17, 0.66)
    [0.2, 0.3, 0.4, 0.5, 0.6]
    >>> round_values(-0.0002, 0.0155)
    [0.0, 0.005, 0.01, 0.015]
    """
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while True:
        for factor in (1, 2, 5, 10):
            first, last = math.ceil(low / step / factor), math.floor(high / step / factor)
            if last - first < most:
                return [float(f"{n * step * factor:.12g}") for n in range(first, last + 1)]
        step *= 10


def _point(mark: str, x: float, y: float) -> Markup:
    if mark == "diamond":
        corners = f"{x:.1f},{y - 6:.1f} {x + 6:.1f},{y:.1f} {x:.1f},{y + 6:.1f} {x - 6:.1f},{y:.1f}"
        return Markup('<polygon points="{}"/>').format(corners)
    return Markup('<circle cx="{}" cy="{}" r="4.5"/>').format(f"{x:.1f}", y)


@dataclass(frozen=True)
class Series:
    """One line of a chart; `values` stand beside the chart's `x`, None where there is none."""

    label: str
    values: Sequence[float | None]
    low: Sequence[float | None] | None = None  # a band, such as a 95% interval
    high: Sequence[float | None] | None = None


@dataclass(frozen=True)
class Chart:
    """A chart and what it says in words."""

    key: str  # names the exported files
    title: str
    x: Sequence[float]  # seconds since 1970 where `x_kind` is 'time'
    series: Sequence[Series]
    summary: str = ""  # for those who do not see the picture
    kind: Literal["line", "bars", "stacked"] = "line"
    x_kind: Literal["time", "number"] = "time"
    x_label: str = "time"
    unit: Literal["", "ms", "s", "%", "B"] = ""  # of the values; '%' takes shares of 1
    whole: bool = field(default=False)  # values are whole numbers
    log: bool = False

    @property
    def is_empty(self) -> bool:
        return not any(value for one in self.series for value in one.values)


def chart_json(chart: Chart) -> Markup:
    """`chart` for a <script type="application/json">; nothing in it can end the element."""
    text = orjson.dumps(asdict(chart)).decode()
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704
