"""Click-through with its interval, and the champion's uplift over the control."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

Z = 1.959964  # two-sided 95%


def rate(shown: int, clicks: int) -> dict[str, float | None]:
    """Click-through and its 95% Wilson interval; None where nothing was shown.

    >>> rate(100, 10)
    {'click_through': 0.1, 'low': 0.055229, 'high': 0.174366}
    """
    if shown == 0:
        return {"click_through": None, "low": None, "high": None}
    share = clicks / shown
    centre = (share + Z**2 / (2 * shown)) / (1 + Z**2 / shown)
    spread = share * (1 - share) / shown + Z**2 / (4 * shown**2)
    half = Z / (1 + Z**2 / shown) * math.sqrt(max(0.0, spread))
    return {
        "click_through": round(share, 6),
        "low": round(max(0.0, centre - half), 6),
        "high": round(min(1.0, centre + half), 6),
    }


def uplift(hourly: Iterable[Mapping[str, Any]], z: float = Z) -> dict[str, float] | None:
    """Champion less control in click-through, hour by hour and then together.

    `hourly`: rows of hour_us, arm, shown, clicks. Only hours in which both arms answered count, so
    that a quiet night in one arm is not compared with a busy noon in the other; the hours are
    weighted as by Mantel and Haenszel; `z` is how wide the interval is. None where there is no such hour.
    """
    hours: dict[int, dict[str, tuple[int, int]]] = defaultdict(dict)
    for row in hourly:
        if row["shown"]:
            hours[row["hour_us"]][row["arm"]] = (row["shown"], row["clicks"])
    total = weights = variance = 0.0
    count = 0
    for arms in hours.values():
        if "champion" not in arms or "control" not in arms:
            continue
        (n, a), (m, b) = arms["champion"], arms["control"]
        weight = n * m / (n + m)
        p, q = a / n, b / m
        total += weight * (p - q)
        variance += weight**2 * (p * (1 - p) / n + q * (1 - q) / m)
        weights += weight
        count += 1
    if count == 0:
        return None
    difference, half = total / weights, z * math.sqrt(variance) / weights
    return {
        "difference": round(difference, 6),
        "low": round(difference - half, 6),
        "high": round(difference + half, 6),
        "hours": count,
    }
