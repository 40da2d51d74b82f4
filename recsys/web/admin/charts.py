"""Charts as data: the page embeds it as JSON, static/admin/charts.js draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import orjson
from markupsafe import Markup


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
