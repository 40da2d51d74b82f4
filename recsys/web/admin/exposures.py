"""What the newest answers showed: how evenly, and each item's share. Counted at most once a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from flask import current_app

from recsys.storage.dashboard import catalogue_views
from recsys.storage.dashboard.catalogue_views import Exposure
from recsys.storage.engine.database import Connection
from recsys.web.admin.svg import Chart, Series

KEEP_SECONDS = 60.0
POINTS = 100  # of the curve, at most
_lock = threading.Lock()


@dataclass(frozen=True)
class Concentration:
    """How the places in answers are shared among all items of the catalogue."""

    gini: float  # 0: every item as often as any other; 1: one item alone
    top_share: float  # of the hundredth of items shown most
    items: int  # that were counted, shown or not
    shown: int  # of them, shown at least once
    curve: list[tuple[float, float]]  # (share of items, the least shown first; share of places)


def exposure(connection: Connection) -> Exposure:
    """What was shown, as it stood at most KEEP_SECONDS ago."""
    kept: tuple[float, Exposure] | None = current_app.extensions.get("recsys_exposure")
    if kept is not None and time.monotonic() - kept[0] < KEEP_SECONDS:
        return kept[1]
    with _lock:
        found = catalogue_views.exposure(connection)
        current_app.extensions["recsys_exposure"] = (time.monotonic(), found)
    return found


def concentration(shown: Sequence[int], items: int) -> Concentration | None:
    """Of `items` items, those in `shown` with how often; None where nothing was shown.

    The Gini coefficient: 1 + 1/n - 2/n * sum of the shares cumulated from the least shown on.

    >>> even, one = concentration([5, 5], 2), concentration([10], 1000)
    >>> round(even.gini, 3), round(one.gini, 3), one.top_share
    (0.0, 0.999, 1.0)
    """
    total, count = sum(shown), max(items, len(shown))
    if not total:
        return None
    rising = sorted(shown)
    unshown = count - len(rising)
    summed, sums = 0, []
    for number in rising:
        summed += number
        sums.append(summed)
    area = sum(sums) / total
    top = max(1, count // 100)
    curve = []
    points = min(POINTS, count)
    for point in range(points + 1):
        place = round(point / points * count) - unshown
        curve.append((point / points, sums[place - 1] / total if place > 0 else 0.0))
    return Concentration(
        gini=max(0.0, 1 + 1 / count - 2 * area / count),
        top_share=sum(rising[-top:]) / total,
        items=count,
        shown=len(rising),
        curve=curve,
    )


def curve_chart(found: Concentration) -> Chart:
    """The Lorenz curve beside an even share."""
    x = [share * 100 for share, _ in found.curve]
    return Chart(
        "exposure",
        "Concentration of exposure",
        x,
        [
            Series("share of item impressions", [share for _, share in found.curve]),
            Series("if evenly shared", [share / 100 for share in x]),
        ],
        f"The 1% of items shown most have {found.top_share:.0%} of all item impressions.",
        x_kind="number",
        x_label="% of items, least shown first",
        unit="%",
    )
