"""Moments as whole microseconds since 1970, UTC, and back."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import overload

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US
MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}  # by unit of a number


def to_us(moment: datetime) -> int:
    """Microseconds since 1970 of an aware moment.

    >>> to_us(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
    1000005
    """
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_us(time_us: int) -> datetime:
    """The moment of so many microseconds since 1970, in UTC.

    >>> from_us(1_000_005).isoformat()
    '1970-01-01T00:00:01.000005+00:00'
    """
    return EPOCH + timedelta(microseconds=time_us)


@overload
def rfc3339(time_us: int) -> str: ...


@overload
def rfc3339(time_us: int | None) -> str | None: ...


def rfc3339(time_us: int | None) -> str | None:
    """Microseconds since 1970 as RFC 3339 text in UTC; None for None.

    >>> rfc3339(1592955233000001)
    '2020-06-23T23:33:53.000001Z'
    """
    if time_us is None:
        return None
    return from_us(time_us).isoformat(timespec="microseconds").replace("+00:00", "Z")


class SteadyClock:
    """Microseconds since 1970 that go on when the machine's clock is set back.

    What was stamped before must not come after what is stamped now. A clock that was set back is
    waited for by running at half its speed; set forward, it is followed at once.

    >>> walls, ticks = iter([5_000, 7_000, 3_000, 5_000]), iter([0, 2_000, 4_000, 6_000])
    >>> clock = SteadyClock(lambda: next(walls), lambda: next(ticks))
    >>> [clock() for _ in range(3)]
    [7, 8, 9]
    """

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        ticks_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns, self._ticks_ns = wall_ns, ticks_ns
        self._held = (ticks_ns(), wall_ns())  # a moment by both clocks, to count on from

    def __call__(self) -> int:
        ticks, wall = self._ticks_ns(), self._wall_ns()
        ticks_then, wall_then = self._held
        slow = wall_then + (ticks - ticks_then) // 2
        if wall >= slow:
            self._held = (ticks, wall)
            return wall // 1_000
        return slow // 1_000
