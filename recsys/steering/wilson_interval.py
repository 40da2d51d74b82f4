"""The interval of a share, such as of answers that were clicked."""

from __future__ import annotations

import math
from typing import NamedTuple

Z = 1.959964  # two-sided 95%


class ShareInterval(NamedTuple):
    """A share with its 95% interval."""

    share: float
    low: float
    high: float


def share_interval(part: int, whole: int) -> ShareInterval | None:
    """`part` of `whole` with its 95% interval (Wilson 1927); None where the whole is 0.

    >>> share_interval(10, 100)
    ShareInterval(share=0.1, low=0.055229, high=0.174366)
    """
    if whole == 0:
        return None
    share = part / whole
    centre = (share + Z**2 / (2 * whole)) / (1 + Z**2 / whole)
    spread = share * (1 - share) / whole + Z**2 / (4 * whole**2)
    half = Z / (1 + Z**2 / whole) * math.sqrt(max(0.0, spread))
    return ShareInterval(
        round(share, 6), round(max(0.0, centre - half), 6), round(min(1.0, centre + half), 6)
    )
