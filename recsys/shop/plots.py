"""Pictures of a shop's DataFrames; the only home of matplotlib, which the extra `plot` brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from recsys.errors import MissingExtraError, unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 0.4  # inches a bar


def evaluation(report: pd.DataFrame, metric: str) -> Axes:
    """Bars of `metric` with their intervals, the best at the top. Raises InputError of an unknown one."""
    known = [name for name in report.columns if f"{name}_low" in report.columns]
    if metric not in known:
        raise unknown("metric", metric, "one with an interval", known)
    axes = _axes(height=1.2 + HEIGHT * len(report))
    rows = report[::-1]
    ends = [rows[metric] - rows[f"{metric}_low"], rows[f"{metric}_high"] - rows[metric]]
    axes.barh(list(rows.index), rows[metric], xerr=ends, capsize=3, color="#4c78a8")
    axes.set_xlabel(f"{metric}, 95% interval")
    axes.set_xlim(left=0)
    return axes


def events(frame: pd.DataFrame, every: str) -> Axes:
    """A line for each event type: how many in each period of `every`."""
    axes = _axes()
    for name, some in frame.groupby("event_type", observed=True):
        counts = some.set_index("timestamp").resample(every).size()
        axes.plot(counts.index, counts, label=str(name))
    axes.set_ylabel("events")
    axes.set_ylim(bottom=0)
    if len(frame):
        axes.legend()
    return axes


def _axes(height: float = 3.5) -> Axes:
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError:
        raise MissingExtraError("plot", "to draw") from None
    _, axes = pyplot.subplots(figsize=(8, height), layout="constrained")
    return axes
