"""Click-through with its interval, and the champion's uplift over the control, which is an experiment that is
always on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from recsys.events.times import DAY_US, HOUR_US
from recsys.steering.wilson_interval import Z, share_interval
from recsys.storage.engine.database import Connection
from recsys.storage.entities import answer_count_rows, version_rows

CONTROL_DAYS = 7  # that are looked back


def rate(shown: int, clicks: int) -> dict[str, float | None]:
    """Click-through and its 95% Wilson interval; None where nothing was shown.

    >>> rate(100, 10)
    {'click_through': 0.1, 'low': 0.055229, 'high': 0.174366}
    """
    found = share_interval(clicks, shown)
    share, low, high = found or (None, None, None)
    return {"click_through": share, "low": low, "high": high}


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


@dataclass(frozen=True)
class ControlArm:
    """How the champion does beside the one before it, which a share of the users keeps getting."""

    share: float
    champion: str | None
    control: str | None
    answers: dict[str, int]  # by arm
    uplift: dict[str, float] | None


def control_arm(connection: Connection, share: float, now_us: int) -> ControlArm:
    """Over the last CONTROL_DAYS, but not before the champion was deployed."""
    versions = [name for name, _ in version_rows.deployed_names(connection)]
    latest = version_rows.list_deployments(connection, 1)
    since_us = now_us - now_us % HOUR_US - CONTROL_DAYS * DAY_US
    if latest:
        since_us = max(since_us, (latest[0]["deployed_at_us"] // HOUR_US + 1) * HOUR_US)
    hourly = answer_count_rows.counts(connection, since_us, now_us, ("hour_us", "arm"))
    answers: dict[str, int] = defaultdict(int)
    for row in hourly:
        if row["arm"] in ("champion", "control"):
            answers[row["arm"]] += row["shown"]
    return ControlArm(
        share=share,
        champion=versions[0] if versions else None,
        control=versions[1] if len(versions) > 1 and share else None,
        answers=dict(answers),
        uplift=uplift(hourly),
    )
